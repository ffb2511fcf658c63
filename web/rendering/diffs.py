"""Differences between the tracebacks of successive attempts."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from jobq.queries import Attempt
from jobq.web.rendering import formatting

# Comparing is quadratic in the worst case. Longer tracebacks are cut, and only the newest attempts
# are compared.
_MAX_LINES = 500
_MAX_LINE_LENGTH = 400
_MAX_ATTEMPTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffLine:
    """A line of a diff. `kind` is ``add``, ``del``, ``at`` (a position) or ``same``."""

    kind: str
    text: str


def diffs(attempts: Sequence[Attempt]) -> dict[int, list[DiffLine]]:
    """Return the diff of each attempt's traceback against the previous attempt's, by the attempt's
    `claims`.

    An empty list means that both are equal. The first attempt and attempts without a text have no
    entry.
    """
    found: dict[int, list[DiffLine]] = {}
    for before, after in pairwise(attempts[-_MAX_ATTEMPTS:]):
        old, new = _lines(before), _lines(after)
        if old and new:
            found[after.claims] = [
                DiffLine(kind=_kind(line), text=formatting.visible(line))
                for line in list(difflib.unified_diff(old, new, n=3, lineterm=""))[2:]
            ]
    return found


def _lines(attempt: Attempt) -> list[str]:
    text = attempt.traceback or attempt.message or ""
    return [line[:_MAX_LINE_LENGTH] for line in text.splitlines()[:_MAX_LINES]]


def _kind(line: str) -> str:
    return {"+": "add", "-": "del", "@": "at"}.get(line[:1], "same")
