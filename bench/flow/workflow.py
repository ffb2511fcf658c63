"""How fast: workflows of no-ops, in nodes a second beside plain jobs; a map of many; from a parent's end to a child's start."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from bench.flow.app import act, nothing, plain, q
from bench.flow.stage import Stage, until
from jobq import Workflow


def chain(length: int = 10) -> Workflow:
    """Return a chain of no-ops."""
    with q.workflow("chain") as wf:
        nodes = [nothing.node(0)]
        for n in range(1, length):
            nodes.append(nothing.node(n).after(nodes[-1]))
    return wf


def diamond() -> Workflow:
    """Return a no-op, eight after it, and one after these."""
    with q.workflow("diamond") as wf:
        top = nothing.node(0)
        middle = [nothing.node(n).after(top) for n in range(8)]
        nothing.node(9).after(*middle)
    return wf


def rates(stage: Stage, seed: int, *, shape: Callable[[], Workflow] = chain, runs: int = 2_000) -> dict[str, float]:
    """Run many workflows of 10 nodes by one worker, and as many plain jobs before and after them."""
    found: dict[str, list[float]] = {"plain": [], "nodes": []}
    wf = shape()
    for kind in ("plain", "nodes", "plain", "nodes"):
        stage.connection.execute("TRUNCATE jobq.job, jobq.job_history")
        with stage.connection.transaction():
            if kind == "plain":
                q.enqueue_many(stage.connection, [plain.job(n) for n in range(runs * 10)])
            else:
                for _ in range(runs):
                    wf.enqueue(stage.connection)
        stage.connection.execute(
            "VACUUM ANALYZE jobq.job, jobq.workflow_node, jobq.workflow_join, jobq.workflow_result"
        )
        worker = stage.start()
        until(lambda: stage.one("SELECT count(*) FROM jobq.job_history") == runs * 10, "the end")
        until(lambda: stage.one("SELECT count(*) FROM jobq.workflow WHERE state = 'running'") == 0, "the runs")
        worker.terminate()
        worker.wait(60)
        found[kind].append(runs * 10 / _seconds(stage))
    plain_rate, nodes_rate = (statistics.median(found[kind]) for kind in ("plain", "nodes"))
    return {"plain_per_s": plain_rate, "nodes_per_s": nodes_rate, "ratio": nodes_rate / plain_rate}


def fan_in(stage: Stage, seed: int, *, items: int = 100_000, workers: int = 1) -> dict[str, float]:
    """Run a map of no-ops and a node after it."""
    with q.workflow("fan-in") as wf:
        many = nothing.map(range(items))
        nothing.node(-1).after(many)
    began = time.monotonic()
    wf.enqueue(stage.connection)
    enqueued = time.monotonic() - began
    stage.connection.execute("VACUUM ANALYZE jobq.job")
    for _ in range(workers):
        stage.start()
    until(lambda: stage.one("SELECT count(*) FROM jobq.workflow WHERE state = 'running'") == 0, "the run")
    gap = stage.one(
        "SELECT extract(epoch FROM (SELECT started_at FROM jobq.job_history WHERE node_item = 0 AND args ->> 'n' = '-1')"
        " - (SELECT max(finished_at) FROM jobq.workflow_result WHERE item >= 0 AND node_id ="
        " (SELECT id FROM jobq.workflow_node WHERE kind = 'map')))::float8"
    )
    return {"items": items, "enqueue_s": enqueued, "run_s": _seconds(stage), "gap_ms": gap * 1000}


def latency(stage: Stage, seed: int, *, runs: int = 200, rate: float = 33.0) -> dict[str, float]:
    """Run pairs of nodes at a slow rate: milliseconds from the end of the parent's code to the start of the child's."""
    stage.start()
    stage.ready(1)
    for n in range(runs):
        with q.workflow("pair") as wf:
            act.node(f"g{n}", 1, 0.0, 0.0).after(act.node(f"g{n}", 0, 0.0, 0.0))
        wf.enqueue(stage.connection)
        time.sleep(1 / rate)
    until(lambda: stage.one("SELECT count(*) FROM jobq.workflow WHERE state = 'running'") == 0, "the runs")
    found = {(each.group, each.n): each for each in stage.executions()}
    waits = sorted(1000 * (found[f"g{n}", 1].start - found[f"g{n}", 0].end) for n in range(runs))
    return {"runs": runs, "p50_ms": waits[runs // 2], "p99_ms": waits[runs * 99 // 100], "worst_ms": waits[-1]}


def _seconds(stage: Stage) -> float:
    query = "SELECT extract(epoch FROM max(finished_at) - min(started_at))::float8 FROM jobq.job_history"
    return float(stage.one(query))
