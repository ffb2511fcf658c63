"""Wrong steps: type checkers reject every line marked ``# error``, and no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from jobq import JobQ, JobRef, step

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


def called_wrongly() -> None:
    step.run(load)  # error
    step.run(load, "1")  # error
    step.run(load, 1, 2)  # error
    step.run(load, 1, stale=True)  # error
    step.run(load(1))  # error
    step.run("load", 1)  # error
    step.options(name="load").run(load, order_id="1")  # error
    step.options(transactional=True).run(load)  # error
    text: str = step.run(load, 1)  # error
    waited: Approval = step.run(load_async, 1)  # error
    print(text, waited)


async def called_wrongly_async() -> None:
    await step.run_async(load_async)  # error
    await step.run_async(load_async, "1")  # error
    await step.run_async(load_async(1))  # error
    step.run_async(load_async, 1)  # error
    step.sleep_async(60)  # error
    text: str = await step.run_async(load_async, 1)  # error
    not_awaited: Approval = step.run_async(load_async, 1)  # error
    await step.run(load, 1)  # error
    await step.sleep(60)  # error
    print(text, not_awaited)


def options() -> None:
    step.options(name=1)  # error
    step.options(max_attempts="3")  # error
    step.options(backoff="1s")  # error
    step.options(transactional="yes")  # error
    step.options(timeout=3)  # error
    step.options("load")  # error


def waits() -> None:
    step.sleep()  # error
    step.sleep("1 day")  # error
    step.wait_for("approval")  # error
    step.wait_for("approval", "Approval")  # error
    step.wait_for("approval", Approval("ada"))  # error
    step.wait_for(Approval, "approval")  # error
    step.wait_for("approval", Approval, 60)  # error
    step.wait_for("approval", Approval, timeout="1 day")  # error
    number: int = step.wait_for("approval", Approval)  # error
    approval: Approval = step.wait_for("approval", Approval, timeout=60)  # error
    print(step.wait_for("approval", Approval, timeout=60).by)  # error
    print(number, approval)


async def waits_async() -> None:
    print((await step.wait_for_async("approval", Approval, timeout=60)).by)  # error
    print(step.wait_for_async("approval", Approval).by)  # error
    number: int = await step.wait_for_async("approval", Approval)  # error
    print(number)


def children() -> None:
    step.invoke(charge)  # error
    step.invoke(charge, "1")  # error
    step.invoke(charge, 1, "CHF", True)  # error
    step.invoke(charge, 1, copies=2)  # error
    step.invoke(charge.job("1"))  # error
    step.invoke(charge.options(priority=1), "1")  # error
    step.invoke(load, 1)  # error
    step.invoke(charge(1))  # error
    number: int = step.invoke(charge, 1)  # error
    texts: list[str] = step.invoke(ship, 1)  # error
    print(number, texts)


async def children_async() -> None:
    await step.invoke_async(ship, "1")  # error
    number: int = await step.invoke_async(ship, 1)  # error
    print(number)


def gathered() -> None:
    step.gather(step.run(load, 1), step.run(load, 2))  # error
    step.gather(load, load)  # error
    first, second = step.gather(lambda: step.run(load, 1), lambda: 2)
    one: str = second  # error
    three, four = step.gather(lambda: 1, lambda: 2, lambda: 3)  # error
    print(first, one, three, four)


async def gathered_async() -> None:
    await step.gather_async(lambda: step.run_async(load_async, 1), step.sleep_async(1))  # error
    await step.gather_async(await step.run_async(load_async, 1), step.sleep_async(1))  # error
    first, second = await step.gather_async(step.run_async(load_async, 1), step.invoke_async(ship, 1))
    one: list[str] = second  # error
    print(first.with_by, one)  # error


def changed() -> None:
    step.since()  # error
    step.since(2)  # error
    if step.since("two signatures") == "yes":  # error
        return


def signals(
    session: Session, engine: Engine, later: AsyncSession, raw: psycopg.Connection[Any], job: JobRef[str]
) -> None:
    q.send_signal(job, "approval")  # error
    q.send_signal(engine, job, "approval")  # error
    q.send_signal(later, job, "approval")  # error
    q.send_signal(session, "17", "approval")  # error
    q.send_signal(raw, job, 17)  # error
    q.send_signal(raw, job, "approval", sent_by=17)  # error
    text: str = q.send_signal(raw, job, "approval")  # error
    print(text)
