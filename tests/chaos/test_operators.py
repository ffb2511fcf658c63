"""Operators in the same moment as the workers: cancellations against retries, moves against claims, calls that replace."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg

from jobq import operations
from tests.chaos.scene.app import latest
from tests.chaos.scene.harness import Arena
from tests.chaos.scene.history import Limits
from tests.support.waiting import wait_until

Connection = psycopg.Connection[dict[str, Any]]


def beside(arena: Arena, *steps: Callable[[Connection], None], seconds: float) -> None:
    """Call each of `steps` again and again, in a thread and on a connection of its own, for so long; raise what one raised."""
    errors: list[BaseException] = []
    end = time.monotonic() + seconds

    def go_on(step: Callable[[Connection], None]) -> None:
        try:
            with arena.connect() as connection:
                while time.monotonic() < end and not errors:
                    step(connection)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=go_on, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_cancels_against_retries(arena: Arena) -> None:
    """Jobs that fail and snooze all the while are cancelled at random: each ends, and none stays `running` by itself."""
    for _ in range(2):
        arena.start_worker("--concurrency", "48", "--processes", "1")
    rounds = 0
    cancelled: set[int] = set()

    def place(_: Connection) -> None:
        nonlocal rounds
        if len(arena.waiting_jobs()) < 120:
            rounds += 1
            arena.place(f"again-{rounds}", [["snooze:0.01"]] * 60, max_attempts=1000)
        time.sleep(0.05)

    def cancel(connection: Connection) -> None:
        query = (
            "SELECT id FROM jobq.job WHERE state = 'running' AND cancel_requested_at IS NULL ORDER BY random() LIMIT 1"
        )
        for row in connection.execute(query.encode()).fetchall():
            if row["id"] not in cancelled:
                cancelled.add(row["id"])
                arena.ledger.write("cancel", job=row["id"])
            operations.cancel(connection, "jobq", [row["id"]], actor="chaos")

    beside(arena, place, cancel, cancel, seconds=60 if arena.long else 7)

    def are_cancelled() -> bool:
        # A job that changes hands in that moment is refused, and the operator asks again.
        arena.cancel_some(1000)
        return not arena.waiting_jobs()

    wait_until(are_cancelled, timeout=60, what="the end of all jobs")
    arena.finish(timeout=60, limits=Limits(blameless=True))


def test_moves_against_claims(arena: Arena) -> None:
    """Waiting jobs are moved to and fro between queues with rules of their own: no limit is exceeded, and none is lost."""
    with arena.connect() as connection:
        operations.configure(connection, "jobq", "a", groups="fair", actor="chaos")
        operations.configure(connection, "jobq", "b", groups="ordered", limit=1, actor="chaos")
    for _ in range(2):
        arena.start_worker("--concurrency", "8", "--processes", "1")
    chooser = random.Random(arena.seed)
    rounds = most = 0

    def place(_: Connection) -> None:
        nonlocal rounds
        if len(arena.waiting_jobs()) < 100:
            rounds += 1
            for queue in ("a", "b"):
                plans = [["sleep:0.01"]] * 20
                arena.place(f"{queue}-{rounds}", plans, queue=queue, group=f"g{rounds % 5}")
        time.sleep(0.05)

    def move(connection: Connection) -> None:
        # The heads of their groups, mostly: those that are claimed next.
        query = "SELECT id, queue FROM jobq.job WHERE state IN ('waiting', 'ready') ORDER BY run_at, id LIMIT 12"
        rows = connection.execute(query.encode()).fetchall()
        for row in chooser.sample(rows, min(6, len(rows))):
            target = "b" if row["queue"] == "a" else "a"
            operations.move(connection, "jobq", [row["id"]], queue=target, actor="chaos")

    def look(connection: Connection) -> None:
        nonlocal most
        query = "SELECT count(*) FROM jobq.job WHERE state = 'running' AND queue = 'b'"
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        most = max(most, row["count"])

    beside(arena, place, move, move, look, seconds=60 if arena.long else 6)
    arena.finish(timeout=60, limits=Limits(blameless=True))
    assert most == 1, f"{most} jobs of a queue with the limit 1 ran at once"


def test_calls_that_replace_what_waits(arena: Arena) -> None:
    """Debounce: each key's calls come as its job is about to be claimed. The last version of each runs."""
    for _ in range(2):
        arena.start_worker("--concurrency", "8", "--processes", "1")

    def caller(name: str) -> Callable[[Connection], None]:
        chooser = random.Random(f"{arena.seed} {name}")
        numbers = dict.fromkeys((f"{name}-{n}" for n in range(10)), 0)

        def call(connection: Connection) -> None:
            key = chooser.choice(list(numbers))
            numbers[key] += 1
            task = latest.options(
                key=key, key_holds="until_started", on_conflict="replace", delay=chooser.uniform(0.0, 0.05)
            )
            ref = task.enqueue(connection, key, numbers[key])
            arena.ledger.write(
                "called", key=key, version=numbers[key], created=ref.created, replaced=ref.replaced, job=ref.id
            )
            time.sleep(chooser.uniform(0.0, 0.003))

        return call

    beside(arena, *(caller(f"caller{n}") for n in range(3)), seconds=60 if arena.long else 5)
    arena.finish(timeout=60, limits=Limits(blameless=True))
