"""Removal of trace and profile functions that a task has left behind.

The functions (`sys.settrace`, `sys.setprofile`) end with the job. They belong to the thread and
would be called in jobq's own code. An error that they raise there would end the runner.
"""

from __future__ import annotations

import sys
import threading

_kept = threading.local()


def keep() -> None:
    """Keep this thread's present functions as the right ones: those of coverage, for instance."""
    _kept.functions = sys.gettrace(), sys.getprofile()


def restore() -> None:
    """Restore the right functions in a thread that called `keep`.

    This may raise whatever a task's function raises; the error unsets that function.
    """
    functions = getattr(_kept, "functions", None)
    if functions is not None:
        sys.settrace(functions[0])
        sys.setprofile(functions[1])
