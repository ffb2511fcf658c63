"""Durable tasks: code whose steps are stored, so that it goes on where it was.

`api.py` is what tasks call; `kinds.py` says what each kind of step does; `log.py` knows what is
stored; `store.py` is the interface to the place where it is stored (for a worker,
`jobq._worker.runner.step_thread`).
"""

from __future__ import annotations

from jobq.steps.api import Step, StepOptions, step

__all__ = ["Step", "StepOptions", "step"]
