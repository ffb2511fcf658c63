"""The races at a join: every interleaving of ends, retries, cancellations and steps of the loop, on a real server.

Whatever the order: a join is released once, when all its parents have ended; each end is counted once; nothing is left
when all have committed and the loop has done its steps; and no node starts after the commit of a cancellation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from jobq.workflow import OnFailure
from tests.apps import workflows as apps
from tests.support.workflows.interleavings import Conn, Explorer, Session, transaction
from tests.support.workflows.join_watch import COUNTS, RELEASES, WATCH
from tests.support.workflows.node_ends import cancel, end, fold, redrive, retry_from, run

q = apps.q
# Hundreds of interleavings.
long = pytest.mark.timeout(900)

PAUSES = {
    "fold": "DELETE ON jobq.workflow_arrival",
    "decide": "UPDATE ON jobq.workflow_join",
    "start": "INSERT ON jobq.job",
    "again": "UPDATE ON jobq.workflow",
}


@dataclass
class Scene:
    """One run, and what the sessions did to it."""

    db: Conn
    id: int
    names: dict[str, int]
    jobs_at_cancel: set[int] | None = None
    """The jobs that had been started when the cancellation had committed."""
    refusals: list[str] = field(default_factory=list)
    """Why retries from a node on were refused."""

    def started(self) -> list[tuple[int, int, bool]]:
        return self.db.execute(
            "SELECT job_id, parents, by_retry FROM public.seen WHERE what = 'started' ORDER BY n"
        ).fetchall()

    def ends(self, name: str, result: int = 1, pauses: str = "", isolation: str = "READ COMMITTED") -> Session:
        calls = transaction(lambda c: end(c, [self.names[name]], result=result), isolation=isolation)
        return Session(f"end of {name}", [*calls], pauses)

    def step(self, pauses: str = "") -> Session:
        return Session("step", [*transaction(lambda c: run(c, "workflow_step"))], pauses)

    def redrives(self, name: str) -> Session:
        def again(connection: Conn) -> None:
            connection.execute("SET LOCAL test.retries = 'on'")
            redrive(connection, [self.names[name]])

        return Session(f"retry of {name}", [*transaction(again)])

    def retries_from(self, name: str, pauses: str = "") -> Session:
        def again(connection: Conn) -> None:
            connection.execute("SET LOCAL test.retries = 'on'")
            done = retry_from(connection, self.id, name)
            assert done is not None
            self.refusals += done.refused

        return Session(f"retry from {name}", [*transaction(again)], pauses)

    def adds(self, name: str, count: int, pauses: str = "") -> Session:
        """The running job of a node adds nodes, and then ends, in one transaction."""
        job, worker = self.names[name], "00000000-0000-0000-0000-000000000001"
        self.db.execute(
            "UPDATE jobq.job SET state = 'running', claims = 1, worker_id = %s, started_at = now() WHERE id = %s",
            (worker, job),
        )
        [(started,)] = self.db.execute(
            "SELECT (extract(epoch FROM started_at) * 1e6)::bigint FROM jobq.job WHERE id = %s", (job,)
        ).fetchall()
        fence = {"job": job, "claims": 1, "worker": worker, "started": started}

        def add(connection: Conn) -> None:
            with q.additions() as more:
                for _ in range(count):
                    apps.noop.node()
            q.insert_additions(more, fence, lambda query, values: connection.execute(query, values).fetchone())

        return Session(f"additions of {name}", [*transaction(add, lambda c: end(c, [job], result=1))], pauses)

    def cancels(self) -> Session:
        *calls, commit = transaction(lambda c: cancel(c, self.id))

        def last(connection: Conn) -> None:
            commit(connection)
            self.jobs_at_cancel = {job for job, _, _ in self.started()}

        return Session("cancel", [*calls, last])


class Model:
    def __init__(self, url: str) -> None:
        self.explorer = Explorer(url, 4, PAUSES)
        self.db = self.explorer.watching
        self.db.execute(WATCH.encode())

    def scene(self, build: Callable[[], Any], on_failure: OnFailure) -> Scene:
        self.db.execute("TRUNCATE public.seen")
        with q.workflow("w", on_failure=on_failure) as wf:
            build()
        made = wf.enqueue(self.db).id
        names: dict[str, int] = dict(
            self.db.execute("SELECT name, id FROM jobq.workflow_node WHERE workflow_id = %s", (made,)).fetchall()
        )
        rows = self.db.execute(
            "SELECT node.name || job.node_item, job.id FROM jobq.workflow_node AS node"
            " JOIN jobq.job AS job ON job.node_id = node.id WHERE node.workflow_id = %s AND node.kind = 'map'",
            (made,),
        )
        return Scene(self.db, made, names | dict(rows.fetchall()))

    def finish(self, scene: Scene) -> None:
        """Do the steps, end what has started, and go on until nothing is left."""
        for _ in range(10):
            if scene.jobs_at_cancel is not None:
                # What the first round had found locked.
                cancel(self.db, scene.id)
            fold(self.db)
            live = [id for (id,) in self.db.execute("SELECT id FROM jobq.job ORDER BY id")]
            if not live:
                return
            end(self.db, live, result=1)
        raise AssertionError("jobs come again and again")

    def check(self, scene: Scene, story: list[str]) -> None:
        told = " → ".join(story)
        if scene.jobs_at_cancel is not None:
            cancel(self.db, scene.id)
            fold(self.db)
            alive = {id for (id,) in self.db.execute("SELECT id FROM jobq.job WHERE state <> 'running'")}
            again = {job for job, _, by_retry in scene.started() if by_retry}
            assert alive <= again, f"after the cancellation, jobs {alive} are still to run: {told}"
            late = {job for job, _, by_retry in scene.started() if not by_retry} - scene.jobs_at_cancel
            assert not late, f"jobs {late} started after the cancellation: {told}"
        self.finish(scene)
        for job, missing, _ in scene.started():
            assert not missing, f"job {job} started before {missing} of its parents had ended: {told}"
        for id, kind, counted, results in self.db.execute(COUNTS.encode(), (scene.id,)).fetchall():
            assert counted == results, (
                f"the join {id} ({kind}) has counted {counted}, and its results are {results}: {told}"
            )
        rows = self.db.execute(RELEASES.encode(), (scene.id,)).fetchall()
        for id, kind, is_released, times, remaining in rows:
            assert is_released, f"the join {id} ({kind}) waits for ever: {told}"
            assert (times, remaining) == (1, 0), (
                f"the join {id} ({kind}) was released {times} times, before {remaining} ends: {told}"
            )
        assert self.db.execute(
            "SELECT state <> 'running' FROM jobq.workflow WHERE id = %s", (scene.id,)
        ).fetchone() == (True,), told
        assert self.db.execute("SELECT count(*) FROM jobq.workflow_arrival").fetchone() == (0,), told
        nulls = "SELECT count(*) FROM jobq.job_history WHERE args -> 'left' = 'null' OR args -> 'right' = 'null'"
        assert self.db.execute(nulls.encode()).fetchone() == (0,), (
            f"a node has started without the result of a parent: {told}"
        )
        self.db.execute("TRUNCATE jobq.job_history, jobq.workflow_turn")

    def explore(
        self, build: Callable[[], Any], sessions: Callable[[Scene], list[Session]], on_failure: OnFailure = "continue"
    ) -> int:
        scenes: list[Scene] = []

        def begin() -> list[Session]:
            scenes.append(self.scene(build, on_failure))
            return sessions(scenes[-1])

        return self.explorer.explore(begin, lambda story: self.check(scenes[-1], story))


@pytest.fixture
def model(database_url: str) -> Iterator[Model]:
    made = Model(database_url)
    yield made
    made.explorer.close()


def pair() -> None:
    """Two parents, of which the first may fail, and a node that needs both."""
    a = apps.number.node(1).named("a")
    b = apps.number.node(2).named("b")
    apps.add.node(a.result_or(7), b.result).named("c")


def pair_of_items() -> None:
    apps.total.node(apps.number.map([1, 2]).named("m").results).named("c")


def skipped() -> None:
    """Nodes that end where a join is released, and feed the next one."""
    a = apps.number.node(1).named("a")
    b = apps.number.node(2).named("b")
    no = apps.add.node(a.result, b.result).named("no").when(a.result)
    apps.noop.node().named("d").after(no, b)
    apps.noop.node().named("e").after(b)


@pytest.mark.slow
@long
def test_two_last_parents(model: Model) -> None:
    assert model.explore(pair, lambda s: [s.ends("a", pauses="fold decide"), s.ends("b"), s.step()]) >= 90


def test_two_last_parents_that_both_stop(model: Model) -> None:
    assert model.explore(pair, lambda s: [s.ends("a", pauses="fold"), s.ends("b", pauses="fold")]) >= 6


@pytest.mark.slow
@long
@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_parent_in_another_isolation_level(model: Model, isolation: str) -> None:
    assert model.explore(pair, lambda s: [s.ends("a", isolation=isolation), s.ends("b", pauses="fold"), s.step()]) >= 90


@pytest.mark.slow
@long
def test_an_end_that_skips_what_comes_next(model: Model) -> None:
    assert model.explore(skipped, lambda s: [s.ends("a", result=0), s.ends("b", pauses="decide"), s.step()]) >= 90


def failed_first(scene: Scene, name: str) -> None:
    end(scene.db, [scene.names[name]], "failed")


@pytest.mark.slow
@long
def test_the_last_parent_against_a_retry_of_the_other(model: Model) -> None:
    def sessions(scene: Scene) -> list[Session]:
        failed_first(scene, "a")
        return [scene.ends("b", pauses="fold decide"), scene.redrives("a"), scene.step()]

    assert model.explore(pair, sessions) >= 90


@pytest.mark.slow
@long
def test_the_last_item_against_a_retry_of_the_other(model: Model) -> None:
    def sessions(scene: Scene) -> list[Session]:
        failed_first(scene, "m0")
        return [scene.ends("m1", pauses="fold"), scene.redrives("m0"), scene.step()]

    assert model.explore(pair_of_items, sessions) >= 90


@pytest.mark.slow
@long
def test_the_last_parent_against_a_cancellation(model: Model) -> None:
    assert model.explore(pair, lambda s: [s.ends("a"), s.ends("b", pauses="decide start"), s.cancels()]) >= 90


@pytest.mark.slow
@long
def test_a_step_against_a_cancellation(model: Model) -> None:
    def sessions(scene: Scene) -> list[Session]:
        # Its end is an arrival, which the step finds.
        with scene.db.transaction():
            scene.db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            end(scene.db, [scene.names["a"], scene.names["b"]], result=1)
        return [scene.step(pauses="decide start"), scene.cancels(), scene.step()]

    assert model.explore(pair, sessions) >= 30


@pytest.mark.slow
@long
@pytest.mark.parametrize("on_failure", ["hold", "continue"])
def test_a_retry_against_a_cancellation(model: Model, on_failure: OnFailure) -> None:
    def sessions(scene: Scene) -> list[Session]:
        failed_first(scene, "a")
        return [scene.redrives("a"), scene.ends("b", pauses="decide"), scene.cancels()]

    assert model.explore(pair, sessions, on_failure) >= 30


def ended(*names: str) -> Callable[[Scene], None]:
    def first(scene: Scene) -> None:
        end(scene.db, [scene.names[name] for name in names], result=1)

    return first


@pytest.mark.slow
@long
def test_the_last_parent_against_a_retry_from_the_other(model: Model) -> None:
    def sessions(scene: Scene) -> list[Session]:
        ended("a")(scene)
        return [scene.ends("b", pauses="start"), scene.retries_from("a", pauses="again"), scene.step()]

    assert model.explore(pair, sessions) >= 30


def test_the_end_of_a_node_against_a_retry_from_its_parent(model: Model) -> None:
    """The node is named, or its end counts and it runs again."""
    scenes: list[Scene] = []

    def build() -> None:
        pair()
        # The end of c is not the last one: it does not take the run's lock.
        apps.noop.node().named("d")

    def sessions(scene: Scene) -> list[Session]:
        scenes.append(scene)
        ended("a", "b")(scene)
        return [scene.ends("c", pauses="decide"), scene.retries_from("a", pauses="again")]

    assert model.explore(build, sessions) >= 6
    refused = [reason for scene in scenes for reason in scene.refusals]
    assert set(refused) == {"node 'c' starts or ends at this moment"}
    assert len(refused) < len(scenes)


@pytest.mark.slow
@long
def test_a_retry_from_a_node_against_a_retry_of_its_job(model: Model) -> None:
    def sessions(scene: Scene) -> list[Session]:
        failed_first(scene, "a")
        return [scene.redrives("a"), scene.retries_from("a", pauses="again"), scene.ends("b", pauses="decide")]

    assert model.explore(pair, sessions) >= 30


@pytest.mark.slow
@long
def test_a_retry_from_a_node_against_a_cancellation(model: Model) -> None:
    def sessions(scene: Scene) -> list[Session]:
        ended("a")(scene)
        return [scene.retries_from("a", pauses="again"), scene.cancels(), scene.ends("b", pauses="start")]

    assert model.explore(pair, sessions) >= 30


def apart() -> None:
    apps.number.node(1).named("a")
    apps.number.node(2).named("b")


def test_added_nodes_against_the_last_other_end(model: Model) -> None:
    assert model.explore(apart, lambda s: [s.adds("a", 2), s.ends("b", pauses="decide"), s.step()], "hold") >= 30


def test_nodes_that_two_add(model: Model) -> None:
    assert model.explore(apart, lambda s: [s.adds("a", 1), s.adds("b", 2)], "hold") >= 4


@pytest.mark.slow
@long
def test_added_nodes_against_a_cancellation(model: Model) -> None:
    assert model.explore(apart, lambda s: [s.adds("a", 2), s.cancels(), s.ends("b", pauses="decide")]) >= 30


def test_two_retries_from_a_node(model: Model) -> None:
    def sessions(scene: Scene) -> list[Session]:
        ended("a", "b", "c")(scene)
        return [scene.retries_from("a", pauses="again"), scene.retries_from("c", pauses="again")]

    assert model.explore(pair, sessions) >= 6


def test_the_expansion_of_a_map_against_a_cancellation(model: Model) -> None:
    def build() -> None:
        many = apps.number.map(apps.numbers.node(1).named("a").result).named("m")
        apps.noop.node().named("c").after(many)

    def sessions(scene: Scene) -> list[Session]:
        end(scene.db, [scene.names["a"]], result=list(range(1001)))
        return [scene.step(pauses="start"), scene.cancels()]

    assert model.explore(build, sessions) >= 6
