"""The application before the deployment. It runs as `shop`, where only an installed jobq can be imported."""

from __future__ import annotations

import os
import time
from typing import Any

import psycopg

from jobq import JobQ, JobRef, current_job

q = JobQ()
_ledger = os.open(os.environ["SHOP_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)


def work() -> str:
    """Note the start in one write, which a kill cannot halve, and take a moment."""
    os.write(_ledger, f"start {current_job().id} {time.time():.6f} v1\n".encode())
    time.sleep(0.02)
    return "v1"


@q.task
def send(order: int) -> str:
    return work()


@q.task
def remind(order: int) -> str:
    return work()


@q.task(queue="lines", groups="ordered")
def ship(order: int) -> str:
    return work()


def place(connection: psycopg.Connection[Any], name: str, n: int) -> list[tuple[int, float]]:
    """Enqueue the jobs of transaction `n`, in each of the ways that there are; return their ids and delays."""
    refs: list[JobRef[Any]]
    match n % 6:
        case 0:
            refs = [send.enqueue(connection, n)]
        case 1:
            refs = q.enqueue_many(connection, [send.job(n), remind.job(n), ship.options(group=f"g{n % 48}").job(n)])
        case 2:
            refs = [remind.options(key=f"{name} {n}").enqueue(connection, n)]
        case 3:
            refs = q.enqueue_many(connection, [send.options(key=f"{name} {n}").job(n), remind.job(n)])
        case 4:
            refs = [ship.options(group=f"g{n % 48}").enqueue(connection, n)]
        case _:
            # As programs in other languages say it: parsed at each call.
            query = "SELECT jobq.enqueue('send', jsonb_build_object('order', %s::int), delay => '0.2 s')"
            [(job,)] = connection.execute(query, (n,), prepare=False).fetchall()
            return [(job, 0.2)]
    return [(ref.id, 0.0) for ref in refs if ref.id is not None]
