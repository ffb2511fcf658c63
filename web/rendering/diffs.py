"""What changed from one attempt's traceback to the next."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from jobq.queries import Attempt
from jobq.web import show

# Comparing is quadratic in the worst case: what is longer is compared as far as this, and of many attempts the newest.
_MOST_LINES = 500
_LONGEST_LINE = 400
_MOST_ATTEMPTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffLine:
    """A line and its change: ``add``, ``del``, ``at`` (where it is) or ``same``."""

    kind: str
    text: str


def diffs(attempts: Sequence[Attempt]) -> dict[int, list[DiffLine]]:
    """Return for each attempt (by its claims) how its traceback differs from the one before it; an empty list when it is the
    same. The first has none, nor have those without a text.
    """
    found: dict[int, list[DiffLine]] = {}
    for before, after in pairwise(attempts[-_MOST_ATTEMPTS:]):
        old, new = _lines(before), _lines(after)
        if old and new:
            found[after.claims] = [
                DiffLine(kind=_kind(line), text=show.visible(line))
                for line in list(difflib.unified_diff(old, new, n=3, lineterm=""))[2:]
            ]
    return found


def _lines(attempt: Attempt) -> list[str]:
    text = attempt.traceback or attempt.message or ""
    return [line[:_LONGEST_LINE] for line in text.splitlines()[:_MOST_LINES]]


def _kind(line: str) -> str:
    return {"+": "add", "-": "del", "@": "at"}.get(line[:1], "same")
