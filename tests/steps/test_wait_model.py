"""The races of a job that waits: every interleaving of signals, waits, wakes, ends of children, cancellations and locks.

Whatever the order: a signal that was committed is taken once or is still there, no step takes two, no job waits for what is
there, and a job runs once at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from jobq import operations
from jobq.steps.store import NewStep, StepKey
from tests.apps import workflows as apps
from tests.support.workflows.interleavings import Call, Conn, Explorer, Session, transaction
from tests.support.workflows.node_ends import end
from tests.support.workflows.waits import STUCK, Execution, Flow, add, quieten, send, wake

PAUSES = {
    # A wait has its snapshot, and no lock yet.
    "ask": "INSERT ON jobq.job_step",
    # A wait has locked its signal.
    "locked": "INSERT ON jobq.job_step FOR EACH ROW",
    # A wake has its snapshot; so has the end of an execution.
    "due": "UPDATE ON jobq.job",
    # A child's end is counted.
    "decide": "UPDATE ON jobq.workflow_join",
}
WORKER = uuid4()


class Model:
    def __init__(self, url: str) -> None:
        self.explorer = Explorer(url, 4, PAUSES)
        self.db = self.explorer.watching
        self.flows: list[Flow] = []

    def begin(self, jobs: int = 1, waits: int = 1) -> list[Flow]:
        for table in ("job", "job_step", "job_signal", "job_wakeup", "job_history"):
            self.db.execute(f"DELETE FROM jobq.{table}".encode())
        self.flows = [Flow(job, waits) for job in add(self.db, jobs)]
        return self.flows

    def begin_run(self, nodes: int) -> int:
        """A run of nodes that wait."""
        self.begin(0)
        with apps.q.workflow("waits") as wf:
            for n in range(nodes):
                apps.noop.node().named(f"n{n}")
        made = wf.enqueue(self.db).id
        ids = self.db.execute("SELECT id FROM jobq.workflow_node WHERE workflow_id = %s ORDER BY id", (made,))
        self.flows = [Flow(id) for (id,) in ids.fetchall()]
        return made

    def parked(self, flow: Flow, number: int = 0, timeout: float | None = None) -> None:
        """Bring the job to its wait."""
        one = Execution.of(self.db, flow.job)
        assert one.ask(self.db, number=number, timeout=timeout) == "waiting"
        one.put_back(self.db)
        while wake(self.db):
            pass

    def executes(self, flow: Flow, pauses: str = "", timeout: float | None = None) -> Session:
        """An execution: it is claimed and asks, commits that, and is put back or ends."""
        one = Execution(flow.job)
        flow.executions.append(one)

        def claims(connection: Conn) -> None:
            one.claim(connection, WORKER)
            flow.alone(one)
            connection.execute("BEGIN")
            one.ask(connection, timeout=timeout)

        def ends(connection: Conn) -> None:
            if one.asked in ("done", "timed_out") and flow.waits == 1:
                one.over = bool(end(connection, [flow.job]))
            elif one.asked in ("done", "timed_out"):
                one.asked = "lost"  # as if its runner ended here
                one.put_back(connection)
            else:
                one.put_back(connection)

        return Session(
            f"execution of {flow.job}", [claims, lambda connection: connection.execute("COMMIT"), ends], pauses
        )

    def asks(self, one: Execution, pauses: str = "") -> Session:
        return Session("request", [*transaction(lambda connection: one.ask(connection))], pauses)

    def ends(self, one: Execution, pauses: str = "") -> Session:
        """The end of an execution that waits."""
        return Session("end of execution", [*transaction(lambda connection: one.put_back(connection))], pauses)

    def sends(
        self, flow: Flow | None, *, run_id: int | None = None, payload: str = "1", rolls_back: bool = False
    ) -> Session:
        target = None if flow is None else flow.job
        *calls, commit = transaction(lambda connection: send(connection, target, run_id=run_id, payload=payload))
        last: Call = (lambda connection: connection.execute("ROLLBACK")) if rolls_back else commit
        return Session("rolled back signal" if rolls_back else "signal", [*calls, last])

    def wakes(self, pauses: str = "") -> Session:
        return Session("wake", [wake], pauses)

    def check(self, story: list[str]) -> None:
        told = " → ".join(story)
        quieten(self.db, self.flows)
        stuck = self.db.execute(STUCK.encode()).fetchall()
        assert not stuck, f"jobs {stuck} wait for what is there: {told}"
        running = self.db.execute("SELECT id FROM jobq.job WHERE state <> 'ready'").fetchall()
        assert not running, f"jobs {running} are held by nobody: {told}"
        assert self.db.execute("SELECT count(*) FROM jobq.job_wakeup").fetchone() == (0,), told
        twice = self.db.execute(
            "SELECT args FROM jobq.job_step WHERE kind = 'signal' AND state = 'done' GROUP BY args HAVING count(*) > 1"
        ).fetchall()
        assert not twice, f"signals {twice} were taken twice: {told}"
        lost = self.db.execute(
            "SELECT id FROM jobq.job_signal AS signal WHERE (taken_at IS NOT NULL) <> EXISTS ("
            " SELECT FROM jobq.job_step AS step WHERE step.kind = 'signal' AND step.state = 'done'"
            " AND (step.args::jsonb ->> 'id')::bigint = signal.id AND step.job_id = coalesce(signal.taken_by, 0)"
            " AND step.result = signal.payload)"
        ).fetchall()
        assert not lost, f"signals {lost} are taken and no step has them: {told}"

    def taken(self) -> int:
        row = self.db.execute("SELECT count(*) FROM jobq.job_signal WHERE taken_at IS NOT NULL").fetchone()
        assert row is not None
        return int(row[0])

    def explore(self, sessions: Callable[[], list[Session]], check: Callable[[], None] = lambda: None) -> int:
        def both(story: list[str]) -> None:
            self.check(story)
            try:
                check()
            except AssertionError as error:
                raise AssertionError(f"{error}: {' → '.join(story)}") from error

        return self.explorer.explore(sessions, both)

    def all_taken(self, count: int = 1) -> Callable[[], None]:
        def check() -> None:
            assert self.taken() == count
            assert self.db.execute("SELECT count(*) FROM jobq.job_signal").fetchone() == (count,)

        return check


@pytest.fixture
def model(database_url: str) -> Iterator[Model]:
    made = Model(database_url)
    yield made
    made.explorer.close()


def test_a_signal_against_the_wait_and_the_end_of_the_execution(model: Model) -> None:
    """Sent before, during and after the request, the end of the execution, and the wake."""

    def sessions() -> list[Session]:
        [flow] = model.begin()
        return [model.executes(flow, pauses="ask"), model.sends(flow), model.wakes()]

    assert model.explore(sessions, model.all_taken()) >= 60


def test_a_signal_against_the_end_of_the_execution_and_the_wake(model: Model) -> None:
    def sessions() -> list[Session]:
        [flow] = model.begin()
        one = Execution.of(model.db, flow.job)
        flow.executions.append(one)
        assert one.ask(model.db) == "waiting"
        return [model.ends(one, pauses="due"), model.sends(flow), model.wakes()]

    assert model.explore(sessions, model.all_taken()) >= 30


def test_a_signal_that_is_rolled_back(model: Model) -> None:
    def sessions() -> list[Session]:
        [flow] = model.begin()
        one = Execution.of(model.db, flow.job)
        flow.executions.append(one)
        assert one.ask(model.db) == "waiting"
        return [model.ends(one), model.sends(flow, rolls_back=True), model.wakes()]

    def still() -> None:
        assert model.db.execute("SELECT count(*) FROM jobq.job_signal").fetchone() == (0,)
        assert model.db.execute("SELECT count(*) FROM jobq.job WHERE state = 'ready'").fetchone() == (1,)

    assert model.explore(sessions, still) >= 30


def test_two_signals_and_two_waits(model: Model) -> None:
    def sessions() -> list[Session]:
        [flow] = model.begin(waits=2)
        model.parked(flow)
        return [model.sends(flow, payload="1"), model.sends(flow, payload="2"), model.wakes()]

    def in_order() -> None:
        model.all_taken(2)()
        found = model.db.execute(
            "SELECT (args::jsonb ->> 'id')::bigint FROM jobq.job_step WHERE kind = 'signal' ORDER BY number"
        ).fetchall()
        assert len(found) == 2

    assert model.explore(sessions, in_order) >= 30


def test_a_signal_to_a_run_with_two_nodes_that_wait(model: Model) -> None:
    def sessions() -> list[Session]:
        run = model.begin_run(2)
        first, second = model.flows
        model.parked(first)
        return [model.sends(None, run_id=run), model.executes(second), model.wakes()]

    assert model.explore(sessions, model.all_taken()) >= 60


def test_two_nodes_that_take_signals_to_their_run_at_once(model: Model) -> None:
    def sessions() -> list[Session]:
        run = model.begin_run(2)
        send(model.db, None, run_id=run, payload="1")
        send(model.db, None, run_id=run, payload="2")
        first, second = model.flows
        return [model.executes(first, pauses="ask"), model.executes(second)]

    assert model.explore(sessions, model.all_taken(2)) >= 20


def test_one_signal_to_a_run_whose_nodes_ask_at_once(model: Model) -> None:
    def sessions() -> list[Session]:
        run = model.begin_run(2)
        send(model.db, None, run_id=run)
        first, second = model.flows
        return [model.executes(first, pauses="ask"), model.executes(second)]

    assert model.explore(sessions, model.all_taken()) >= 30


def test_a_childs_end_against_the_end_of_its_parents_execution(model: Model) -> None:
    children: list[int] = []

    def sessions() -> list[Session]:
        [flow] = model.begin()
        one = Execution.of(model.db, flow.job)
        flow.executions.append(one)
        with model.db.transaction():
            with apps.q.workflow("child", on_failure="continue") as wf:
                apps.noop.node()
            child = wf.enqueue(model.db).id
            key = StepKey("child", "noop", "0" * 16, 0)
            assert one.commit_steps(model.db, NewStep(key=key, place=1, state="waiting", child_id=child))
        flow.child = child
        row = model.db.execute("SELECT id FROM jobq.workflow_node WHERE workflow_id = %s", (child,)).fetchone()
        assert row is not None
        children[:] = [row[0]]
        ended = Session("end of child", [*transaction(lambda c: end(c, children, result=1))], "decide")
        return [model.ends(one, pauses="due"), ended, model.wakes()]

    def ended() -> None:
        assert model.db.execute("SELECT state FROM jobq.job_history WHERE task = 'waiter'").fetchall() == [
            ("succeeded",)
        ]

    assert model.explore(sessions, ended) >= 30


def test_a_timeout_against_a_signal(model: Model) -> None:
    def sessions() -> list[Session]:
        [flow] = model.begin(waits=2)
        model.parked(flow, timeout=3600)
        model.db.execute("UPDATE jobq.job_step SET wake_at = clock_timestamp() - interval '1 s'")
        model.db.execute("UPDATE jobq.job SET run_at = clock_timestamp() - interval '1 ms'")
        return [model.executes(flow, pauses="ask", timeout=3600), model.sends(flow)]

    # By the first wait, or by the second.
    assert model.explore(sessions, model.all_taken()) >= 15


def test_a_cancellation_against_a_wake(model: Model) -> None:
    def sessions() -> list[Session]:
        [flow] = model.begin()
        model.parked(flow)
        send(model.db, flow.job)
        *calls, commit = transaction(lambda c: operations.cancel(c, "jobq", [flow.job], actor="test"))
        return [Session("cancel", [*calls, commit]), model.wakes(), model.executes(flow)]

    def ended() -> None:
        rows = model.db.execute("SELECT state FROM jobq.job_history").fetchall()
        live = model.db.execute("SELECT cancel_requested_at IS NOT NULL FROM jobq.job").fetchall()
        assert len(rows) + len(live) == 1
        assert rows in ([("cancelled",)], [("succeeded",)])

    assert model.explore(sessions, ended) >= 60


def test_a_wake_that_finds_the_job_locked(model: Model) -> None:
    def sessions() -> list[Session]:
        [flow] = model.begin()
        model.parked(flow)
        send(model.db, flow.job)
        lock = "SELECT FROM jobq.job WHERE id = %s FOR UPDATE"
        locks = transaction(lambda connection: connection.execute(lock, (flow.job,)))
        return [Session("lock", [*locks]), model.wakes(), model.wakes(pauses="due")]

    assert model.explore(sessions, model.all_taken()) >= 30


def test_a_request_that_its_execution_has_left_behind(model: Model) -> None:
    """A coroutine that was cancelled: its request goes on while the job is put back and runs again."""

    def sessions() -> list[Session]:
        [flow] = model.begin()
        send(model.db, flow.job)
        left = Execution.of(model.db, flow.job)
        assert left.holder is not None
        # Its end does not know what the request has found.
        one = Execution(flow.job, left.holder, asked="lost")
        later = Execution(flow.job)
        flow.executions += [one, later]

        def again(connection: Conn) -> None:
            one.again(connection)
            later.claim(connection, WORKER)
            flow.alone(later)
            later.ask(connection)

        def ends(connection: Conn) -> None:
            if later.holder is not None:
                later.asked = "lost" if later.asked == "done" else later.asked  # as if its runner ended here
                later.put_back(connection)

        after = [one.put_back, again, ends]
        return [model.asks(left, pauses="locked"), Session("later execution", after), model.wakes()]

    assert model.explore(sessions, model.all_taken()) >= 100


def test_a_request_that_is_made_again_while_the_first_is_under_way(model: Model) -> None:
    """A lost connection: with two signals, the step takes one, and the other stays for the next wait."""

    def sessions() -> list[Session]:
        [flow] = model.begin(waits=2)
        send(model.db, flow.job, payload="1")
        send(model.db, flow.job, payload="2")
        one = Execution.of(model.db, flow.job)
        assert one.holder is not None
        again = Execution(flow.job, one.holder)
        flow.executions.append(again)

        def lost(connection: Conn) -> None:
            again.asked = "lost"
            again.put_back(connection)

        *calls, commit = transaction(lambda connection: again.ask(connection))
        return [model.asks(one, pauses="ask"), Session("again", [*calls, commit, lost], "ask")]

    assert model.explore(sessions, model.all_taken(2)) >= 20
