"""Deciding what to do with the jobs of a runner that has ended.

- *It passed its timeout*, and its grace: a timeout of its own. It has cost a runner, so it runs alone from now on.
- *It was running when its runner crashed*, or was killed for what some job in it had done: counted as a crash.
- *It was running when its runner was ended for another job's sake*: it goes back, its attempt not counted. The release is
  counted and recorded, and from the second one on the job runs alone: so it ends, whatever runs beside others.
- *It had ended, and its outcome was not heard*: released the first time, for a kill can come between the two. If its runner
  ended by itself since it could not send, the job is to blame from the second time on.
- *It had not begun*: it goes back as if it had never been claimed.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from typing import NamedTuple

from jobq.backoff import Backoff
from jobq.worker.children import Child
from jobq.worker.frames import Ending, Job, Setback, TaskFacts
from jobq.worker.options import WorkerOptions
from jobq.worker.slots import Started

_CRASH = Backoff(base=1, cap=60)
STOPPING = "the worker stops"


class Verdict(NamedTuple):
    """What follows from the end of a runner."""

    setbacks: list[Setback]
    """One for each of its jobs."""
    guilty: list[str]
    """The tasks whose jobs have ended it for certain, one entry for each job."""
    suspected: set[str]
    """The tasks whose jobs were running when it crashed, when it is not certain which of them ended it."""


def judge(child: Child, how: str, now: float, facts: Mapping[str, TaskFacts], options: WorkerOptions) -> Verdict:
    """Return what follows from the end of a runner; `how` says how it ended."""
    running = {(slot.id, slot.claims): slot for slot in child.started()}
    newest = child.newest
    unheard = {
        held.job.id for held in child.jobs.values()
        if (held.job.id, held.job.claims) not in running and held.serial <= newest
    }  # fmt: skip
    # One of those that have ended is to blame if the runner could not send, or if nothing else was running.
    cut_off = bool(unheard) and (child.ended_cut_off or child.mute)
    to_blame = cut_off or (child.killed_for is None and not running)
    # It may have seen that it is cut off while the job that did so was still on its way to its end: which of them is not known.
    in_time = child.ended_cut_off and len(running) > 1
    spared = cut_off or in_time or (child.killed_for is not None and not child.to_blame)
    setbacks: list[Setback] = []
    guilty: list[str] = []
    suspected: set[str] = set()
    for held in child.jobs.values():
        job = held.job
        slot = running.get((job.id, job.claims))
        if slot is None:
            if job.id not in unheard:
                setbacks.append(unstarted(job))
            elif to_blame:
                sole = len(unheard) == 1
                setbacks.append(_never_heard(job, now - held.since, how, options.max_crashes, sole=sole))
                guilty += [job.task] if sole else []
            else:
                setbacks.append(bystander(job, now - held.since, child, how))
        elif slot.deadline is not None and now > slot.deadline:
            over = now > slot.deadline + options.timeout_grace
            guilty += [job.task] if over else []
            setbacks.append(timed_out(job, slot, now, facts.get(job.task), alone=over))
        elif spared:
            setbacks.append(bystander(job, now - slot.since, child, how))
        else:
            sole = len(running) == 1 and not unheard
            guilty += [job.task] if sole else []
            suspected.add(job.task)
            alone = child.to_blame and len(running) == 1
            setbacks.append(crashed(job, now - slot.since, how, options.max_crashes, alone=alone))
    if child.of_worker:
        # Ended for the worker's own sake, whatever ran in it.
        return Verdict(setbacks, [], set())
    return Verdict(setbacks, guilty, set() if guilty else suspected)


def unstarted(job: Job) -> Setback:
    """It had not begun: it goes back as if it had never been claimed."""
    return Setback(job.id, job.claims, job.started, Ending.RELEASE)


def unserved(job: Job, *, suspect: bool) -> Setback:
    """No process of its own was free for it in time: it goes back. Not at once, or it would be claimed again at once.

    A `suspect` one waits twice as long each time, up to a minute: by its claims that were no attempts.
    """
    longer = min(2.0 ** min(max(0, job.claims - job.attempt - 1), 10), 20.0) if suspect else 1.0
    return Setback(job.id, job.claims, job.started, Ending.RELEASE, delay=random.uniform(1, 3) * longer)


def bystander(job: Job, seconds: float, child: Child, how: str) -> Setback:
    """Its runner was ended for something else: it goes back unpunished."""
    if child.of_worker and child.killed_for == STOPPING:
        return Setback(job.id, job.claims, job.started, Ending.RELEASE, seconds=seconds)
    return Setback(
        job.id,
        job.claims,
        job.started,
        Ending.RELEASE,
        seconds=seconds,
        recorded="released",
        error_type="Released",
        message=f"its runner {how}: it runs again, its attempt not counted",
        # What ends all of a worker's jobs is no reason to run each alone.
        releases=int(not child.of_worker),
    )


def timed_out(job: Job, slot: Started, now: float, facts: TaskFacts | None, *, alone: bool) -> Setback:
    """It passed its timeout and did not end when it was interrupted; nor in its grace, if it is to run `alone` from now on."""
    last = job.attempt >= job.max_attempts or (facts is not None and not facts.retries_timeout)
    backoff = _backoff(facts) if facts is not None else Backoff()
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
        run_alone=alone,
    )


def _backoff(facts: TaskFacts) -> Backoff:
    if facts.backoff_delays:
        return Backoff(facts.backoff_delays, jitter=facts.backoff_jitter)
    return Backoff(base=facts.backoff_base, cap=facts.backoff_cap, jitter=facts.backoff_jitter)


def crashed(job: Job, seconds: float, how: str, max_crashes: int, *, alone: bool) -> Setback:
    """It was being executed when its runner came to the end that `how` tells."""
    return _crash(job, seconds, f"its runner {how} while it ran", max_crashes, alone=alone)


def _never_heard(job: Job, seconds: float, how: str, max_crashes: int, *, sole: bool) -> Setback:
    """It has ended, and its outcome never arrived. `sole`: it is the only one."""
    if job.releases:
        return _crash(job, seconds, f"its outcome never arrived: its runner {how}", max_crashes, alone=True)
    return Setback(
        job.id,
        job.claims,
        job.started,
        Ending.RELEASE,
        seconds=seconds,
        recorded="released",
        error_type="OutcomeLost",
        message=f"its outcome never arrived: its runner {how}; it runs again, its attempt not counted",
        releases=1,
        run_alone=sole,
    )


def _crash(job: Job, seconds: float, what: str, max_crashes: int, *, alone: bool) -> Setback:
    last = job.crashes + 1 >= max_crashes
    return Setback(
        job.id,
        job.claims,
        job.started,
        Ending.FAIL if last else Ending.CRASH,
        # At once the first time: most often another job's crash, or a machine short of memory, is to blame.
        delay=0.0 if last or not job.crashes else _CRASH.delay(job.crashes),
        seconds=seconds,
        recorded="crashed",
        error_type="RunnerCrashed",
        message=what + (f", {job.crashes + 1} times now" if last else ""),
        run_alone=alone,
    )


def how_it_ended(child: Child, status: int) -> str:
    """Return how a runner ended that had this exit status, as a predicate."""
    if child.dismissed:
        return f"has ended ({child.killed_for})"
    if child.killed_for is not None:
        return f"was killed ({child.killed_for})"
    if child.ended_cut_off:
        return "ended since it could not send outcomes any more: a task has closed its descriptors"
    return ending(status)


def ending(status: int) -> str:
    """Return what the exit status of a runner says, as a predicate: "was killed by SIGSEGV"."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
