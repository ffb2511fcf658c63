"""How many rows a list may have."""

from __future__ import annotations

from jobq._core.validation import check_int

MAX_LIMIT = 1000


def check_limit(limit: int) -> int:
    """Return `limit`, the number of rows to list. Raises InvalidOption unless it is 1 to 1,000."""
    return check_int("limit", limit, 1, MAX_LIMIT)
