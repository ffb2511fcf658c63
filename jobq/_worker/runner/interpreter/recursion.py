"""The interpreter's recursion limit, which is the whole process's: a job that lowers it must not break what runs beside it."""

from __future__ import annotations

import sys

_kept = sys.getrecursionlimit()


def keep() -> None:
    """Take the present limit for the right one: that which the application has set while it was imported."""
    global _kept  # noqa: PLW0603 - so is the limit itself
    _kept = sys.getrecursionlimit()


def restore() -> None:
    """Raise the limit to the right one, if a job has lowered it."""
    if sys.getrecursionlimit() < _kept:
        sys.setrecursionlimit(_kept)
