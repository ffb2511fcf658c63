"""A selection of jobs, as an operator writes it: ``state:failed task:mail.* age:>1h args.order_id:42``.

Text becomes a :class:`JobFilter`, a value that says itself again as text and as SQL. Every term narrows the selection; what an
operator wrote goes to the server as parameters only.
"""

from __future__ import annotations

from jobq.filters.jobfilter import JobFilter
from jobq.filters.terms import (
    HISTORY_STATES,
    LIVE_STATES,
    MAX_ID,
    MAX_LENGTH,
    MAX_TERMS,
    QUALIFIERS,
    STATES,
    ArgTerm,
    Bound,
    Prefix,
)

__all__ = [
    "HISTORY_STATES",
    "LIVE_STATES",
    "MAX_ID",
    "MAX_LENGTH",
    "MAX_TERMS",
    "QUALIFIERS",
    "STATES",
    "ArgTerm",
    "Bound",
    "JobFilter",
    "Prefix",
]
