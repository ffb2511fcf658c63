"""Durable jobs that wait, without a worker: the real statements, on connections of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import tuple_row

from jobq._postgres.sql import statement
from jobq._worker.ipc.messages import Disposition, Failure
from jobq._worker.statements.parameters import settle_parameters
from jobq.steps import rows
from jobq.steps.kinds import NO_ARGS
from jobq.steps.store import Holder, NewStep, StepKey
from jobq.steps.suspension import LONGEST_WAIT
from tests.support.workflows.node_ends import end

Conn = psycopg.Connection[Any]

_CLAIM = """
UPDATE jobq.job
SET state = 'running', claims = claims + 1, attempt = attempt + 1, worker_id = %s, started_at = clock_timestamp()
WHERE id = (SELECT id FROM jobq.job WHERE id = %s AND state = 'ready' AND run_at <= clock_timestamp() FOR UPDATE SKIP LOCKED)
RETURNING claims, (extract(epoch FROM started_at) * 1000000)::bigint
"""
# Jobs that are put back and not due, although what one of their steps waits for is there, or none of their steps waits.
STUCK = """
SELECT job.id FROM jobq.job WHERE state = 'ready' AND run_at > clock_timestamp() + interval '1 minute' AND (
    NOT EXISTS (SELECT FROM jobq.job_step AS step WHERE step.job_id = job.id AND step.state = 'waiting')
    OR EXISTS (SELECT FROM jobq.job_step AS step
               JOIN jobq.job_signal AS signal ON signal.name = step.name AND signal.taken_at IS NULL
                   AND (signal.job_id = job.id OR signal.workflow_id = step.workflow_id)
               WHERE step.job_id = job.id AND step.kind = 'signal' AND step.state = 'waiting')
    OR EXISTS (SELECT FROM jobq.job_step AS step JOIN jobq.workflow AS run ON run.id = step.child_id AND run.state <> 'running'
               WHERE step.job_id = job.id AND step.kind = 'child' AND step.state = 'waiting'))
"""


def fetch(connection: Conn, what: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Execute a statement of jobq."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(statement(what, "jobq").query, parameters).fetchall()


def signal_key(name: str, number: int = 0) -> StepKey:
    return StepKey("signal", name, NO_ARGS, number)


@dataclass(eq=False)
class Execution:
    """One execution of a job. Without `holder` the job was not due, and nothing is done."""

    job: int
    holder: Holder | None = None
    asked: str | None = None
    """The state of the step that was asked for last; `lost` if the fence refused."""
    left: bool = False
    """Whether its end found the job locked, and is to be tried again."""
    over: bool = False
    """Whether its end is recorded."""
    _ends: Failure | None = None

    @classmethod
    def of(cls, connection: Conn, job: int, worker: UUID | None = None) -> Execution:
        """Claim the job if it is due."""
        made = cls(job)
        made.claim(connection, worker or uuid4())
        return made

    def claim(self, connection: Conn, worker: UUID) -> None:
        row = connection.execute(_CLAIM, (worker, self.job)).fetchone()
        if row is not None:
            self.holder = Holder(self.job, row[0], worker, row[1], 1)

    def ask(self, connection: Conn, name: str = "go", number: int = 0, timeout: float | None = None) -> str:
        """Take a signal or wait, and return the step's state."""
        if self.holder is None:
            return ""
        found = fetch(connection, "step_wait", rows.wait_parameters(self.holder, signal_key(name, number), 1, timeout))
        self.asked = found[0][0] if found else "lost"
        return self.asked

    def write(self, connection: Conn, *steps: NewStep) -> bool:
        """Store steps; return whether all were accepted."""
        assert self.holder is not None
        values = rows.write_parameters([(self.holder, step) for step in steps])
        return len(fetch(connection, "steps_write", values)) == len(steps)

    def commit_steps(self, connection: Conn, *steps: NewStep) -> bool:
        assert self.holder is not None
        [(count,)] = fetch(connection, "steps_commit", rows.commit_parameters(self.holder, steps))
        return bool(count == len(steps))

    def put_back(self, connection: Conn, delay: float = LONGEST_WAIT, *, waits: bool = True) -> None:
        """End because a step waits."""
        if self.holder is not None and self.asked in (None, "waiting", "lost"):
            ending = Disposition.SNOOZE if self.asked != "lost" else Disposition.RELEASE
            self._settle(
                connection,
                Failure(
                    self.job,
                    self.holder.claims,
                    self.holder.started,
                    ending,
                    delay=0.0 if self.asked == "lost" else delay,
                    waits=waits and self.asked != "lost",
                ),
            )

    def again(self, connection: Conn) -> None:
        """Try the end again that found the job locked."""
        if self.left and self._ends is not None:
            self._settle(connection, self._ends)

    def _settle(self, connection: Conn, failure: Failure) -> None:
        assert self.holder is not None
        self._ends = failure
        found = fetch(connection, "record_failures", settle_parameters(self.holder.worker, [failure], channel="jobq"))
        self.left = any(not row[1] for row in found)
        self.over = not self.left


@dataclass(eq=False)
class Flow:
    """A job that waits for `waits` signals of the name `go`, one after the other, and then ends."""

    job: int
    waits: int = 1
    child: int | None = None
    """The run that it waits for instead."""
    executions: list[Execution] = field(default_factory=list)

    def alone(self, execution: Execution) -> None:
        """No other execution holds the job."""
        others = [each for each in self.executions if each is not execution and each.holder is not None]
        assert execution.holder is None or all(each.over for each in others), f"job {self.job} runs twice"

    def run(self, connection: Conn) -> bool:
        """Run the job if it is due; return whether it was."""
        for each in self.executions:
            each.again(connection)
        one = Execution.of(connection, self.job)
        if one.holder is None:
            return False
        self.alone(one)
        if self.child is not None:
            if not fetch(connection, "step_child", {"id": self.child}):
                one.put_back(connection)
                return True
            connection.execute("UPDATE jobq.job_step SET state = 'done' WHERE job_id = %s", (self.job,))
        for number in range(self.waits if self.child is None else 0):
            state = one.ask(connection, number=number)
            if state not in ("done", "timed_out"):
                one.put_back(connection)
                return True
        end(connection, [self.job])
        return True


def wake(connection: Conn) -> int:
    """Take the rows of job_wakeup once; return how many."""
    [(taken, _, _)] = fetch(connection, "wake_waiting", {"most": 500, "left_out": [], "only": None, "channel": "jobq"})
    return int(taken)


def quieten(connection: Conn, flows: list[Flow]) -> None:
    """Wake and run what can go on, until nothing can."""
    for _ in range(50):
        busy = wake(connection) > 0
        for flow in flows:
            busy = flow.run(connection) or busy
        if not busy:
            return
    raise AssertionError("jobs are woken again and again")


def send(connection: Conn, job: int | None, *, run_id: int | None = None, name: str = "go", payload: str = "1") -> None:
    values = {"job": job, "run": run_id, "name": name, "payload": payload, "by": None}
    [(_, outcome)] = fetch(connection, "send_signal", values)
    assert outcome in ("sent", "finished"), outcome


def add(connection: Conn, count: int = 1) -> Iterator[int]:
    """Insert jobs that are due."""
    for _ in range(count):
        row = connection.execute(
            "INSERT INTO jobq.job (task, queue, args) VALUES ('waiter', 'default', '{}') RETURNING id"
        ).fetchone()
        assert row is not None
        yield row[0]
