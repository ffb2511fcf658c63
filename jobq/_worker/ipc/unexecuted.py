"""The outcomes of jobs that were not executed.

A job has not started when its runner ends or it is taken back, or this worker's code cannot run it:
its task is unknown, or its arguments do not fit the task's parameters. Then it is parked
(`parking.py`), because another worker's code may be newer or older.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

from jobq._core.storable import storable_text
from jobq._worker.ipc.messages import Disposition, Failure, Job
from jobq.errors import InvalidArguments

# Maximum length of the reason in a job's row, which the page shows completely.
MAX_REASON = 500


def unstarted(job: Job) -> Failure:
    """Return the outcome of a job that had not started.

    The job goes back as if it had never been claimed.
    """
    return Failure(job.id, job.claims, job.started, Disposition.RELEASE)


def unknown(job: Job, tasks: Collection[str]) -> Failure:
    """Return a failure that parks `job`, because its task is not among `tasks`.

    The message suggests similar names.
    """
    near = difflib.get_close_matches(job.task, tasks, n=3)
    hint = f" (there is {', '.join(map(repr, near))})" if near else ""
    return Failure(
        job.id,
        job.claims,
        job.started,
        Disposition.PARK,
        message=storable_text(
            f"no task {job.task!r} here{hint}: it waits for a worker whose application has it", MAX_REASON
        ),
        refused="task",
    )


def misfit(job: Job, signature: str, error: InvalidArguments, error_type: str) -> Failure:
    """Return a failure that parks `job`, because its stored arguments do not fit the task.

    `signature` is the signature of the task.
    """
    return Failure(
        job.id,
        job.claims,
        job.started,
        Disposition.PARK,
        error_type=error_type,
        message=storable_text(str(error), MAX_REASON),
        refused=error.stored,
        signature=signature,
    )
