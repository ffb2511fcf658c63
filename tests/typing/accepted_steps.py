"""Right steps: type checkers accept every line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, assert_type

import psycopg
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import Session

from jobq import Backoff, JobQ, JobRef, WorkflowRun, current_job, step

q = JobQ()


@dataclass
class Approval:
    by: str


@q.task
def charge(order_id: int, currency: str = "CHF", *, retry: bool = False) -> str:
    return currency


@q.task
async def ship(order_id: int) -> list[int]:
    return [order_id]


def load(order_id: int, *, fresh: bool = False) -> Approval:
    return Approval(str(order_id))


async def load_async(order_id: int, *, fresh: bool = False) -> Approval:
    return Approval(str(order_id))


def approve(order_id: int) -> Approval:
    return step.run(load, order_id)


def nothing() -> None: ...


class Client:
    def get(self, path: str) -> bytes:
        return path.encode()

    async def post(self, path: str) -> int:
        return 200


paid_once = step.options(name="pay", transactional=True)
patient = step.options(max_attempts=5, backoff=Backoff(base=2, cap=60))
listed = step.options(max_attempts=3, backoff=[1, timedelta(minutes=1)])


@q.task(durable=True)
def order(order_id: int) -> str:
    assert_type(step.run(load, order_id), Approval)
    assert_type(step.run(load, order_id, fresh=True), Approval)
    assert_type(step.run(partial(load, order_id)), Approval)
    assert_type(step.run(Client().get, "/"), bytes)
    assert_type(step.options(name="sum").run(lambda: 1 + 1), int)
    assert_type(patient.run(load, order_id), Approval)
    assert_type(paid_once.run(load, order_id=1), Approval)
    assert_type(listed.run(load, order_id), Approval)
    assert_type(step.run(charge, order_id), str)
    step.run(nothing)
    step.sleep(60)
    step.sleep(timedelta(days=30), name="a month")
    assert_type(step.wait_for("approval", Approval), Approval)
    assert_type(step.wait_for("approvals", list[Approval]), list[Approval])
    assert_type(step.wait_for("approval", Approval, timeout=timedelta(days=3)), Approval | None)
    assert_type(step.wait_for("go", type(None)), None)
    assert_type(step.invoke(charge, order_id, "EUR", retry=True), str)
    assert_type(step.invoke(ship, order_id), list[int])
    assert_type(step.invoke(charge.options(queue="slow", priority=9), order_id), str)
    assert_type(step.invoke(charge.job(order_id)), Any)
    assert_type(step.since("a line"), bool)
    assert_type(
        step.gather(lambda: step.run(load, 1), lambda: step.invoke(charge, 1)),
        tuple[Approval, str],
    )
    a, b, c = step.gather(lambda: 1, lambda: "b", lambda: step.wait_for("c", Approval))
    assert_type((a, b, c), tuple[int, str, Approval])
    assert_type(step.gather(*[partial(approve, number) for number in range(3)]), tuple[Approval, ...])
    approval = step.wait_for("approval", Approval, timeout=60)
    return "nobody" if approval is None else approval.by


@q.task(durable=True)
async def order_async(order_id: int) -> str:
    assert_type(await step.run_async(load_async, order_id), Approval)
    assert_type(await step.run_async(load, order_id, fresh=True), Approval)
    assert_type(await step.run_async(Client().post, "/"), int)
    assert_type(await patient.run_async(load_async, order_id=1), Approval)
    assert_type(await step.run_async(ship, order_id), list[int])
    await step.sleep_async(timedelta(days=30))
    assert_type(await step.wait_for_async("approval", Approval), Approval)
    assert_type(await step.wait_for_async("approval", Approval, timeout=60), Approval | None)
    assert_type(await step.invoke_async(ship, order_id), list[int])
    assert_type(await step.invoke_async(charge.options(priority=1), order_id, retry=True), str)
    assert_type(await step.invoke_async(ship.job(order_id)), Any)
    assert_type(await step.since_async("a line"), bool)
    assert_type(
        await step.gather_async(step.run_async(load_async, 1), step.invoke_async(ship, 1)),
        tuple[Approval, list[int]],
    )
    assert_type(
        await step.gather_async(*(step.invoke_async(charge, number) for number in range(3))),
        tuple[str, ...],
    )
    return "done"


def insert_order() -> int:
    current_job().session.flush()
    current_job().connection.execute("SELECT 1")
    return 1


def signals(connection: psycopg.Connection[Any], session: Session, run: WorkflowRun[int], job: JobRef[str]) -> None:
    assert_type(q.send_signal(connection, job, "approval", Approval("ada"), sent_by="ada"), int)
    q.send_signal(session, run, "approval", {"by": "ada"})
    q.send_signal(None, 17, "go")


async def signals_async(connection: AsyncConnection, job: JobRef[str]) -> None:
    assert_type(await q.send_signal_async(connection, job, "approval", Approval("ada")), int)
    await q.send_signal_async(None, job.id, "go")
