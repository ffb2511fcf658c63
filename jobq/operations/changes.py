"""What is done to one batch of jobs: each kind of change, which states it refuses and why.

No change waits for a lock: jobs are locked in the order of their ids, and those that a worker or another operator has
locked are left as they are. So two operators cannot deadlock, and no worker waits for longer than a batch takes.

Nothing here sets a `run_at` to the past, and whatever may be claimed earlier than before, or in another lane, is notified
of: workers read each lane from a cursor (docs/architecture.md, "The cursor").
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import psycopg
from psycopg import Connection

from jobq.errors import InvalidOption
from jobq.filters import HISTORY_STATES, MAX_ID, STATES
from jobq.operations.actors import Note, checked_text
from jobq.operations.rows import rows

RETRYABLE_STATES = ("failed", "cancelled", "expired", "scheduled", "parked")
CANCELLABLE_STATES = ("ready", "scheduled", "parked", "waiting", "running")
SNOOZABLE_STATES = ("ready", "scheduled", "parked", "waiting")
MOVABLE_STATES = ("ready", "scheduled", "parked", "waiting")
DELETABLE_STATES = ("succeeded", "failed", "cancelled", "expired", "ready", "scheduled", "parked", "waiting")

# Each statement and the states of the jobs that it changes.
_TOUCHED: dict[str, tuple[str, ...]] = {
    "redrive": ("failed", "cancelled", "expired"),
    "run_now": ("scheduled", "parked", "waiting"),
    "cancel_idle": ("ready", "scheduled", "parked", "waiting"),
    "cancel_running": ("running",),
    "snooze": SNOOZABLE_STATES,
    "move": MOVABLE_STATES,
    "delete_live": ("ready", "scheduled", "parked", "waiting"),
    "delete_finished": HISTORY_STATES,
}

_ABSENT = "there is no job with this id"
KEY_TAKEN = "its key is held by another job"
_DATABASE = "the database refuses to change it"
_BUSY = "a worker or another operator is changing it at this moment: try again"
# So many jobs in a row that the database refuses to change are no matter of single jobs.
_REFUSED_IN_A_ROW = 20
# Seconds for which the jobs are looked for that lack a lock, time or a resource each time.
_LACKING_SECONDS = 10.0
_MAX_SNOOZE = 365 * 86400
_HAS_RUN = {state: f"it has {state} already" for state in ("succeeded", "failed", "expired")}
_HAS_RUN["cancelled"] = "it is cancelled already"
_GOES_ON = {
    "waiting": "it waits for its group's turn, which comes by itself",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The outcome of a batch: the values before and after of each job that was changed (after:
    none of one that was deleted), and why each other was not."""

    before: dict[int, dict[str, Any]] = field(default_factory=dict)
    after: dict[int, dict[str, Any]] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    kinds: dict[int, str] = field(default_factory=dict)
    """For refusals that name something of their own job: what they have in common, for those who count them."""

    @property
    def done(self) -> list[int]:
        """The ids that were changed, in order."""
        return sorted(self.before)

    def add(self, other: Batch) -> None:
        """Take over the outcomes of other jobs."""
        self.before.update(other.before)
        self.after.update(other.after)
        self.refused.update(other.refused)
        self.kinds.update(other.kinds)


class Change(ABC):
    """One kind of change. `name` is the audit's action, `states` those in which a job can be changed."""

    name: ClassVar[str]
    states: ClassVar[tuple[str, ...]]
    refusals: ClassVar[Mapping[str, str]]

    def apply(
        self,
        conn: Connection[Any],
        schema: str,
        ids: Sequence[int],
        note: Note,
        *,
        found_in: Collection[str] = STATES,
        own: bool = False,
        one_of_many: bool = False,
    ) -> Batch:
        """Change these jobs, as many as can be, in the caller's transaction. `own`: it is jobq's own.

        `one_of_many`: others follow, so one that stands alone and lacks something each time is refused, as among others.

        `found_in`: the states in which a filter found them. One that has moved on since is left alone: what was dead and is
        to be deleted may have been put back, and what was ready and is to be cancelled may have begun.

        A job that the database refuses to change (a trigger, a constraint) is found by halving, and refused with the database's
        reason. What is deferred to the commit is asked at once in a transaction of jobq's own; in another, which may be about
        to repair what it has broken, it is left to its commit.

        Where a lock, time or a resource is lacking, all are tried once more, then halved as well. Raises psycopg.Error when
        the connection is lost, when 20 in a row are refused, when one is lacking for all of the jobs, or still
        after some seconds (then it is no matter of single jobs), and when another's transaction has to begin again.
        """
        batch = Batch()
        parts, in_a_row = [ids], 0
        lacking: list[psycopg.Error] = []
        until = math.inf
        while parts:
            part = parts.pop()
            try:
                with conn.transaction():
                    changed = self._apply(conn, schema, part, note, found_in)
                    if own:
                        conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
            except psycopg.Error as error:
                if _is_not_of_a_job(error, conn, own=own):
                    raise
                if isinstance(error, psycopg.OperationalError):
                    if until == math.inf:
                        # It may have been the moment.
                        until = time.monotonic() + _LACKING_SECONDS
                        parts.append(part)
                        continue
                    if time.monotonic() >= until:
                        raise
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                    continue
                in_a_row += 1
                if in_a_row == _REFUSED_IN_A_ROW:
                    raise
                if isinstance(error, psycopg.OperationalError):
                    lacking.append(error)
                # The server's words: its trigger's, say, not advice on rights.
                why = (error.diag.message_primary or str(error)).strip().partition("\n")[0].replace("\x00", "")[:1000]
                changed = Batch(refused={part[0]: f"{_DATABASE}: {why}"}, kinds={part[0]: _DATABASE})
            else:
                in_a_row = 0
            batch.add(changed)
        if lacking and len(lacking) == len(ids) and not (one_of_many and len(ids) == 1):
            raise lacking[-1]
        return batch

    def _apply(
        self, conn: Connection[Any], schema: str, ids: Sequence[int], note: Note, found_in: Collection[str]
    ) -> Batch:
        batch = Batch()
        for name, params in self.statements(schema, note):
            if not any(state in found_in for state in _TOUCHED[name]):
                continue
            left = [id for id in ids if 0 <= id <= MAX_ID and id not in batch.before and id not in batch.refused]
            if not left:
                break
            for row in rows(conn, schema, name, {"ids": left, **params}):
                if row.get("refusal") is not None:
                    batch.refused[row["id"]] = row["refusal"]
                    batch.kinds[row["id"]] = KEY_TAKEN
                    continue
                batch.before[row["id"]] = row["before"]
                if row["after"] is not None:
                    batch.after[row["id"]] = row["after"]
        left = [id for id in ids if id not in batch.before and id not in batch.refused]
        if left:
            known = [id for id in left if 0 <= id <= MAX_ID]
            states = {row["id"]: row["state"] for row in rows(conn, schema, "job_states", {"ids": known})}
            for id in left:
                state = states.get(id)
                moved_on = state is not None and state not in found_in and state not in self.refusals
                batch.refused[id] = f"it is {state} by now" if moved_on else self.refusal(state)
        return batch

    @abstractmethod
    def statements(self, schema: str, note: Note) -> Sequence[tuple[str, dict[str, Any]]]:
        """Return the statements to run, one after the other, each for what the one before has left."""

    def refusal(self, state: str | None) -> str:
        """Return why a job in `state` (None: there is none) was left as it is."""
        return _ABSENT if state is None else self.refusals.get(state, _BUSY)

    def options(self) -> dict[str, Any]:
        """Return what :func:`change_of` needs to make this change again, as JSON."""
        return {}


class Retry(Change):
    """Dead jobs back under the same id with all their attempts; those that wait for a retry, their time, or other code, due.

    A dead job takes its key again; one whose key another job has is refused.
    """

    name = "retry"
    states = RETRYABLE_STATES
    refusals: ClassVar = {
        "ready": "it is ready to run already",
        "running": "it is running",
        "succeeded": "it has succeeded",
        **_GOES_ON,
    }

    def statements(self, schema: str, note: Note) -> Sequence[tuple[str, dict[str, Any]]]:
        """Redrive from history, then what waits."""
        return [("redrive", {}), ("run_now", {"channel": schema})]


class RunNow(Change):
    """Jobs that wait for a retry or for their time become due, and parked ones are claimed by any worker again."""

    name = "run_now"
    states = ("scheduled", "parked")
    refusals: ClassVar = {**Retry.refusals, **_HAS_RUN}

    def statements(self, schema: str, note: Note) -> Sequence[tuple[str, dict[str, Any]]]:
        """What waits."""
        return [("run_now", {"channel": schema})]


class Cancel(Change):
    """What does not run is finished as cancelled; what runs is asked to stop."""

    name = "cancel"
    states = CANCELLABLE_STATES
    refusals = _HAS_RUN

    def statements(self, schema: str, note: Note) -> Sequence[tuple[str, dict[str, Any]]]:
        """The idle, then the running."""
        error = f"cancelled by {note.actor.name}" + (f": {note.reason}" if note.reason else "")
        return [("cancel_idle", {"error": error, "channel": schema}), ("cancel_running", {"channel": schema})]


class Snooze(Change):
    """Jobs that are ready or scheduled start later, or at another time. No attempt is counted."""

    name = "snooze"
    states = SNOOZABLE_STATES
    refusals: ClassVar = {"running": "it is running", **_GOES_ON, **_HAS_RUN}

    def __init__(self, *, seconds: float | None = None, until: datetime | None = None) -> None:
        if (seconds is None) == (until is None):
            raise InvalidOption("snooze: give seconds or until, one of them")
        if seconds is not None and not 0 < seconds <= _MAX_SNOOZE:
            raise InvalidOption(f"seconds={seconds!r}: give a number above 0 and at most {_MAX_SNOOZE} (a year)")
        if until is not None:
            if until.tzinfo is None:
                raise InvalidOption(
                    f"until={until.isoformat()!r}: give a time with its zone, such as 2030-01-31T08:00Z"
                )
            # Before it is turned to UTC, where it might be out of the calendar.
            if not 1970 <= until.year < 9999:
                raise InvalidOption(f"until={until.isoformat()!r}: give a time between the years 1970 and 9998")
            until = until.astimezone(UTC)
        self._seconds = seconds
        self._until = until

    def statements(self, schema: str, note: Note) -> Sequence[tuple[str, dict[str, Any]]]:
        """One."""
        return [("snooze", {"seconds": self._seconds, "until": self._until, "channel": schema})]

    def options(self) -> dict[str, Any]:
        """`seconds` or `until`."""
        return {"seconds": self._seconds} if self._until is None else {"until": self._until.isoformat()}


class Move(Change):
    """Jobs that do not run go to another queue, or get another priority; they are the last of their new lane."""

    name = "move"
    states = MOVABLE_STATES
    refusals: ClassVar = {"running": "it is running", **_HAS_RUN}

    def __init__(self, *, queue: str | None = None, priority: int | None = None) -> None:
        if queue is None and priority is None:
            raise InvalidOption("move: give a queue or a priority")
        if queue is not None and not checked_text("queue", queue, 100):
            raise InvalidOption("queue='': give a name of 1 to 100 characters")
        if priority is not None and not 0 <= priority <= 9:
            raise InvalidOption(f"priority={priority!r}: give a number from 0 to 9")
        self._queue = queue
        self._priority = priority

    def statements(self, schema: str, note: Note) -> Sequence[tuple[str, dict[str, Any]]]:
        """One."""
        return [("move", {"queue": self._queue, "priority": self._priority, "channel": schema})]

    def refusal(self, state: str | None) -> str:
        """A job that could be moved and was not is there already, or busy: what it is by now is not worth a look."""
        if state in self.states:
            return "it is there already, or a worker or another operator is changing it at this moment"
        return super().refusal(state)

    def options(self) -> dict[str, Any]:
        """Those that were given."""
        given = {"queue": self._queue, "priority": self._priority}
        return {name: value for name, value in given.items() if value is not None}


class Delete(Change):
    """Jobs that do not run are gone, with their attempts, and with keys that held until they started or finished."""

    name = "delete"
    states = DELETABLE_STATES
    refusals: ClassVar = {"running": "it is running: cancel it first"}

    def statements(self, schema: str, note: Note) -> Sequence[tuple[str, dict[str, Any]]]:
        """The live, then the finished."""
        return [("delete_live", {"channel": schema}), ("delete_finished", {})]


_KINDS: dict[str, Callable[..., Change]] = {
    "retry": Retry,
    "cancel": Cancel,
    "snooze": Snooze,
    "move": Move,
    "delete": Delete,
}


def _is_not_of_a_job(error: psycopg.Error, conn: Connection[Any], *, own: bool) -> bool:
    """Tell whether it is the session's, the role's or the transaction's: tried again, it would be the same for every job."""
    if conn.closed or conn.broken or isinstance(error, psycopg.errors.InFailedSqlTransaction):
        return True
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    # A right that this role lacks, a table that is not there, or a standby; what is raised in a trigger has a context.
    if (error.sqlstate[:2] == "42" or error.sqlstate == "25006") and not error.diag.context:
        return True
    return error.sqlstate[:2] == "40" and not own


def change_of(action: str, options: Mapping[str, Any]) -> Change:
    """Return the change that `action` and its options (`Change.options`) name.

    Raises InvalidOption for an unknown action, for options that it does not have, and for unusable values.
    """
    kind = _KINDS.get(action)
    if kind is None:
        raise InvalidOption(f"action={action!r}: give one of {', '.join(_KINDS)}")
    known = {"snooze": ("seconds", "until"), "move": ("queue", "priority")}.get(action, ())
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if name not in known:
            has = f"has {' and '.join(known)}" if known else "has no options"
            raise InvalidOption(f"{name}={value!r}: {action} {has}")
    if isinstance(given.get("until"), str):
        given["until"] = _time(given["until"])
    for name, kinds in (("seconds", (int, float)), ("priority", (int,)), ("queue", (str,))):
        if name in given and (not isinstance(given[name], kinds) or isinstance(given[name], bool)):
            raise InvalidOption(f"{name}={given[name]!r}: give a {'text' if name == 'queue' else 'number'}")
    return kind(**given)


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidOption(f"until={text[:50]!r}: give a time such as 2030-01-31T08:00Z") from error
