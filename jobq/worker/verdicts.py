"""What becomes of a job whose runner has ended under it."""

from __future__ import annotations

import signal

from jobq.backoff import Backoff
from jobq.worker.frames import Ending, Job, Setback, TaskFacts
from jobq.worker.slots import Started

_CRASH = Backoff(base=1, cap=60)


def unstarted(job: Job) -> Setback:
    """It had not begun: it goes back as if it had never been claimed."""
    return Setback(job.id, job.claims, job.started, Ending.RELEASE)


def bystander(job: Job, slot: Started, now: float) -> Setback:
    """Its runner was ended for something else: it goes back unpunished."""
    return Setback(job.id, job.claims, job.started, Ending.RELEASE, seconds=now - slot.since)


def timed_out(job: Job, slot: Started, now: float, facts: TaskFacts | None) -> Setback:
    """It passed its timeout and did not end when it was interrupted."""
    last = job.attempt >= job.max_attempts or (facts is not None and not facts.retries_timeout)
    backoff = Backoff(base=facts.backoff_base, cap=facts.backoff_cap) if facts is not None else Backoff()
    over = now - slot.since - (job.timeout or 0.0)
    return Setback(
        job.id,
        job.claims,
        job.started,
        Ending.FAIL if last else Ending.RETRY,
        delay=0.0 if last else backoff.delay(job.attempt),
        seconds=now - slot.since,
        recorded="timeout",
        error_type="TimedOut",
        message=f"timed out after {job.timeout:g} s, went on for {over:.1f} s more, and its runner was killed",
    )


def crashed(job: Job, slot: Started, now: float, how: str, max_crashes: int) -> Setback:
    """It was being executed when its runner came to the end that `how` tells."""
    last = job.crashes + 1 >= max_crashes
    return Setback(
        job.id,
        job.claims,
        job.started,
        Ending.FAIL if last else Ending.CRASH,
        # At once the first time: most often somebody else's crash, or a machine short of memory, is to blame.
        delay=0.0 if last or not job.crashes else _CRASH.delay(job.crashes),
        seconds=now - slot.since,
        recorded="crashed",
        error_type="RunnerCrashed",
        message=f"its runner {how} while it ran" + (f", {job.crashes + 1} times now" if last else ""),
    )


def ending(status: int) -> str:
    """Return what the exit status of a runner says, as a predicate: "was killed by SIGSEGV"."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
