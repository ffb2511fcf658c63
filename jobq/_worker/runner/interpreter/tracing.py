"""Trace and profile functions (`sys.settrace`, `sys.setprofile`) that a task has left behind: they end with its job.

They are the thread's, and would be called in jobq's own code: what they raise there would end the runner.
"""

from __future__ import annotations

import sys
import threading

_kept = threading.local()


def keep() -> None:
    """Take this thread's present functions for the right ones: coverage's, for instance."""
    _kept.functions = sys.gettrace(), sys.getprofile()


def restore() -> None:
    """Set the right ones again, where `keep` was called. May raise whatever a task's function raises, which unsets it."""
    functions = getattr(_kept, "functions", None)
    if functions is not None:
        sys.settrace(functions[0])
        sys.setprofile(functions[1])
