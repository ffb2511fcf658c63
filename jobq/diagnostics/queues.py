"""Backlog: due jobs that no worker serves, that wait without need, or that are late.

Due jobs count in any state: ready, waiting for their group, parked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jobq._core.durations import format_duration
from jobq._core.text import NAMED, listed, name, one_line, plural, wait
from jobq.diagnostics.finding import Check, Finding, Status
from jobq.diagnostics.snapshot import Snapshot
from jobq.queries import DueTask, QueueInfo

IDLE_WAIT = 15.0  # seconds that a due job may wait while slots are free
LATE = 60.0  # seconds that a due job may wait while its workers are busy


def backlog(queues: Sequence[QueueInfo]) -> str:
    """Return the number of due jobs and the longest wait: ``5 jobs due, the oldest for 3 h``."""
    number = sum(min(queue.due, queue.counted_to) for queue in queues)
    more = any(queue.due > queue.counted_to for queue in queues)
    ages = [queue.oldest_ready_seconds for queue in queues if queue.oldest_ready_seconds is not None]
    said = f"{'more than ' if more else ''}{plural(number, 'job')} due"
    return said + (f", the oldest for {format_duration(max(ages))}" if ages else "")


def named(queues: Sequence[QueueInfo]) -> str:
    """Return ``queue mail (5 jobs due, the oldest for 3 h)``, or several queues' names.

    The queues with the longest waits are named.
    """
    if len(queues) == 1:
        return f"queue {name(queues[0].name)} ({backlog(queues)})"
    worst = sorted(queues, key=lambda queue: -(queue.oldest_ready_seconds or 0.0))
    each = [f"{name(queue.name)} ({backlog([queue])})" for queue in worst]
    return f"{len(queues):,} queues ({backlog(queues)}): {listed(each)}"


def _options(queues: Sequence[QueueInfo]) -> str:
    return f"--queues {','.join(name(queue.name) for queue in queues[:3])}{',…' if len(queues) > 3 else ''}"


def _finding(check: str, status: Status, message: str, fix: str, queues: Sequence[QueueInfo]) -> Finding:
    one = {"name": queues[0].name} if len(queues) == 1 else {}
    return Finding(check=check, status=status, message=message, fix=fix, page="queue" if one else "queues", filters=one)


def _unserved(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for queues with jobs that no live worker serves, or only workers that claim nothing."""
    if not snapshot.alive:
        # One cause gives one line: see `workers`.
        yield Finding(check="queues", status=Status.OK, message="nothing to say while no worker is alive: see workers")
        return
    open_ = [queue for queue in snapshot.queues if queue.paused_at is None]
    due = [queue for queue in open_ if queue.due]
    if unserved := [queue for queue in due if not snapshot.serving(queue.name)]:
        yield _finding(
            "queues",
            Status.FAIL,
            f"no live worker serves {named(unserved)}",
            f"start a worker with {_options(unserved)}, or one without --queues",
            unserved,
        )
    held = [queue for queue in due if snapshot.serving(queue.name) and not snapshot.claiming(queue.name)]
    if held:
        states = {worker.state for queue in held for worker in snapshot.serving(queue.name)}
        starting = states == {"starting"} and all((queue.oldest_ready_seconds or 0.0) < LATE for queue in held)
        yield _finding(
            "queues",
            Status.WARN if starting else Status.FAIL,
            f"every live worker that serves {named(held)} claims nothing: {' or '.join(sorted(states))}",
            "`jobq workers resume` ends quiet; one that goes on starting or draining says why in its log",
            held,
        )
    later = [queue for queue in open_ if queue.scheduled and not queue.due and not snapshot.serving(queue.name)]
    if later:
        number = sum(queue.scheduled for queue in later)
        which = (
            f"queue {name(later[0].name)} has {plural(number, 'job')} for later, and no live worker serves it"
            if len(later) == 1
            else f"{len(later):,} queues have {plural(number, 'job')} for later, and no live worker serves them: "
            + listed([name(queue.name) for queue in later])
        )
        yield _finding(
            "queues",
            Status.WARN,
            which,
            f"start a worker with {_options(later)}, or one without --queues",
            later,
        )


def _is_idle(snapshot: Snapshot, queue: QueueInfo) -> bool:
    """Whether plain jobs of `queue` wait although workers have free slots, without a limit."""
    settings, waited = queue.settings, queue.oldest_unheld_seconds
    if queue.paused_at is not None or settings.rate is not None or waited is None or waited <= IDLE_WAIT:
        return False
    if settings.limit is not None and queue.running >= settings.limit:
        return False
    return any(worker.running < worker.slots for worker in snapshot.claiming(queue.name))


def _idle(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for due jobs that wait while workers of their queue have free slots."""
    if idle := [queue for queue in snapshot.queues if _is_idle(snapshot, queue)]:
        workers = {worker.id: worker for queue in idle for worker in snapshot.claiming(queue.name)}
        free = sum(max(worker.slots - worker.running, 0) for worker in workers.values())
        worst = max(queue.oldest_unheld_seconds or 0.0 for queue in idle)
        which = f"queue {name(idle[0].name)} has" if len(idle) == 1 else f"{len(idle):,} queues have"
        some = "" if len(idle) == 1 else f" ({listed([name(queue.name) for queue in idle])})"
        yield _finding(
            "idle",
            Status.FAIL,
            f"{which} jobs that have been due for {format_duration(worst)}, and {plural(free, 'slot')} of "
            f"{'its' if len(idle) == 1 else 'their'} workers stand idle{some}",
            "look for `stalled` in the workers' logs; transactions that lock the jobs are another cause",
            idle,
        )


def _late(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for jobs that are over a minute late although claiming workers serve the queue."""
    late = [
        queue
        for queue in snapshot.queues
        if queue.paused_at is None
        and (queue.oldest_ready_seconds or 0.0) >= LATE
        and queue.due > queue.parked  # parked jobs wait for other code: see `parked`
        and snapshot.claiming(queue.name)
        and not _is_idle(snapshot, queue)
    ]
    # A queue without a rule whose jobs wait for their group has lost its rule; they are still
    # claimed by it.
    by_rule = {queue.name: queue.settings.limited or (queue.oldest_unheld_seconds or 0.0) < LATE for queue in late}
    limited = [queue for queue in late if by_rule[queue.name]]
    if busy := [queue for queue in late if not by_rule[queue.name]]:
        yield _finding(
            "late",
            Status.WARN,
            f"{be_late(busy)}: every slot of the workers that serve {'it' if len(busy) == 1 else 'them'} is taken",
            "start more workers or raise --concurrency, unless the backlog is expected",
            busy,
        )
    if limited:
        held = (
            "its limit, its rate or the rule for its groups"
            if len(limited) == 1
            else "limits, rates or rules for groups"
        )
        why = limited[0].settings.describe() if len(limited) == 1 else ""
        yield _finding(
            "late",
            Status.WARN,
            f"{be_late(limited)}, and may be held back by {held}" + (f" ({why})" if why else ""),
            "compare what is set with what is needed (`jobq queues show QUEUE`), and change it with `jobq queues set`",
            limited,
        )


def be_late(queues: Sequence[QueueInfo]) -> str:
    """Return ``queue mail is late (5 jobs due, the oldest for 3 h)``, or that of several."""
    if len(queues) == 1:
        return f"queue {name(queues[0].name)} is late ({backlog(queues)})"
    return f"{len(queues):,} queues are late ({backlog(queues)}): " + named(queues).partition("): ")[2]


def _paused(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for paused queues, and report their waiting jobs."""
    paused = [queue for queue in snapshot.queues if queue.paused_at is not None]
    if not paused:
        return
    paused.sort(key=lambda queue: -(queue.oldest_ready_seconds or 0.0))
    if len(paused) == 1:
        queue = paused[0]
        why = f" ({one_line(queue.pause_reason, 100)})" if queue.pause_reason else ""
        waits = f", with {backlog(paused)}" if queue.due else "; no job is due in it"
        yield _finding(
            "paused",
            Status.WARN,
            f"queue {name(queue.name)} is paused by {name(queue.paused_by or 'an operator')}{why}{waits}",
            f"`jobq queues resume {name(queue.name)}`",
            paused,
        )
        return
    each = [
        f"{name(queue.name)} by {name(queue.paused_by or 'an operator')}"
        + (f" ({one_line(queue.pause_reason, 60)})" if queue.pause_reason else "")
        for queue in paused
    ]
    yield Finding(
        check="paused",
        status=Status.WARN,
        message=f"{len(paused):,} queues are paused, with {backlog(paused)}: {listed(each)}",
        fix="`jobq queues resume QUEUE`",
        page="queues",
    )


def _tasks(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for due jobs whose task no live worker knows, before a worker parks them."""
    alive = snapshot.alive
    if not alive:
        yield Finding(check="tasks", status=Status.OK, message="nothing to say while no worker is alive: see workers")
        return
    paused = {queue.name for queue in snapshot.queues if queue.paused_at is not None}
    parked = {one.task for one in snapshot.parked if one.unknown and not one.may}
    lost: dict[str, list[DueTask]] = {}
    for due in snapshot.due_tasks:
        serving = snapshot.serving(due.queue)
        known = any(due.task in worker.tasks for worker in serving)
        if serving and not known and due.queue not in paused and due.task not in parked:
            lost.setdefault(due.task, []).append(due)
    apart = list(lost.items())[:NAMED] if len(lost) <= NAMED else []
    for task, of_task in apart:
        yield Finding(
            check="tasks",
            status=Status.FAIL,
            message=f"no live worker of queue {listed(_queues(of_task))} knows task {name(task)} ({_waiting(of_task)})",
            fix="deploy workers whose application has it; or `jobq jobs cancel --task` them",
            page="jobs",
            filters={"task": task},
        )
    if lost and not apart:
        every = [due for of_task in lost.values() for due in of_task]
        yield Finding(
            check="tasks",
            status=Status.FAIL,
            message=f"no live worker of queue {listed(_queues(every))} knows {len(lost):,} tasks ({_waiting(every)}): "
            + listed([name(task) for task in lost]),
            fix="deploy workers whose application has them; or `jobq jobs cancel --task` them",
            page="jobs",
        )


def _queues(due: Sequence[DueTask]) -> list[str]:
    return sorted({name(one.queue) for one in due})


def _waiting(due: Sequence[DueTask]) -> str:
    number, whole = sum(one.number for one in due), all(one.whole for one in due)
    oldest = format_duration(max(one.oldest_seconds for one in due))
    return f"{'' if whole else 'at least '}{plural(number, 'job')} due, the oldest for {oldest}"


def _parked(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for jobs claimed by workers whose code lacks their task or parameters."""
    # Jobs that a live worker may run will be claimed in a moment.
    found = [parked for parked in snapshot.parked if not parked.may or parked.seconds >= LATE]
    unknown = [parked for parked in found if parked.unknown and not parked.may]
    if len(unknown) > NAMED:
        number = sum(parked.number for parked in unknown)
        yield Finding(
            check="parked",
            status=Status.FAIL,
            message=f"no live worker knows {len(unknown):,} tasks; {plural(number, 'job')} of these {wait(number)}: "
            + listed([name(parked.task) for parked in unknown]),
            fix="deploy workers whose application has them; or `jobq jobs cancel --where 'state:parked task:…'`",
            page="jobs",
            filters={"state": "parked"},
        )
        found = [parked for parked in found if parked not in unknown]
    for parked in found:
        fix = (
            "start more workers of the newer code, or look whether they serve the queue and are not quiet"
            if parked.may
            else "deploy workers whose application has it; or `jobq jobs cancel --where 'state:parked task:"
            f"{parked.task}'`"
        )
        yield Finding(
            check="parked",
            status=Status.WARN if parked.may else Status.FAIL,
            message=f"{parked.sentence}: {plural(parked.number, 'job')} of queue "
            f"{listed([name(queue) for queue in parked.queues], 5)} {wait(parked.number)}",
            fix=fix,
            page="jobs",
            filters={"state": "parked"},
        )


QUEUE_CHECKS: dict[str, tuple[Check, str]] = {
    "queues": (_unserved, "a live worker serves every queue that has jobs"),
    "tasks": (_tasks, "no due job seen is without a worker that knows its task"),
    "parked": (_parked, "no job waits for a worker with other code"),
    "idle": (_idle, "no due job waits for a slot that is free"),
    "late": (_late, f"no job that a worker serves has been due for {format_duration(LATE)}"),
    "paused": (_paused, "no queue is paused"),
}
"""Each check by name, with the text if it finds nothing."""
