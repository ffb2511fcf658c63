"""Wrong calls: type checkers reject every line marked ``# error``, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from jobq import AsyncTask, Backoff, CurrentJob, JobQ, Resource, RunNext, Snooze, current_job, injected
from jobq.testing import override_resource

q = JobQ()


@q.task(queue="mail")
def send_receipt(order_id: int, template: str = "plain", *, urgent: bool = False) -> str:
    return template


@q.task
async def fetch(url: str) -> bytes:
    return b""


def on_a_connection(connection: psycopg.Connection[Any], session: Session, engine: Engine) -> None:
    send_receipt.enqueue(session)  # error
    send_receipt.enqueue(session, "1")  # error
    send_receipt.enqueue(session, 1, 2)  # error
    send_receipt.enqueue(session, 1, "rich", True)  # error
    send_receipt.enqueue(session, order=1)  # error
    send_receipt.enqueue(session, 1, order_id=2)  # error
    send_receipt.enqueue(1)  # error
    send_receipt.enqueue(engine, 1)  # error
    send_receipt.enqueue("postgresql://localhost", 1)  # error
    send_receipt.enqueue(None, 1)  # error
    fetch.enqueue(connection, 1)  # error
    fetch.enqueue(connection, "u", queue="web")  # error


async def on_an_async_connection(session: Session, later: AsyncSession) -> None:
    send_receipt.enqueue(later, 1)  # error
    await send_receipt.enqueue_async(session, 1)  # error
    await send_receipt.enqueue_async(later, None)  # error
    await fetch.enqueue_async(later)  # error
    await fetch.submit_async(b"u")  # error
    await q.enqueue_many_async(session, [])  # error
    wrong: str = await (await fetch.submit_async("u")).result_async()  # error
    print(wrong)


def submitting() -> None:
    send_receipt.submit()  # error
    send_receipt.submit(None)  # error
    send_receipt.submit(1, urgent="yes")  # error
    fetch.submit("u", 3)  # error
    wrong: bytes = send_receipt.submit(1).result()  # error
    also: str = fetch.submit("u").result()  # error
    send_receipt.submit(1).result(timeout="10")  # error
    send_receipt.ref("17")  # error
    print(wrong, also, send_receipt.submit(1).status() == "done")  # error


def with_options(session: Session) -> None:
    send_receipt.options(key=17)  # error
    send_receipt.options(key_holds="forever", key="k")  # error
    send_receipt.options(on_conflict="ignore", key="k")  # error
    send_receipt.options(priority="high")  # error
    send_receipt.options(delay="1 minute")  # error
    send_receipt.options(run_at=1700000000)  # error
    send_receipt.options(headers=["a"])  # error
    send_receipt.options(retries=3)  # error
    send_receipt.options("mail")  # error
    send_receipt.options(key="k").enqueue(session, "1")  # error
    send_receipt.options(key="k").submit(template="rich")  # error
    send_receipt.options(key="k").job()  # error
    send_receipt.options(key="k")(1)  # error


def in_bulk(session: Session) -> None:
    q.enqueue_many(session, [send_receipt.job("1")])  # error
    q.enqueue_many(session, [send_receipt(1)])  # error
    q.enqueue_many(session, [fetch.job()])  # error
    q.enqueue_many([fetch.job("u")])  # error


def calling() -> None:
    send_receipt("1")  # error
    length: int = send_receipt(1)  # error
    later: AsyncTask[[int], str] = send_receipt  # error
    print(length, later)


@q.task(queue=1)  # error
def wrong_queue() -> None: ...


@q.task(retries=3)  # error
def wrong_option() -> None: ...


@q.task(transactional="yes")  # error
def wrong_transactional() -> None: ...


@q.task(transactional=True)
def pay(amount: int) -> int:
    job = current_job()
    session: AsyncSession = job.session  # error
    rows: psycopg.AsyncConnection[Any] = job.connection  # error
    job.connection = None  # error
    job.transaction.commit()  # error
    send_receipt.enqueue(job.async_connection, 1)  # error
    send_receipt.options(transactional=True)  # error
    pay.enqueue(job.connection, "1")  # error
    print(session, rows)
    return amount


@q.task(backoff=2)  # error
def wrong_backoff() -> None: ...


@q.task(retry_on=("OSError",))  # error
def wrong_exceptions() -> None: ...


Backoff(2, 60)  # error
Snooze("soon")  # error
q.schedule("0 7 * * *", missed="never")  # error
q.schedule(every=60)  # error
q.schedule("@daily")(1)  # error
q.add_schedule(send_receipt, "@daily", name="one")  # error


def queues(session: Session, async_session: AsyncSession) -> None:
    q.queue(7)  # error
    q.queue("mail").set(20)  # error
    q.queue("mail").set(limit="20")  # error
    q.queue("mail").set(rate=50)  # error
    q.queue("mail").set(burst=None)  # error
    q.queue("mail").set(groups=3)  # error
    q.queue("mail").set(limits=3)  # error
    q.queue("mail").set(limit=3, connection=async_session)  # error
    q.queue("mail").group("a").set()  # error
    q.queue("mail").group("a").set(limit="3")  # error
    q.queue("mail").settings().limit = 3  # error


def no_resource() -> int:
    return 1


@q.resource
def client() -> Iterator[int]:
    yield 1


@q.task
def download(path: str, client: Resource[int] = injected) -> str:
    wrong: str = client  # error
    return path + wrong


override_resource(q, no_resource, 1)  # error
download.submit()  # error
download.submit(1)  # error
download("/", client="client")  # error


@q.resource  # error
def no_generator() -> int:
    return 1


class WrongMiddleware:
    def run(self, job: int, call_next: RunNext) -> Any:
        return call_next


q.middleware(WrongMiddleware())  # error
q.middleware(3)  # error


@q.middleware.run  # error
def wrong_job(job: int, call_next: RunNext) -> Any:
    return call_next


@q.middleware.enqueue  # error
def wrong_jobs(jobs: CurrentJob, call_next: RunNext) -> Any:
    return call_next(jobs)


@q.on_runner_start  # error
def with_parameter(job: int) -> None: ...


@q.task(batch=10)  # error
def not_a_list(item: int) -> None: ...


@q.task(batch=10)  # error
def two_lists(items: list[int], others: list[int]) -> None: ...


@q.task(batch=10)  # error
def one_result(items: list[int]) -> int:
    return len(items)


q.task(batch="10")  # error
q.task(batch=10, linger="1")  # error
q.task(batch=10, transactional=True)  # error
q.task(batch=10, isolation="process")  # error


@q.task(batch=10)
def sizes(names: list[str]) -> list[int]:
    return [len(name) for name in names]


def wrong_items(session: Session) -> None:
    sizes.enqueue(session, 3)  # error
    sizes.enqueue(session, ["a"])  # error
    sizes.enqueue(session, "a", "b")  # error
    sizes.enqueue(session)  # error
    sizes.submit(3)  # error
    sizes.options(delay=1).job(3)  # error
    text: str = sizes.submit("a").result()  # error
    sizes(["a", 3])  # error
    sizes("a")  # error
    print(text)
