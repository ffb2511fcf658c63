"""How many jobs may share a batch with a job, given what happened to it before.

A failure of a call says nothing about which of its jobs is the reason. So jobs of such a call run in
smaller and smaller batches, and the others succeed soon. From its fourth attempt on, and at its last
one, a job runs alone: it cannot become a dead letter because of others. The sizes between fall by
equal factors (500, 63, 8, 1), because halves would need nine attempts, and a call that hangs costs a
runner each time.

A job that has cost a runner, or whose runner was ended, runs alone at once. It then either ends the
next runner by itself or is cleared.

This needs no memory of its own: the counts are in the job's row, and every worker agrees.
"""

from __future__ import annotations

import math

from jobq._worker.ipc.messages import Job

# Number of failed attempts after which a job runs alone.
_STEPS = 3


def batch_limit(size: int, job: Job) -> int:
    """Return the most jobs of a batch with `job`: a number from 1 to `size`.

    Jobs share a batch only if they have the same limit. It is `size` at the first attempt, and then smaller
    at each. It is 1 after three failed attempts, at the last attempt, and always if the job has crashed, was
    released, or is marked to run alone. A task whose jobs have one attempt uses full batches: its jobs were
    never to be tried again.

    Args:
        size: Most jobs of a batch of the job's task.
        job: The job, with its counts at this claim.
    """
    if job.crashes or job.run_alone or job.releases:
        return 1
    if job.attempt <= 1:
        return size
    steps = min(job.max_attempts - 1, _STEPS)
    done = min(job.attempt - 1, steps)
    # Whole numbers for equal factors: 500 ** (1 / 3) would be 7.94.
    return 1 if done >= steps else math.ceil(size ** ((steps - done) / steps) - 1e-9)
