"""What `drain(with_scheduled=True)` makes due: future jobs, retries, and the waits of durable jobs that have an end."""

from __future__ import annotations

# A durable job that waits for a signal or a child without a time limit is not scheduled: it comes
# back after a week at most, looks, and waits again. It has steps that wait, and none of them for a
# time. But it may have failed in another branch meanwhile: then its last attempt says when it is
# tried again.
MAKE_DUE = """
WITH due AS (
    UPDATE {0}.job SET run_at = now()
    WHERE state IN ('ready', 'waiting') AND run_at > now()
      AND (NOT EXISTS (SELECT FROM {0}.job_step AS step
                       WHERE step.job_id = job.id AND step.state = 'waiting' AND step.kind IN ('signal', 'child')
                         AND strpos(step.args_hash, '/') = 0)
           OR EXISTS (SELECT FROM {0}.job_step AS step
                      WHERE step.job_id = job.id AND step.state IN ('waiting', 'retrying') AND step.wake_at > clock_timestamp())
           OR EXISTS (SELECT FROM {0}.job_attempt AS attempt WHERE attempt.job_id = job.id AND attempt.retry_at = job.run_at))
    RETURNING queue, group_key, state
), steps AS (
    UPDATE {0}.job_step SET wake_at = now() WHERE state IN ('waiting', 'retrying') AND wake_at > now()
), turned AS (
    INSERT INTO {0}.group_ready (queue, group_key) SELECT queue, group_key FROM due WHERE state = 'waiting'
)
SELECT queue FROM due
"""
