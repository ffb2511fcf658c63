"""Tasks that another process finds by their names."""

from __future__ import annotations

from jobq import JobQ

q = JobQ("postgresql://nobody@127.0.0.1:1/nothing")


@q.task
def double(n: int) -> int:
    return 2 * n


@q.task
async def triple(n: int) -> int:
    return 3 * n


urgent = double.options(priority=9, headers={"a": 1})


class Service:
    @staticmethod
    @q.task(name="service.work")
    def work(n: int) -> int:
        return n + 1
