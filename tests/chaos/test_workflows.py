"""Random graphs under kill -9 of workers, runners and the server, with retries and cancellations."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg

from jobq import operations
from jobq.errors import JobBusy, WorkflowNotFound
from tests.chaos.scene.graphs import DIRECTORY, Graph, draw
from tests.chaos.scene.harness import Arena
from tests.support.checks import some
from tests.support.waiting import hold, wait_until
from tests.support.workflows.join_watch import COUNTS, RELEASES, WATCH

APP = "tests.chaos.scene.graphs:q"
AWAY = (psycopg.OperationalError, psycopg.errors.AdminShutdown, JobBusy)


class Runs:
    """The runs of one scenario: what was inserted, and what operators did to them."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.graphs: dict[int, Graph] = {}
        self.ids: dict[int, int] = {}
        self.done: Counter[str] = Counter()
        with arena.connect() as connection:
            connection.execute(WATCH.encode())
            # After the commit of a run's cancellation: the last row of `seen`.
            connection.execute("CREATE TABLE public.cancelled (run_id bigint, last integer)")

    @contextlib.contextmanager
    def operator(self, what: str) -> Iterator[psycopg.Connection[Any]]:
        """A connection that may be lost. What it was doing may have happened or not."""
        try:
            with self.arena.connect() as connection:
                connection.execute("SET test.retries = 'on'")
                yield connection
                self.done[what] += 1
        except AWAY:
            self.done[f"{what} lost"] += 1

    def insert(self, graph: Graph) -> None:
        """Insert a run. If the answer is lost, its key finds it at the next try."""
        self.graphs[graph.number] = graph

        def inserted() -> bool:
            with contextlib.suppress(*AWAY), self.arena.connect() as connection:
                self.ids[graph.number] = graph.build().enqueue(connection).id
                return True
            return False

        wait_until(inserted, timeout=60, what="a run's insert")

    def cancel(self) -> None:
        """Cancel one of the newest runs, and remember what had started by then."""
        run = self.arena.random.choice(sorted(self.ids.values())[-4:])
        self.arena.fault("cancel", run=run)
        with self.operator("cancel") as connection:
            if operations.cancel_workflow(connection, "jobq", run, actor="chaos").done:
                self.done["cancel of a running run"] += 1
                connection.execute("INSERT INTO public.cancelled SELECT %s, max(n) FROM public.seen", (run,))

    def repair(self, share: float = 1.0) -> int:
        """Repair nodes that fail until then, and retry their jobs or their runs. Return how many had to be."""
        found = 0
        for number, run in self.ids.items():
            graph = self.graphs[number]
            once = [f"n{place}" for place, plan in enumerate(graph.nodes) if plan.fails == "once"]
            if not once or graph.on_failure == "cancel" or self.arena.random.random() > share:
                continue
            with self.operator("look for repairs") as connection:
                stopped = "SELECT FROM jobq.workflow WHERE id = %s AND cancel_requested_at IS NOT NULL"
                if connection.execute(stopped, (run,)).rowcount:
                    continue
                rows = connection.execute(
                    "SELECT node.name, result.job_id FROM jobq.workflow_node AS node"
                    " JOIN jobq.workflow_result AS result ON result.node_id = node.id"
                    " WHERE node.workflow_id = %s AND node.name = ANY (%s)"
                    " AND result.state = 'failed' AND result.job_id IS NOT NULL",
                    (run, once),
                ).fetchall()
                for row in rows:
                    (self.arena.directory / f"{graph.token}-{row['name'][1:]}").touch()
                # With another policy than hold, what needs them has ended, or will have before they are back.
                if rows and graph.on_failure == "hold" and self.arena.random.random() < 0.5:
                    operations.retry(connection, "jobq", [row["job_id"] for row in rows], actor="chaos")
                    self.done["retry of jobs"] += 1
                elif rows or self.state(connection, number) != graph.state():
                    self.done["retry of a run"] += operations.retry_workflow(
                        connection, "jobq", run, actor="chaos"
                    ).done
                found += bool(rows)
        return found

    def state(self, connection: psycopg.Connection[Any], number: int) -> str:
        from jobq._postgres.sql import statement

        row = connection.execute(statement("workflow_status", "jobq").query, {"id": self.ids[number]}).fetchone()
        if row is None:
            raise WorkflowNotFound(f"run {self.ids[number]}")
        return "blocked" if row["is_blocked"] else str(row["state"])

    def open(self) -> list[int]:
        """Return the numbers of the runs that have not come to their end."""
        left = list(self.graphs)
        with contextlib.suppress(*AWAY), self.arena.connect() as connection:
            cancelled = {
                row["id"]
                for row in connection.execute("SELECT id FROM jobq.workflow WHERE cancel_requested_at IS NOT NULL")
            }
            left = []
            for number, graph in self.graphs.items():
                state = self.state(connection, number)
                ends_anyhow = self.ids[number] in cancelled or graph.on_failure == "cancel"
                if state in ("running", "blocked") if ends_anyhow else state != graph.state():
                    left.append(number)
        return left

    def check(self) -> list[str]:
        """Return what was promised and is not so."""
        wrong: list[str] = []
        with self.arena.connect() as connection:
            rows = connection.execute(
                "SELECT job_id, parents FROM public.seen WHERE what = 'started' AND parents > 0"
            ).fetchall()
            wrong += [f"early: job {row['job_id']} started before {row['parents']} parents had ended" for row in rows]
            late = connection.execute(
                "SELECT run_id, job_id, what FROM public.cancelled"
                " JOIN jobq.workflow_node AS node ON node.workflow_id = cancelled.run_id"
                " JOIN jobq.job_history AS job ON job.node_id = node.id"
                " JOIN public.seen ON seen.job_id = job.id AND seen.n > cancelled.last"
                " AND (seen.what = 'claimed' OR NOT seen.by_retry)"
            ).fetchall()
            wrong += [
                f"late: job {row['job_id']} of the cancelled run {row['run_id']} was {row['what']}" for row in late
            ]
            for what in ("SELECT count(*) AS n FROM jobq.workflow_arrival", "SELECT count(*) AS n FROM jobq.job"):
                row = connection.execute(what.encode()).fetchone()
                assert row is not None
                wrong += [f"left: {row['n']}: {what}"] * (row["n"] > 0)
            for number, graph in self.graphs.items():
                wrong += [
                    f"graph {number}, run {self.ids[number]} ({graph.on_failure}): {each}"
                    for each in self._run(connection, number)
                ]
        return wrong

    def _run(self, connection: psycopg.Connection[Any], number: int) -> Iterator[str]:
        graph, run = self.graphs[number], self.ids[number]
        row = connection.execute(
            "SELECT cancel_requested_at IS NOT NULL AS stopped FROM jobq.workflow WHERE id = %s", (run,)
        ).fetchone()
        assert row is not None
        state = self.state(connection, number)
        for join in connection.execute(COUNTS.encode(), (run,)):
            if join["counted"] != join["results"]:
                yield f"counts: join {join['id']} ({join['kind']}) {join['counted']}, and its results are {join['results']}"
        for join in connection.execute(RELEASES.encode(), (run,)):
            # The join of a map that never started.
            never = join["times"] == 0 and not join["is_released"]
            if join["remaining"] or (
                (join["times"], join["is_released"]) != (1, True)
                and not (never and (state == "blocked" or join["kind"] == "map"))
            ):
                yield f"releases: join {join['id']} ({join['kind']}): {join}"
        if row["stopped"] or graph.on_failure == "cancel":
            return
        if state != graph.state():
            yield f"state: {state} instead of {graph.state()}"
        rows = connection.execute(
            "SELECT node.number - 1 AS place, result.state, result.result FROM jobq.workflow_node AS node"
            " LEFT JOIN jobq.workflow_result AS result"
            " ON result.node_id = node.id AND result.item = CASE node.kind WHEN 'map' THEN -1 ELSE 0 END"
            " WHERE node.workflow_id = %s ORDER BY node.number",
            (run,),
        )
        for node, (expected, value) in zip(rows.fetchall(), graph.outcome(), strict=True):
            if graph.nodes[node["place"]].kind == "map":
                value = None
            if ((node["state"] or "waiting"), node["result"]) != (expected, value):
                yield f"result: n{node['place']} is {node['state']} {node['result']} instead of {expected} {value}"


def test_random_graphs(arena: Arena) -> None:
    """Every join is released once, and what succeeds has the results of the same graph in plain Python."""
    runs = Runs(arena)
    env = {DIRECTORY: str(arena.directory)}
    working = [arena.start_worker(app=APP, env=env) for _ in range(3)]
    turns = 60 if arena.long else 10

    def kill_dispatcher() -> None:
        index = arena.random.randrange(len(working))
        arena.kill_dispatcher(working[index])
        working[index] = arena.start_worker(app=APP, env=env)

    def kill_runner() -> None:
        arena.kill_runner(arena.random.choice(working))

    def kill_server() -> None:
        arena.fault("kill -9 server")
        arena.server.kill()
        arena.pause(0.0, 0.5)
        arena.server.restart()

    for turn in range(turns):
        for _ in range(8):
            runs.insert(draw(len(runs.graphs), arena.random, 200 if arena.long and not len(runs.graphs) % 20 else 20))
        fault = [kill_dispatcher, kill_runner, kill_server, runs.cancel, runs.cancel][turn % 5]
        arena.pause(0.0, 0.1 if fault == runs.cancel else 0.6)
        fault()
        runs.done[fault.__name__] += 1
        runs.repair(0.3)

    looks = 0

    def ended() -> bool:
        nonlocal looks
        looks += 1
        repaired = runs.repair()
        hold(0.2)
        return not repaired and not runs.open()

    # What is left then is among the violations.
    with contextlib.suppress(AssertionError):
        wait_until(ended, timeout=300 if arena.long else 90, what="the end of all runs")
    codes = []
    for worker in working:
        worker.terminate()
        codes.append(worker.wait())
    with arena.connect() as connection:
        row = connection.execute(
            "SELECT count(*) AS nodes, (SELECT count(*) FROM jobq.workflow_result) AS ends,"
            " (SELECT count(*) FROM public.seen WHERE what = 'released') AS releases FROM jobq.workflow_node"
        ).fetchone()
        states = Counter(runs.state(connection, number) for number in runs.graphs)
    wrong = runs.check()
    figures = f"{len(runs.graphs)} runs {dict(states)}, {row}, {dict(runs.done)}"
    print(f"{arena.name}, seed {arena.seed}: {figures}")
    assert not wrong, f"{len(wrong)} violations{arena.where()}\n" + "\n".join(each[:500] for each in wrong[:20])
    assert not any(some(codes)), f"workers ended with {codes}{arena.where()}"
