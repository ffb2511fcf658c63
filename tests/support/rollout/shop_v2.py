"""The application after the deployment: added parameters, a new task (`invoice`), and `remind` renamed to `notify`."""

from __future__ import annotations

import os
import time
from typing import Any

import psycopg

from jobq import JobQ, JobRef, current_job

q = JobQ()
_ledger = os.open(os.environ["SHOP_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
# What enqueue takes since revision 0010 of tests.support.installed.
_NOTE = ", note => 'from v2'" if os.environ.get("SHOP_NOTE") else ""


def work() -> str:
    """Note the start in one write, which a kill cannot halve, and take a moment."""
    os.write(_ledger, f"start {current_job().id} {time.time():.6f} v2\n".encode())
    time.sleep(0.02)
    return "v2"


@q.task
def send(order: int, copy_to: str = "") -> str:
    return work()


@q.task
def notify(order: int) -> str:
    return work()


@q.task(name="remind")
def remind(order: int) -> str:
    """Do what `notify` does, for jobs that were enqueued under its former name."""
    return notify(order)


@q.task
def invoice(order: int) -> str:
    return work()


@q.task(queue="lines", groups="ordered")
def ship(order: int, gift: bool = False) -> str:
    return work()


def place(connection: psycopg.Connection[Any], name: str, n: int) -> list[tuple[int, float]]:
    """Enqueue the jobs of transaction `n`, in each of the ways that there are; return their ids and delays."""
    refs: list[JobRef[Any]]
    line = f"g{n % 48}"
    match n % 6:
        case 0:
            refs = [send.enqueue(connection, n, copy_to="a@b")]
        case 1:
            jobs = [send.job(n), notify.job(n), ship.options(group=line).job(n, gift=True), invoice.job(n)]
            refs = q.enqueue_many(connection, jobs)
        case 2:
            refs = [notify.options(key=f"{name} {n}").enqueue(connection, n)]
        case 3:
            refs = q.enqueue_many(connection, [send.options(key=f"{name} {n}").job(n, copy_to="a@b"), invoice.job(n)])
        case 4:
            refs = [ship.options(group=line).enqueue(connection, n, gift=True)]
        case _:
            # As programs in other languages say it: parsed at each call.
            query = f"SELECT jobq.enqueue('invoice', jsonb_build_object('order', %s::int), delay => '0.2 s'{_NOTE})"
            [(job,)] = connection.execute(query.encode(), (n,), prepare=False).fetchall()
            return [(job, 0.2)]
    return [(ref.id, 0.0) for ref in refs if ref.id is not None]
