"""Resources of eager jobs that run at the same time on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from jobq import Backoff, JobFailed, JobQ, Resource, injected
from jobq.testing import eager

q = JobQ("postgresql://nobody@127.0.0.1:1/nothing")
log: list[str] = []
closing = asyncio.Event()


class Client:
    closed = False


class Pool:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.closed = False


class Broken(Exception): ...


@q.resource
def client() -> Iterator[Client]:
    made = Client()
    log.append("client opens")
    yield made
    made.closed = True
    log.append("client closes")


@q.resource
async def pool(client: Resource[Client]) -> AsyncIterator[Pool]:
    await asyncio.sleep(0)
    made = Pool(client)
    log.append("pool opens")
    yield made
    closing.set()
    await asyncio.sleep(0)
    made.closed = True
    log.append("pool closes")


@q.resource
async def broken(client: Resource[Client]) -> AsyncIterator[dict[str, int]]:
    log.append("broken opens")
    if len(log) < 4:
        raise Broken("no route")
    yield {}


@q.task
def ping(client: Resource[Client] = injected) -> bool:
    return not client.closed


@q.task
async def wait(turns: int, pool: Resource[Pool] = injected) -> bool:
    for _ in range(turns):
        await asyncio.sleep(0)
    return not (pool.closed or pool.client.closed)


@q.task(max_attempts=3, backoff=Backoff(base=0.01))
async def use_broken(broken: Resource[dict[str, int]] = injected) -> int:
    return len(broken)


@q.task(max_attempts=1)
async def use_broken_once(broken: Resource[dict[str, int]] = injected) -> None: ...


@pytest.fixture(autouse=True)
def nothing_yet() -> None:
    log.clear()
    closing.clear()


@pytest.mark.parametrize("turns", [(3, 9, 1), (0, 0, 0), (9, 3, 5), (0, 40, 2)])
async def test_jobs_at_the_same_time_share_them(turns: tuple[int, ...]) -> None:
    with eager(q) as jobs:
        await asyncio.gather(*(wait.submit_async(each) for each in turns))
        assert [job.result for job in jobs.jobs] == [True] * len(turns)
        assert log == ["client opens", "pool opens", "pool closes", "client closes"]


async def test_a_job_that_comes_while_they_are_closed_has_its_own() -> None:
    async def later() -> None:
        await closing.wait()
        await wait.submit_async(1)

    with eager(q) as jobs:
        await asyncio.gather(wait.submit_async(0), later())
        assert [job.result for job in jobs.jobs] == [True, True]
    assert log.count("pool opens") == log.count("pool closes") == 2
    assert log.count("client opens") == log.count("client closes")


async def test_what_a_def_task_has_made_stays_until_the_end() -> None:
    with eager(q) as jobs:
        ping.submit()
        await wait.submit_async(1)
        assert log == ["client opens", "pool opens", "pool closes"]
        ping.submit()
        assert [job.result for job in jobs.jobs] == [True] * 3
    assert log[-1] == "client closes"


async def test_the_error_of_one_is_the_jobs() -> None:
    with eager(q) as jobs:
        ref = await use_broken_once.submit_async()
        with pytest.raises(JobFailed, match="Broken: no route"):
            await ref.result_async()
        assert isinstance(jobs.jobs[0].exception, Broken)
    assert log == ["client opens", "broken opens", "client closes"]
    log.clear()
    with eager(q, propagate=True), pytest.raises(Broken):
        await use_broken_once.submit_async()


async def test_a_job_whose_resource_failed_is_tried_again() -> None:
    with eager(q) as jobs:
        ref = await use_broken.submit_async()
        assert await ref.result_async() == 0
        assert jobs.jobs[0].attempt == 3
    assert log == ["client opens", *["broken opens"] * 3, "client closes"]
