"""The interpreter's recursion limit, which belongs to the whole process.

A job that lowers it must not break other jobs.
"""

from __future__ import annotations

import sys

_kept = sys.getrecursionlimit()


def keep() -> None:
    """Keep the present limit, which the application may have set during its import."""
    global _kept  # noqa: PLW0603 - so is the limit itself
    _kept = sys.getrecursionlimit()


def restore() -> None:
    """Raise the limit to the right one, if a job has lowered it."""
    if sys.getrecursionlimit() < _kept:
        sys.setrecursionlimit(_kept)
