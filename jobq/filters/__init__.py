"""A selection of jobs as an operator writes it.

An example is ``state:failed task:mail.* age:>1h args.order_id:42``.

Text is parsed to a :class:`JobFilter`, a value that converts back to text and to SQL. Every term
narrows the selection. An operator's text reaches the server only as parameters.
"""

from __future__ import annotations

from jobq.filters.filter import JobFilter
from jobq.filters.terms import (
    MAX_ID,
    MAX_LENGTH,
    MAX_TERMS,
    QUALIFIERS,
    ArgTerm,
    Bound,
    Prefix,
)

__all__ = [
    "MAX_ID",
    "MAX_LENGTH",
    "MAX_TERMS",
    "QUALIFIERS",
    "ArgTerm",
    "Bound",
    "JobFilter",
    "Prefix",
]
