"""The history checker: what the ledger and the final database must have in common, whatever was broken in between.

Pure: it reads values, and returns what is violated. `test_checker.py` breaks each rule on purpose.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

from tests.chaos.scene.history import Execution, Final, History, JobRow, Limits, Placed, Violation
from tests.chaos.scene.ledger import Record

# Between CLOCK_MONOTONIC and the database's clock, in nanoseconds, while both are of one machine.
TOLERANCE = 50_000_000
# A runner that sleeps through the end of its lease can have fallen asleep between its last look at the lease and the task's
# first line: at most one job a slot. Those begin as it wakes, before anything of ours gets to run; a stock of jobs that begins
# then is a fault.
AS_IT_WAKES = 100_000_000
# The longest that a job may be `running` in the name of a worker that does not hold it.
ABANDONED = 30_000_000_000
LIVE = ("ready", "running", "parked", "waiting")


def check(records: Iterable[Record], final: Final, limits: Limits | None = None) -> list[Violation]:
    """Return every promise that was broken, sorted by rule; empty when all were kept."""
    history, limits = History(records), limits or Limits()
    rules = (
        _lost(history, final),
        _ghosts(history, final),
        _torn(history, final),
        _finished_twice(final),
        _stalled(final),
        _overlaps(history, limits),
        _ran_after_the_end(history, final, limits),
        _attempts(history, final),
        _crashes(final, limits),
        _keys(history, final),
        _unfounded(history, final, limits),
        _abandoned(history),
        _places(history, final, limits),
        _versions(history, final),
    )
    return sorted((violation for rule in rules for violation in rule), key=lambda violation: violation.rule)


def _rows(final: Final) -> tuple[JobRow, ...]:
    return final.live + final.finished


def _lost(history: History, final: Final) -> Iterator[Violation]:
    """A committed job is there, under the id that the producer was told; so is the holder that it was told of."""
    there = {row.token: row.id for row in _rows(final)}
    ids = {row.id for row in _rows(final)}
    own = {(each.transaction, each.job) for each in history.placed.values() if each.created}
    for placed in history.placed.values():
        if placed.created is False and placed.job is not None:
            # Seen by a statement, so committed; unless it was of the same transaction.
            if placed.job not in ids and (placed.transaction, placed.job) not in own:
                yield Violation("lost", f"job {placed.job}, named as the holder of {placed.key!r}, is nowhere")
        elif placed.fate == "commit":
            if placed.token not in there:
                yield Violation("lost", f"{placed.token} (job {placed.job}) was committed and is nowhere")
            elif placed.job is not None and there[placed.token] != placed.job:
                yield Violation("lost", f"{placed.token} is job {there[placed.token]}, not {placed.job} as was told")


def _ghosts(history: History, final: Final) -> Iterator[Violation]:
    """What was rolled back is nowhere and never ran; what ran is there; what is there was wanted."""
    there = {row.token for row in _rows(final)}
    run = history.tokens_run()
    for token in sorted(there | set(run)):
        placed = history.placed.get(token)
        if placed is None:
            yield Violation("ghost", f"{token} exists and no producer meant it")
        elif placed.fate == "rollback":
            where = "ran" if token in run else "is in the database"
            yield Violation("ghost", f"{token} was rolled back and {where}")
        elif placed.created is False:
            yield Violation("ghost", f"{token} was told to be a duplicate, and exists")
        elif token not in there:
            yield Violation("ghost", f"{token} ran as job {run[token]} and is not in the database")


def _torn(history: History, final: Final) -> Iterator[Violation]:
    """No job without its data, no data without its job."""
    there = {row.token for row in _rows(final)}
    for placed in history.placed.values():
        if placed.data and (placed.token in there) != (placed.token in final.data):
            missing = "data" if placed.token in there else "job"
            yield Violation("torn", f"{placed.token} ({placed.fate}) came without its {missing}")


def _finished_twice(final: Final) -> Iterator[Violation]:
    for name, values in (("job", [row.id for row in _rows(final)]), ("token", [row.token for row in _rows(final)])):
        for value, times in Counter[Any](values).items():
            if times > 1:
                yield Violation("twice", f"{name} {value} is in the database {times} times")


def _stalled(final: Final) -> Iterator[Violation]:
    for row in final.live:
        yield Violation("stalled", f"job {row.id} ({row.token}) is still {row.state}, attempt {row.attempt}")


def _overlaps(history: History, limits: Limits) -> Iterator[Violation]:
    """Executions of one job come one after the other. Without an end line, the lock and the process tell."""
    for job, listed in history.executions.items():
        for number, later in enumerate(listed):
            earlier = [each for each in listed[:number] if each.start["pid"] not in limits.asleep]
            alive = [each for each in earlier if each.start["execution"] in later.start["alive"]]
            unended = [each for each in earlier if each.end is not None and each.end["at"] > later.start["at"]]
            if alive or unended:
                yield Violation("overlap", f"job {job}: {later} began while this went on: {(alive or unended)[0]}")
            elif not limits.asleep and not (later.start["lock_free"] and not later.start["alive"]):
                yield Violation("overlap", f"job {job}: {later} began while another, unknown, held the lock")


def _ran_after_the_end(history: History, final: Final, limits: Limits) -> Iterator[Violation]:
    at_the_gate = Counter[int]()
    for row in final.finished:
        for execution in history.executions.get(row.id, ()):
            at, pid = execution.start["at"], execution.start["pid"]
            if row.finished_at is None or at <= row.finished_at + TOLERANCE:
                continue
            woken = pid in limits.asleep and any(abs(at - moment) < AS_IT_WAKES for moment in history.woken[pid])
            at_the_gate[pid] += woken
            if not woken or at_the_gate[pid] > limits.slots:
                yield Violation("late", f"job {row.id} had {row.state} at {row.finished_at}; then came {execution}")


def _attempts(history: History, final: Final) -> Iterator[Violation]:
    for job, listed in history.executions.items():
        for execution in listed:
            if not 1 <= execution.start["attempt"] <= execution.start["max_attempts"]:
                yield Violation("attempts", f"job {job}, of {execution.start['max_attempts']}: {execution}")
    for row in _rows(final):
        if row.attempt > row.max_attempts:
            yield Violation("attempts", f"job {row.id} ended with attempt {row.attempt} of {row.max_attempts}")


def _crashes(final: Final, limits: Limits) -> Iterator[Violation]:
    limit = 0 if limits.blameless else max(limits.max_crashes, limits.max_losses)
    for row in _rows(final):
        if row.crashes > limit:
            yield Violation(
                "crashes", f"job {row.id} ({row.token}) counts {row.crashes} crashes; {limit} are the limit"
            )
        if final.crashed[row.id] != row.crashes:
            told = f"{row.crashes} crashes and has {final.crashed[row.id]} attempts that crashed"
            yield Violation("crashes", f"job {row.id} ({row.token}) counts {told}")


def _keys(history: History, final: Final) -> Iterator[Violation]:
    """One job per key while it is held: for good, or until the job has finished."""
    rows = {row.token: row for row in _rows(final)}
    held: dict[tuple[str, str], list[Placed]] = defaultdict(list)
    for placed in history.placed.values():
        if placed.key is not None and placed.token in rows:
            held[placed.holds, placed.key].append(placed)
    for (holds, key), several in held.items():
        if holds == "period":
            if len(several) > 1:
                names = ", ".join(f"{each.token} (job {rows[each.token].id})" for each in several)
                yield Violation("keys", f"{key!r} has {len(several)} jobs: {names}")
            continue
        for one, other in combinations(several, 2):
            if not (_made_way(one, other, history, rows) or _made_way(other, one, history, rows)):
                yield Violation("keys", f"{key!r} was held by {one.token} and by {other.token} at the same time")


def _made_way(earlier: Placed, later: Placed, history: History, rows: dict[str, JobRow]) -> bool:
    """Tell whether the job of `earlier` can have finished before that of `later` was admitted.

    That was at the latest when its producer had the answer, or when it first ran.
    """
    row = rows[earlier.token]
    signs = [execution.start["at"] for execution in history.executions.get(rows[later.token].id, ())]
    if later.created:
        signs.append(later.at)
    if not signs:
        return True
    admitted = min(signs)
    if row.state in LIVE or any(each.start["at"] > admitted for each in history.executions.get(row.id, ())):
        return False
    return row.finished_at is None or row.finished_at <= admitted + TOLERANCE


def _unfounded(history: History, final: Final, limits: Limits) -> Iterator[Violation]:
    """An outcome has executions that account for it."""
    for row in final.finished:
        listed = history.executions.get(row.id, [])
        ends = [each.end for each in listed if each.end is not None]
        match row.state:
            case "succeeded":
                founded = any(end["how"] in ("ok", "unstorable") and end["attempt"] == row.attempt for end in ends)
            case "cancelled":
                founded = row.id in history.cancelled or any(end["how"] == "cancel" for end in ends)
            case "failed":
                founded = (
                    row.crashes >= limits.max_crashes
                    or any(end["how"] in ("fail", "exit") for end in ends)
                    or any(
                        each.start["attempt"] >= row.max_attempts
                        and (each.end is None or each.end["how"] not in ("ok", "unstorable"))
                        for each in listed
                    )
                )
            case _:
                founded = False
        if not founded:
            told = "; ".join(map(str, listed)) or "it never ran"
            yield Violation("unfounded", f"job {row.id} ({row.token}) has {row.state}, crashes {row.crashes}: {told}")


def _abandoned(history: History) -> Iterator[Violation]:
    """No job is `running` for long in the name of a worker that does not hold it.

    A worker says how many it holds, not which. While it holds fewer than run in its name, those that it executes are told
    by the ledger, and each of the others is suspected.
    """
    since: dict[tuple[int, int, str], int] = {}
    told: set[tuple[int, int]] = set()
    for look in history.held:
        by_worker = Counter(worker for _, _, worker in look["jobs"])
        suspects: dict[tuple[int, int, str], int] = {
            (job, claims, worker): since.get((job, claims, worker), int(look["at"]))
            for job, claims, worker in look["jobs"]
            if worker in look["workers"]
            and look["workers"][worker] < by_worker[worker]
            and not _executes(history.executions.get(job, []), look["at"])
        }
        for (job, claims, worker), first in suspects.items():
            if look["at"] - first >= ABANDONED and (job, claims) not in told:
                told.add((job, claims))
                holds = f"which says that it holds {look['workers'][worker]}, for {(look['at'] - first) / 1e9:.0f} s"
                yield Violation("abandoned", f"job {job} (claim {claims}) runs in the name of {worker}, {holds}")
        since = suspects


def _executes(executions: list[Execution], moment: int) -> bool:
    """Tell whether an execution was under way at `moment`, or may have been: one without an end."""
    return any(each.start["at"] <= moment and (each.end is None or each.end["at"] >= moment) for each in executions)


def _places(history: History, final: Final, limits: Limits) -> Iterator[Violation]:
    """A job that lost its worker keeps its place: those behind it in its line wait until it has started again."""
    lines: dict[str, list[int]] = defaultdict(list)
    line_of: dict[int, str] = {}
    for placed in history.placed.values():
        if placed.line is not None and placed.job is not None:
            lines[placed.line].append(placed.job)
            line_of[placed.job] = placed.line
    first = {job: int(listed[0].start["at"]) for job, listed in history.executions.items()}
    for job, moment in final.given_back:
        again = [each.start["at"] for each in history.executions.get(job, ()) if each.start["at"] > moment]
        if job not in line_of or not again:
            continue
        passed = [other for other in lines[line_of[job]] if other > job and moment < first.get(other, 0) < min(again)]
        if len(passed) > limits.ahead:
            told = f"{len(passed)} of those behind it, {passed[0]} first, started before it did; {limits.ahead} may"
            yield Violation("places", f"job {job} came back at {moment}: {told}")


def _versions(history: History, final: Final) -> Iterator[Violation]:
    """Of the calls that replace what waits, the last one counts: its version runs, or another holds the key still."""
    for key, calls in history.calls.items():
        last = max(calls, key=lambda call: int(call["version"]))
        ran = [execution["version"] for execution in history.versions.get(key, ())]
        if last["created"] or last["replaced"]:
            if last["version"] not in ran and key not in final.keys:
                yield Violation(
                    "versions", f"{key!r}: version {last['version']} was taken and never ran; ran: {ran[-3:]}"
                )
        elif last["version"] not in ran and key not in final.keys:
            told = "was neither taken as new nor in place of another, and the key is free"
            yield Violation("versions", f"{key!r}: version {last['version']} {told}")
