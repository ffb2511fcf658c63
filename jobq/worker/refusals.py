"""Jobs that this worker's code cannot run: of a task that it does not have, or with arguments that do not fit its parameters.

They are parked (`parking.py`): another worker's code may be newer, or older.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

from jobq.errors import InvalidArguments
from jobq.worker.frames import Ending, Job, Setback
from jobq.worker.texts import clean

# Of a job's row, which the page shows whole.
MAX_REASON = 500


def unknown(job: Job, tasks: Collection[str]) -> Setback:
    """Return that no task of `job`'s name is among `tasks`, with what may have been meant."""
    near = difflib.get_close_matches(job.task, tasks, n=3)
    hint = f" (there is {', '.join(map(repr, near))})" if near else ""
    return Setback(
        job.id,
        job.claims,
        job.started,
        Ending.PARK,
        message=clean(f"no task {job.task!r} here{hint}: it waits for a worker whose application has it", MAX_REASON),
        refused="task",
    )


def misfit(job: Job, signature: str, error: InvalidArguments, error_type: str) -> Setback:
    """Return that the stored arguments of `job` do not fit the task, whose signature is `signature`."""
    return Setback(
        job.id,
        job.claims,
        job.started,
        Ending.PARK,
        error_type=error_type,
        message=clean(str(error), MAX_REASON),
        refused=error.stored,
        signature=signature,
    )
