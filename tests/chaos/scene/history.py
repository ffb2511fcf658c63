"""The history that the checker judges: what the ledger tells, by job and by token, and what the database holds at the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.chaos.scene.ledger import Record


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
    given_back: tuple[tuple[int, int], ...] = ()
    """Jobs that lost their worker or their runner, and when they could be claimed again, in ns of CLOCK_MONOTONIC."""
    keys: frozenset[str] = frozenset()
    """The keys that are held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the workers were told."""

    max_crashes: int = 3
    max_losses: int = 10
    slots: int = 10
    """Of a runner."""
    asleep: frozenset[int] = frozenset()
    """Pids of runners that slept through the end of their lease, as with their machine. What such a one was executing
    no one can end before it is awake, and it can have fallen asleep with the lock and without a start line; what it begins
    thereafter is its own fault alone."""
    ahead: int = 0
    """How many jobs the workers can have claimed before a job came back: so many may start before it does."""
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
    line: str | None = None
    """Jobs with the same one stand in one line, by their ids: the same queue and priority, and due at once."""
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
        self.held: list[Record] = []
        """Looks at which jobs run in whose name, and how many each worker says that it holds."""
        self.calls: dict[str, list[Record]] = defaultdict(list)
        """Calls that were to replace what waits under their key, by key: each brought a version."""
        self.versions: dict[str, list[Record]] = defaultdict(list)
        """Executions of those, by key: which version each found."""
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
                case "held":
                    self.held.append(record)
                case "called":
                    self.calls[record["key"]].append(record)
                case "version":
                    self.versions[record["key"]].append(record)
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
