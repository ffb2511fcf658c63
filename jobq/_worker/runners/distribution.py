"""Which runner gets which of the jobs that were claimed."""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace

from jobq.worker.children import Child
from jobq.worker.frames import Job


def distribute(
    jobs: list[Job], ready: list[Child], limit: int | None
) -> tuple[list[tuple[Child, list[Job]]], list[Job]]:
    """Return what each of the `ready` runners gets, the least loaded first, those slow to react last; and what none takes.

    `limit`: how many jobs one runner gets in its life.
    """
    if len(ready) == 1 and limit is None:
        return ([(ready[0], jobs)] if jobs else []), []
    shares: list[list[Job]] = [[] for _ in ready]
    # A slow runner counts as one whose slots are full: it comes after those that have some free.
    loads = [
        (len(child.jobs) + (child.slots if child.slow else 0), index)
        for index, child in enumerate(ready)
        if limit is None or child.given < limit
    ]
    heapify(loads)
    for number, job in enumerate(jobs):
        if not loads:
            return _given(ready, shares), jobs[number:]
        load, index = loads[0]
        shares[index].append(job)
        if limit is not None and len(shares[index]) + ready[index].given >= limit:
            heappop(loads)
        else:
            heapreplace(loads, (load + 1, index))
    return _given(ready, shares), []


def _given(ready: list[Child], shares: list[list[Job]]) -> list[tuple[Child, list[Job]]]:
    return [(child, share) for child, share in zip(ready, shares, strict=True) if share]
