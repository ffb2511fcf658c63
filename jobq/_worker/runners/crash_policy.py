"""Decide what to do with the jobs of a runner that has ended.

- *Past its timeout and grace*: the job failed by its own timeout. It has ended a runner, so it runs
  alone from now on.
- *In a batch past its timeout and grace*: the same, but the jobs run in smaller batches next time,
  because it is not known which of them hangs.
- *Running when its runner crashed*, or when the runner was killed for something that some job in it
  did: counted as a crash.
- *Running when its runner was ended because of another job*: the job goes back, and its attempt is
  not counted. The release is counted and recorded. From the second release on the job runs alone,
  so it can end regardless of its neighbors.
- *Ended, but its outcome was not received*: the first time the job is released, because a kill can
  come between the two events. If its runner ended by itself because it could not send, the job is
  to blame from the second time on.
- *Not started*: the job goes back as if it had never been claimed.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jobq._worker.ipc.messages import Disposition, Failure, Job, TaskInfo
from jobq._worker.ipc.slot_table import Started
from jobq._worker.ipc.unexecuted import unstarted
from jobq._worker.runners.held_jobs import HeldJob
from jobq.retry import Backoff

_CRASH = Backoff(base=1, cap=60)
STOPPING = "the worker stops"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerExit:
    """How a runner ended and which jobs it held: the facts by which its jobs are judged."""

    status: int
    """Exit status of the process; if negative, the signal that killed it."""
    at: float
    """When the end was noticed, in time.monotonic() seconds."""
    held: Sequence[HeldJob]
    """The jobs that the runner held."""
    running: Sequence[Started]
    """The jobs that the runner was executing."""
    unstarted: frozenset[int]
    """Ids of the held jobs that the runner had not started."""
    killed_for: str | None = None
    """Why the worker ended the runner; None if the runner ended by itself."""
    of_worker: bool = False
    """Whether the reason concerns the worker, and not this runner or its jobs."""
    dismissed: bool = False
    """Whether the runner was ended in good order."""
    to_blame: bool = False
    """Whether the runner was killed because of something that its running jobs must have done."""
    cannot_report: bool = False
    """Whether the runner was killed because it could no longer report how its jobs had ended."""
    cut_off: bool = False
    """Whether the runner ended itself because it could no longer send outcomes."""

    @property
    def how(self) -> str:
        """How the runner ended, as a predicate: "was killed by SIGSEGV"."""
        if self.dismissed:
            return f"has ended ({self.killed_for})"
        if self.killed_for is not None:
            return f"was killed ({self.killed_for})"
        if self.cut_off:
            return "ended since it could not send outcomes any more: a task has closed its descriptors"
        return ending(self.status)


class Verdict(NamedTuple):
    """The consequences of the end of a runner."""

    setbacks: list[Failure]
    """One failure for each job of the runner."""
    guilty: list[str]
    """Tasks whose jobs certainly ended the runner, one entry for each job."""
    suspected: set[str]
    """Tasks whose jobs were running at a crash for which none of them is certainly to blame."""


def judge(runner: RunnerExit, facts: Mapping[str, TaskInfo], *, max_crashes: int, timeout_grace: float) -> Verdict:
    """Return the consequences of the end of `runner`.

    Args:
        runner: The runner that has ended.
        facts: The known tasks by name.
        max_crashes: Number of crashes at which a job fails permanently.
        timeout_grace: Seconds that a job may go on after its timeout before its runner is ended.
    """
    how, now = runner.how, runner.at
    running = {(slot.id, slot.claims): slot for slot in runner.running}
    unheard = {
        held.job.id for held in runner.held
        if (held.job.id, held.job.claims) not in running and held.job.id not in runner.unstarted
    }  # fmt: skip
    # If the runner could not send, or if nothing else was running, one of the ended jobs is to
    # blame.
    cut_off = bool(unheard) and (runner.cut_off or runner.cannot_report)
    to_blame = cut_off or (runner.killed_for is None and not running)
    # The runner may have noticed that it is cut off while the job that caused it was still about to
    # end. Then it is not known which job it was.
    in_time = runner.cut_off and len(running) > 1
    spared = cut_off or in_time or (runner.killed_for is not None and not runner.to_blame)
    setbacks: list[Failure] = []
    sizes = Counter(slot.batch for slot in runner.running if slot.batch)
    blamed: set[int] = set()
    """Batches whose task has been blamed: once for all of their jobs."""
    guilty: list[str] = []
    suspected: set[str] = set()
    for held in runner.held:
        job = held.job
        slot = running.get((job.id, job.claims))
        if slot is None:
            if job.id not in unheard:
                setbacks.append(unstarted(job))
            elif to_blame:
                sole = len(unheard) == 1
                setbacks.append(_never_heard(job, now - held.since, how, max_crashes, sole=sole))
                guilty += [job.task] if sole else []
            else:
                setbacks.append(requeue_uncounted(job, now - held.since, runner))
        elif slot.deadline is not None and now > slot.deadline:
            over = now > slot.deadline + timeout_grace
            # One of the jobs of a batch is to blame. They run in smaller batches next time: so many
            # runners for one job each would take minutes.
            guilty += [job.task] if over and slot.batch not in blamed else []
            if slot.batch:
                blamed.add(slot.batch)
            alone = over and sizes[slot.batch] <= 1
            setbacks.append(timed_out(job, slot, now, facts.get(job.task), alone=alone))
        elif spared:
            setbacks.append(requeue_uncounted(job, now - slot.since, runner))
        else:
            sole = len(running) == 1 and not unheard
            guilty += [job.task] if sole else []
            suspected.add(job.task)
            alone = runner.to_blame and len(running) == 1
            setbacks.append(crashed(job, now - slot.since, how, max_crashes, alone=alone))
    if runner.of_worker:
        # The runner was ended because of the worker, regardless of its jobs.
        return Verdict(setbacks, [], set())
    return Verdict(setbacks, guilty, set() if guilty else suspected)


def unserved(job: Job, *, suspect: bool) -> Failure:
    """Return the outcome of a job for which no isolated runner was free in time: it goes back.

    The delay keeps the job from being claimed again at once. A `suspect` job waits twice as long each
    time, up to a minute. Its number of claims that were no attempts determines the delay.
    """
    longer = min(2.0 ** min(max(0, job.claims - job.attempt - 1), 10), 20.0) if suspect else 1.0
    return Failure(job.id, job.claims, job.started, Disposition.RELEASE, delay=random.uniform(1, 3) * longer)


def requeue_uncounted(job: Job, seconds: float, runner: RunnerExit) -> Failure:
    """Return the outcome of a job whose runner was ended for a different reason.

    The job goes back, and the attempt is not counted.
    """
    if runner.of_worker and runner.killed_for == STOPPING:
        return Failure(job.id, job.claims, job.started, Disposition.RELEASE, seconds=seconds)
    return Failure(
        job.id,
        job.claims,
        job.started,
        Disposition.RELEASE,
        seconds=seconds,
        recorded="released",
        error_type="Released",
        message=f"its runner {runner.how}: it runs again, its attempt not counted",
        # An event that ends all jobs of a worker is no reason to run each of them alone.
        releases=int(not runner.of_worker),
    )


def timed_out(job: Job, slot: Started, now: float, facts: TaskInfo | None, *, alone: bool) -> Failure:
    """Return the outcome of a job that passed its timeout and did not end when interrupted.

    If `alone`, the job did not end within its grace either, and runs alone from now on.
    """
    last = job.attempt >= job.max_attempts or (facts is not None and not facts.retries_timeout)
    backoff = _backoff(facts) if facts is not None else Backoff()
    over = now - slot.since - (job.timeout or 0.0)
    return Failure(
        job.id,
        job.claims,
        job.started,
        Disposition.FAIL if last else Disposition.RETRY,
        delay=0.0 if last else backoff.delay(job.attempt),
        seconds=now - slot.since,
        recorded="timeout",
        error_type="TimedOut",
        message=f"timed out after {job.timeout:g} s, went on for {over:.1f} s more, and its runner was killed",
        run_alone=alone,
    )


def _backoff(facts: TaskInfo) -> Backoff:
    if facts.backoff_delays:
        return Backoff(facts.backoff_delays, jitter=facts.backoff_jitter)
    return Backoff(base=facts.backoff_base, cap=facts.backoff_cap, jitter=facts.backoff_jitter)


def crashed(job: Job, seconds: float, how: str, max_crashes: int, *, alone: bool) -> Failure:
    """Return the outcome of a job that was being executed when its runner ended as `how` tells."""
    return _crash(job, seconds, f"its runner {how} while it ran", max_crashes, alone=alone)


def _never_heard(job: Job, seconds: float, how: str, max_crashes: int, *, sole: bool) -> Failure:
    """Return the outcome of a job that ended, but whose outcome never arrived.

    `sole`: there is only one such job.
    """
    if job.releases:
        return _crash(job, seconds, f"its outcome never arrived: its runner {how}", max_crashes, alone=True)
    return Failure(
        job.id,
        job.claims,
        job.started,
        Disposition.RELEASE,
        seconds=seconds,
        recorded="released",
        error_type="OutcomeLost",
        message=f"its outcome never arrived: its runner {how}; it runs again, its attempt not counted",
        releases=1,
        run_alone=sole,
    )


def _crash(job: Job, seconds: float, what: str, max_crashes: int, *, alone: bool) -> Failure:
    last = job.crashes + 1 >= max_crashes
    return Failure(
        job.id,
        job.claims,
        job.started,
        Disposition.FAIL if last else Disposition.CRASH,
        # The first retry has no delay: most often another job's crash or a machine short of memory
        # is to blame.
        delay=0.0 if last or not job.crashes else _CRASH.delay(job.crashes),
        seconds=seconds,
        recorded="crashed",
        error_type="RunnerCrashed",
        message=what + (f", {job.crashes + 1} times now" if last else ""),
        run_alone=alone,
    )


def ending(status: int) -> str:
    """Describe the exit status of a runner as a predicate: "was killed by SIGSEGV"."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
