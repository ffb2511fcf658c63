"""Operators at work in the same moment as the workers: cancellations against retries, moves against claims, calls that replace."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import psycopg

from jobq import operations
from tests.chaos.app import latest
from tests.chaos.harness import Arena
from tests.chaos.history import Limits


def beside(*steps: Callable[[], None], seconds: float) -> None:
    """Call each of `steps` again and again, in a thread of its own, for so long; raise what one raised."""
    errors: list[BaseException] = []
    end = time.monotonic() + seconds

    def go_on(step: Callable[[], None]) -> None:
        try:
            while time.monotonic() < end and not errors:
                step()
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
        arena.start_worker("--concurrency", "16", "--processes", "1")
    rounds = 0
    cancelled: set[int] = set()

    def place() -> None:
        nonlocal rounds
        if len(arena.waiting_jobs()) < 60:
            rounds += 1
            arena.place(f"again-{rounds}", [["snooze:0.01"]] * 40, max_attempts=1000)
        time.sleep(0.05)

    def cancel() -> None:
        with arena.connect() as connection:
            query = "SELECT id FROM jobq.job WHERE state = 'running' AND cancel_requested_at IS NULL ORDER BY random() LIMIT 3"
            ids = [row["id"] for row in connection.execute(query.encode())]
            for job in set(ids) - cancelled:
                cancelled.add(job)
                arena.ledger.write("cancel", job=job)
            operations.cancel(connection, "jobq", ids, actor="chaos")

    beside(place, cancel, cancel, seconds=60 if arena.long else 7)
    arena.cancel_some(10_000)
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

    def place() -> None:
        nonlocal rounds
        if len(arena.waiting_jobs()) < 100:
            rounds += 1
            for queue in ("a", "b"):
                plans = [["sleep:0.01"]] * 20
                arena.place(f"{queue}-{rounds}", plans, queue=queue, group=f"g{rounds % 5}")
        time.sleep(0.05)

    def move() -> None:
        with arena.connect() as connection:
            query = "SELECT id, queue FROM jobq.job WHERE state IN ('waiting', 'ready') ORDER BY run_at, id LIMIT 12"
            rows = connection.execute(query.encode()).fetchall()
            for row in chooser.sample(rows, min(6, len(rows))):
                target = "b" if row["queue"] == "a" else "a"
                operations.move(connection, "jobq", [row["id"]], queue=target, actor="chaos")

    def look() -> None:
        nonlocal most
        with arena.connect() as connection:
            for _ in range(100):
                query = "SELECT count(*) FROM jobq.job WHERE state = 'running' AND queue = 'b'"
                row = connection.execute(query.encode()).fetchone()
                assert row is not None
                most = max(most, row["count"])

    beside(place, move, look, seconds=60 if arena.long else 6)
    arena.finish(timeout=60, limits=Limits(blameless=True))
    assert most == 1, f"{most} jobs of a queue with the limit 1 ran at once"


def test_calls_that_replace_what_waits(arena: Arena) -> None:
    """Debounce: each key's calls come as its job is about to be claimed. The last version of each runs."""
    for _ in range(2):
        arena.start_worker("--concurrency", "8", "--processes", "1")

    def caller(name: str) -> Callable[[], None]:
        chooser = random.Random(f"{arena.seed} {name}")
        numbers = dict.fromkeys((f"{name}-{n}" for n in range(10)), 0)
        connection = psycopg.connect(arena.url, autocommit=True, application_name="chaos")

        def call() -> None:
            key = chooser.choice(list(numbers))
            numbers[key] += 1
            task = latest.options(
                key=key, key_holds="until_started", on_conflict="replace", delay=chooser.uniform(0.0, 0.05)
            )
            ref = task.enqueue(connection, key, numbers[key])
            arena.ledger.write(
                "called", key=key, version=numbers[key], created=ref.created, replaced=ref.replaced, job=ref.id
            )
            time.sleep(chooser.uniform(0.0, 0.004))

        return call

    beside(*(caller(f"caller{n}") for n in range(3)), seconds=60 if arena.long else 5)
    arena.finish(timeout=60, limits=Limits(blameless=True))
