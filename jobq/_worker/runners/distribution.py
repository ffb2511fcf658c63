"""Distributes claimed jobs to runners."""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace

from jobq._worker.ipc.messages import Job
from jobq._worker.runners.process import RunnerProcess


def distribute(
    jobs: list[Job], ready: list[RunnerProcess], limit: int | None
) -> tuple[list[tuple[RunnerProcess, list[Job]]], list[Job]]:
    """Return each runner's jobs, and the jobs that no runner takes.

    The least loaded of the `ready` runners comes first, runners that react slowly come last.
    `limit`: how many jobs a runner gets during its life.
    """
    if len(ready) == 1 and limit is None:
        return ([(ready[0], jobs)] if jobs else []), []
    shares: list[list[Job]] = [[] for _ in ready]
    loads = [(runner.load, index) for index, runner in enumerate(ready) if limit is None or runner.held.given < limit]
    heapify(loads)
    for number, job in enumerate(jobs):
        if not loads:
            return _given(ready, shares), jobs[number:]
        load, index = loads[0]
        shares[index].append(job)
        if limit is not None and len(shares[index]) + ready[index].held.given >= limit:
            heappop(loads)
        else:
            heapreplace(loads, (load + 1, index))
    return _given(ready, shares), []


def _given(ready: list[RunnerProcess], shares: list[list[Job]]) -> list[tuple[RunnerProcess, list[Job]]]:
    return [(runner, share) for runner, share in zip(ready, shares, strict=True) if share]
