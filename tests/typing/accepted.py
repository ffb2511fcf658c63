"""Right calls: type checkers accept every line. tests/typing/test_typing.py runs them over this file."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, assert_type

import psycopg
from flask import Blueprint
from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

import jobq
from jobq import (
    AsyncBatchRunNext,
    AsyncBatchTask,
    AsyncEnqueueNext,
    AsyncRunNext,
    AsyncTask,
    Backoff,
    BatchRunNext,
    BatchTask,
    CurrentBatch,
    CurrentJob,
    EnqueueNext,
    Groups,
    JobProgress,
    JobQ,
    JobRef,
    NewJob,
    QueueHandle,
    QueueSettings,
    Rate,
    Resource,
    Retry,
    RunNext,
    Task,
    current_batch,
    current_job,
    injected,
)
from jobq.operations import QueueChange
from jobq.testing import EagerJobs, JobqTester, eager, fake_job, override_resource


@dataclass
class Order:
    id: int
    lines: list[str]


q = JobQ("postgresql://localhost/app", schema="jobs", pool_size=8)


@q.task
def bare(number: int) -> str:
    return str(number)


@q.task(
    name="mail.receipt",
    queue="mail",
    priority=7,
    max_attempts=8,
    backoff=Backoff(base=2, cap=60),
    timeout=30,
    retry_on=(OSError, TimeoutError),
    no_retry_on=(FileNotFoundError,),
    headers={"team": "billing"},
)
def send_receipt(order_id: int, template: str = "plain", *, copy_to: list[str] | None = None) -> Order:
    current_job().progress(1, 2)
    return Order(order_id, [])


@q.task(backoff=[10, datetime.timedelta(minutes=1), 600.5])
def by_list() -> None: ...


@q.task(backoff=lambda attempt: attempt * 30)
def by_function() -> None:
    raise Retry(after=datetime.timedelta(seconds=30), reason="429")


Backoff([1, 2, 3], jitter=True)
Backoff(base=2, cap=60, jitter=False)


@q.task(transactional=True)
def pay(amount: int) -> int:
    job = current_job()
    assert_type(job.connection, psycopg.Connection[tuple[Any, ...]])
    assert_type(job.session, Session)
    bare.enqueue(job.connection, amount)
    bare.options(delay=1).enqueue(job.session, amount)
    return amount


@q.task(queue="mail", transactional=True)
async def pay_later(amount: int) -> int:
    job = current_job()
    assert_type(job.async_connection, psycopg.AsyncConnection[tuple[Any, ...]])
    assert_type(job.async_session, AsyncSession)
    await bare.enqueue_async(job.async_connection, amount)
    return amount


@q.task(queue="web", timeout=datetime.timedelta(minutes=1))
async def fetch(url: str, retries: int = 3) -> bytes:
    return b""


@q.task
async def ping() -> None: ...


def test_kinds_of_task() -> None:
    assert_type(bare(3), str)
    assert_type(send_receipt(3, copy_to=["a@example.org"]), Order)


async def calls() -> None:
    assert_type(await fetch("https://example.org"), bytes)
    await ping()


def on_connections(
    plain: psycopg.Connection[Any],
    rows: psycopg.Connection[dict[str, Any]],
    core: Connection,
    session: Session,
    scoped: scoped_session[Session],
    engine: Engine,
) -> None:
    assert_type(send_receipt.enqueue(plain, 1), JobRef[Order])
    assert_type(send_receipt.enqueue(rows, 1, "rich"), JobRef[Order])
    assert_type(send_receipt.enqueue(core, order_id=1, template="rich"), JobRef[Order])
    assert_type(send_receipt.enqueue(session, 1, copy_to=None), JobRef[Order])
    assert_type(send_receipt.enqueue(scoped, 1), JobRef[Order])
    assert_type(fetch.enqueue(session, "https://example.org").result(timeout=5), bytes)
    assert_type(fetch.submit("https://example.org", retries=1).result(), bytes)
    assert_type(send_receipt.submit(1).result(), Order)
    with engine.begin() as connection:
        bare.enqueue(connection, 1)
    with q.connection() as own:
        bare.enqueue(own, 1)


async def on_async_connections(
    plain: psycopg.AsyncConnection[Any],
    core: AsyncConnection,
    session: AsyncSession,
    scoped: async_scoped_session[AsyncSession],
) -> None:
    assert_type(await send_receipt.enqueue_async(plain, 1), JobRef[Order])
    assert_type(await send_receipt.enqueue_async(core, 1), JobRef[Order])
    ref = await fetch.enqueue_async(session, "https://example.org", retries=2)
    assert_type(await ref.result_async(timeout=1), bytes)
    await ping.enqueue_async(scoped)
    assert_type(await (await bare.submit_async(1)).result_async(), str)
    assert_type(await q.enqueue_many_async(core, [bare.job(1), ping.job()]), list[JobRef[Any]])


def with_options(session: Session) -> None:
    keyed = send_receipt.options(
        queue="slow",
        priority=9,
        key="receipt:1",
        key_holds="period",
        key_period=datetime.timedelta(hours=1),
        on_conflict="replace",
        delay=60,
        max_attempts=2,
        timeout=5.5,
        headers={"trace": "1"},
    )
    assert_type(keyed.enqueue(session, 1, template="rich"), JobRef[Order])
    assert_type(keyed.submit(1).result(), Order)
    assert_type(keyed.job(1), NewJob)
    bare.options(run_at=datetime.datetime.now(datetime.UTC)).submit(1)
    bare.options(delay=datetime.timedelta(minutes=1), key="k", key_holds="until_finished", on_conflict="raise").submit(
        1
    )
    assert_type(fetch.options(key="k", key_holds="until_started").submit("u").result(), bytes)


def in_bulk(session: Session) -> None:
    assert_type(q.enqueue_many(session, [bare.job(n) for n in range(10)]), list[JobRef[Any]])
    q.enqueue_many(session, (send_receipt.options(key=f"k{n}").job(n) for n in range(10)))


def references(session: Session) -> None:
    ref = bare.ref(17)
    assert_type(ref.result(timeout=0), str)
    assert_type(ref.id, int)
    assert_type(ref.created, bool)
    state = ref.status()
    if state == "succeeded" or state == "parked":
        return


def transactional_tasks_are_typed_as_others(session: Session) -> None:
    assert_type(pay(1), int)
    assert_type(pay.enqueue(session, 1), JobRef[int])
    assert_type(pay_later.options(key="k").submit(2).result(), int)


def a_task_is_a_task() -> tuple[Task[[int], str], AsyncTask[[], None]]:
    return bare, ping


def schedules() -> None:
    assert_type(q.schedule("0 7 * * mon-fri", timezone="Europe/Berlin", missed="last")(bare).submit(1), JobRef[str])
    assert_type(q.schedule(every=datetime.timedelta(minutes=5), args={"n": 1}, name="often")(ping), AsyncTask[[], None])
    assert_type(q.add_schedule(bare, "@daily", name="one", actor="ann", args={"n": 1}), bool)
    assert_type(current_job().tick, datetime.datetime | None)
    assert_type(current_job().schedule, str | None)


@q.schedule("@hourly", tick_argument="at")
@q.task
def hourly(at: datetime.datetime) -> int:
    return at.hour


@q.task
@q.schedule("@hourly", name="below")
def below() -> int:
    return 1


assert_type(hourly(datetime.datetime.now(datetime.UTC)), int)
assert_type(below, Task[[], int])


def references_are_typed() -> None:
    ref = send_receipt.ref(7)
    assert_type(ref, JobRef[Order])
    assert_type(ref.result(timeout=1), Order)
    assert_type(ref.progress(), JobProgress | None)
    assert_type(ref.error(), str | None)
    assert_type(ref.cancel("not wanted"), bool)
    assert_type(q.ref(7), JobRef[Any])


async def references_are_typed_on_event_loops() -> None:
    ref = q.ref(7)
    assert_type(await ref.progress_async(), JobProgress | None)
    assert_type(await ref.error_async(), str | None)
    assert_type(await ref.cancel_async(), bool)


def submodules_need_no_import_of_their_own(connection: psycopg.Connection[Any]) -> None:
    assert_type(jobq.operations.cancel(connection, "jobq", [7], actor="me"), jobq.operations.Changed)
    assert_type(jobq.queries.get_job(connection, "jobq", 7), jobq.queries.JobDetail)
    assert_type(jobq.web.blueprint("postgresql://localhost/app"), Blueprint)


def tests_are_typed(connection: psycopg.Connection[Any], tester: JobqTester) -> None:
    assert_type(tester.on(connection), JobqTester)
    assert_type(tester.advance(datetime.timedelta(hours=3)), int)
    tester.advance(hours=3)
    with eager(q, run=False) as jobs, fake_job(attempt=2) as fake:
        assert_type(jobs, EagerJobs)
        assert_type(fake.progress, list[tuple[int, int | None]])


def queues_are_set(session: Session, connection: psycopg.Connection[Any]) -> None:
    mail = q.queue("mail")
    assert_type(mail, QueueHandle)
    assert_type(mail.set(limit=20, rate="50/s", burst=10, groups="ordered"), QueueChange)
    mail.set(rate=Rate(5, 10, burst=2), groups=Groups("fair", 3), group_rate="5/s", group_burst=2, connection=session)
    mail.set(limit=None, rate=None, groups=None, reason="no more", actor="deploy")
    assert_type(mail.settings(), QueueSettings)
    assert_type(mail.settings(connection=connection).describe(), str)
    assert_type(mail.group("customer:42").set(limit=3), bool)
    mail.group("customer:42").set(limit=None)
    assert_type(mail.pause(reason="down"), bool)
    assert_type(mail.resume(connection=connection), bool)


async def queues_are_set_on_event_loops(session: AsyncSession) -> None:
    mail = q.queue("mail")
    assert_type(await mail.set_async(limit=20, connection=session), QueueChange)
    assert_type(await mail.settings_async(), QueueSettings)
    assert_type(await mail.group("a").set_async(limit=3), bool)
    assert_type(await mail.pause_async(), bool)


class Client:
    def get(self, path: str) -> str:
        return path


class FakeClient(Client): ...


@q.resource
def client() -> Iterator[Client]:
    yield Client()


@q.resource
async def clients(first: Resource[Client]) -> AsyncIterator[dict[str, Client]]:
    assert_type(first, Client)
    yield {"first": first}


@q.task
def download(path: str, *, client: Resource[Client] = injected) -> str:
    assert_type(client, Client)
    return client.get(path)


@q.task(queue="web")
async def download_async(path: str, client: Resource[Client] = injected) -> str:
    return client.get(path)


def resources_are_no_arguments(session: Session) -> None:
    assert_type(download.enqueue(session, "/"), JobRef[str])
    assert_type(download.job(path="/"), NewJob)
    download_async.options(delay=1).submit("/")
    # A test passes its own.
    assert_type(download("/", client=Client()), str)
    with override_resource(q, client, FakeClient()), override_resource(q, clients, {"first": Client()}):
        download_async.submit("/")


@q.middleware
class Tracing:
    def run(self, job: CurrentJob, call_next: RunNext) -> Any:
        return call_next(job)

    async def run_async(self, job: CurrentJob, call_next: AsyncRunNext) -> Any:
        return await call_next(job)

    def enqueue(self, jobs: Sequence[NewJob], call_next: EnqueueNext) -> object:
        return call_next([job.with_headers({"trace": job.task}).with_options(priority=9) for job in jobs])

    async def enqueue_async(self, jobs: Sequence[NewJob], call_next: AsyncEnqueueNext) -> object:
        return await call_next(jobs)


@q.middleware(tasks=[download, "bare"])
class OfSome:
    def run(self, job: CurrentJob, call_next: RunNext) -> Any:
        return call_next(job)


@q.middleware.run
def around_runs(job: CurrentJob, call_next: RunNext) -> Any:
    return call_next(job)


@q.middleware.run(tasks=[download_async])
async def around_async_runs(job: CurrentJob, call_next: AsyncRunNext) -> Any:
    return await call_next(job)


@q.middleware.enqueue
def around_enqueues(jobs: Sequence[NewJob], call_next: EnqueueNext) -> None:
    assert_type(call_next(jobs)[0].id, int | None)


assert_type(q.middleware(Tracing(), tasks=["bare"]), Tracing)


@q.on_worker_start
def at_worker_start() -> None: ...


@q.on_runner_start
async def at_runner_start() -> None: ...


@q.on_runner_stop
def at_runner_stop() -> None: ...


@q.task(batch=500, linger=0.1, queue="search", timeout=30)
def index(orders: list[Order]) -> None:
    batch = current_batch()
    assert_type(batch, CurrentBatch)
    assert_type(batch.jobs[0], CurrentJob)
    batch.fail(0, ValueError("no lines"))


@q.task(batch=10, linger=datetime.timedelta(seconds=1))
def prices(ids: list[int], client: Resource[Client] = injected) -> list[float]:
    return [float(each) for each in ids]


@q.task(batch=10)
def some_prices(ids: list[int]) -> list[float | Exception]:
    return [ValueError("none") if each < 0 else float(each) for each in ids]


@q.task(batch=10)
async def fetch_all(urls: list[str], *, client: Resource[Client] = injected) -> list[bytes | Exception]:
    return [client.get(url).encode() for url in urls]


@q.task(batch=10)
async def ping_all(hosts: list[str]) -> None: ...


assert_type(index, BatchTask[Order, None])
assert_type(prices, BatchTask[int, float])
assert_type(some_prices, BatchTask[int, float])
assert_type(fetch_all, AsyncBatchTask[str, bytes])
assert_type(ping_all, AsyncBatchTask[str, None])


def batch_tasks_are_enqueued_by_item(session: Session, order: Order) -> None:
    assert_type(index.enqueue(session, order), JobRef[None])
    assert_type(some_prices.submit(3).result(), float)
    assert_type(prices.options(key="p", delay=3).enqueue(session, 3), JobRef[float])
    assert_type(fetch_all.job("https://example.org"), NewJob)
    q.enqueue_many(session, [prices.job(number) for number in range(9)])
    prices([1, 2], client=Client())
    index([order])


async def batch_tasks_are_enqueued_on_event_loops(connection: AsyncConnection) -> None:
    assert_type(await fetch_all.enqueue_async(connection, "https://example.org"), JobRef[bytes])
    await fetch_all(["https://example.org"], client=Client())


class AroundBatches:
    def run_batch(self, batch: CurrentBatch, call_next: BatchRunNext) -> Any:
        return call_next(batch)

    async def run_batch_async(self, batch: CurrentBatch, call_next: AsyncBatchRunNext) -> Any:
        return await call_next(batch)


q.middleware(AroundBatches(), tasks=[index, fetch_all])
