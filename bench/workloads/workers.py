"""Workers (jobq): jobs of 1 ms, by 1 to 32 worker processes with everything by default."""

from __future__ import annotations

from bench.figures import Figures, rate
from bench.peers import Peer
from bench.run import Run
from bench.workloads.base import Bench, Workload, only_jobq


def _workers(bench: Bench, peer: Peer, config: str) -> Figures:
    counts = (1, 2) if bench.quick else (1, 2, 4, 8, 16, 32) if bench.everything else (1, 4, 16)
    figures: Figures = {}
    for count in counts:
        figures[f"workers_{count}_per_s"] = _measure(bench, peer, config, count)
    if 16 in counts:
        figures["workers_16_over_4"] = figures["workers_16_per_s"] / figures["workers_4_per_s"]
    return figures


def _measure(bench: Bench, peer: Peer, config: str, count: int) -> float:
    jobs = bench.number(20_000, 2_000)
    with bench.run(peer, config, jobs, work_ms=1) as run:
        for _ in range(count):
            run.start_worker()
        # All are up first: one that is still starting would work off nothing and take the CPU from the others.
        run.wait_for(lambda: _up(run) == count, f"{count} workers were not up", timeout=180)
        run.call("fill", jobs=jobs, first=0)
        run.wait_done(0, jobs)
        run.stop_workers()
        return rate(run.check_all_started(0, jobs))


def _up(run: Run) -> int:
    row = run.connection.execute("SELECT count(*) FROM jobq.worker WHERE state = 'running'").fetchone()
    assert row is not None
    return int(row[0])


WORKERS = Workload(
    name="workers",
    about="jobs of 1 ms a second, by the number of worker processes",
    measure=_workers,
    can=only_jobq,
    seconds=60,
)
