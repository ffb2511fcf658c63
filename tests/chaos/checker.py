"""The history checker: what the ledger and the final database must have in common, whatever was broken in between.

Pure: it reads values, and returns what is violated. `test_checker.py` breaks each rule on purpose.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from tests.chaos.ledger import Record

# Between CLOCK_MONOTONIC and the database's clock, in nanoseconds, while both are of one machine.
TOLERANCE = 50_000_000
# A runner that sleeps through the end of its lease can have fallen asleep between its last look at the lease and the task's
# first line: at most one job a slot. Those begin as it wakes, before anything of ours gets to run; a stock of jobs that begins
# then is a fault.
AS_IT_WAKES = 100_000_000
LIVE = ("ready", "running", "parked", "waiting")


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken: which rule, and the evidence in words."""

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A job as the database has it at the end, live or finished."""

    id: int
    token: str
    state: str
    attempt: int
    max_attempts: int
    crashes: int
    key: str | None = None
    finished_at: int | None = None
    """In nanoseconds of CLOCK_MONOTONIC; None for a live job, and where the clocks cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The database after the last fault."""

    live: tuple[JobRow, ...] = ()
    finished: tuple[JobRow, ...] = ()
    crashed: Counter[int] = field(default_factory=Counter)
    """Rows of job_attempt whose outcome is `crashed`, by job."""
    data: frozenset[str] = frozenset()
    """Tokens of the application's own rows, each written in the transaction of its job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the workers were told."""

    max_crashes: int = 3
    max_losses: int = 10
    slots: int = 10
    """Of a runner."""
    asleep: frozenset[int] = frozenset()
    """Pids of runners that slept through the end of their lease, as with their machine. What such a one was executing
    nobody can end before it is awake, and it can have fallen asleep with the lock and without a start line; what it begins
    thereafter is nobody's fault but its own."""
    blameless: bool = False
    """No process was killed and no task kills its own: then nothing may count as a crash."""


@dataclass(slots=True, kw_only=True)
class Execution:
    """One execution, as its start and its end line tell it."""

    start: Record
    end: Record | None = None

    def __str__(self) -> str:
        end = f"{self.end['how']} at {self.end['at']}" if self.end else "no end"
        return f"{self.start['execution']} (attempt {self.start['attempt']}, from {self.start['at']}, {end})"


@dataclass(slots=True, kw_only=True)
class Placed:
    """A job that a producer wanted."""

    token: str
    key: str | None
    holds: str
    transaction: str
    data: bool = False
    """Whether the transaction writes a row of the application's own for it, too."""
    fate: str = "rollback"
    """``commit``, ``rollback`` or ``unknown``."""
    job: int | None = None
    created: bool | None = None
    """None: the statement's answer never came."""
    at: int = 0
    """When the answer came."""


class History:
    """The ledger, told by job and by token."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.executions: dict[int, list[Execution]] = defaultdict(list)
        self.placed: dict[str, Placed] = {}
        self.cancelled: set[int] = set()
        self.kills = 0
        self.woken: dict[int, list[int]] = defaultdict(list)
        """When each process was woken."""
        by_name: dict[str, Execution] = {}
        transactions: dict[str, list[Placed]] = {}
        for record in records:
            match record["event"]:
                case "start":
                    execution = by_name[record["execution"]] = Execution(start=record)
                    self.executions[record["job"]].append(execution)
                case "end":
                    # A start line is written before, by the same process: without it there is no end line.
                    by_name[record["execution"]].end = record
                case "intent":
                    name = record["transaction"]
                    transactions[name] = [Placed(transaction=name, **job) for job in record["jobs"]]
                    self.placed.update((placed.token, placed) for placed in transactions[name])
                case "placed":
                    placed = self.placed[record["token"]]
                    placed.job, placed.created, placed.at = record["job"], record["created"], record["at"]
                case "committing":
                    _fate(transactions[record["transaction"]], "unknown")
                case "commit" | "rollback" | "unknown" as fate:
                    _fate(transactions[record["transaction"]], fate)
                case "cancel":
                    self.cancelled.add(record["job"])
                case "fault" if record["what"] == "SIGCONT":
                    for pid in record["pids"]:
                        self.woken[pid].append(record["at"])
        for listed in self.executions.values():
            listed.sort(key=lambda execution: int(execution.start["at"]))

    def tokens_run(self) -> dict[str, int]:
        """Return the job that ran for each token."""
        return {each.start["token"]: job for job, listed in self.executions.items() for each in listed}


def _fate(placed: Iterable[Placed], fate: str) -> None:
    for each in placed:
        each.fate = fate


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
                founded = any(end["how"] == "ok" and end["attempt"] == row.attempt for end in ends)
            case "cancelled":
                founded = row.id in history.cancelled or any(end["how"] == "cancel" for end in ends)
            case "failed":
                founded = (
                    row.crashes >= limits.max_crashes
                    or any(end["how"] in ("fail", "exit", "unstorable") for end in ends)
                    or any(
                        each.start["attempt"] >= row.max_attempts and (each.end is None or each.end["how"] != "ok")
                        for each in listed
                    )
                )
            case _:
                founded = False
        if not founded:
            told = "; ".join(map(str, listed)) or "it never ran"
            yield Violation("unfounded", f"job {row.id} ({row.token}) has {row.state}, crashes {row.crashes}: {told}")
