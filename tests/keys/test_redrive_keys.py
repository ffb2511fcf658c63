"""Every way back into life takes the job's key again, or leaves the job and says which one has it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from jobq import JobQ, operations
from jobq._worker.inline import drain
from jobq.filters import JobFilter
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]


@pytest.fixture
def q(database_url: str) -> JobQ:
    q = JobQ(database_url)

    @q.task(max_attempts=1)
    def sync(customer: int) -> None:
        raise RuntimeError

    return q


@pytest.fixture
def other(database_url: str) -> Iterator[Conn]:
    with closing(psycopg.connect(database_url)) as connection:
        yield connection


def once(q: JobQ, holds: Any = "until_finished", **options: Any) -> Any:
    return q.tasks["sync"].options(key="sync:7", key_holds=holds, **options)


def dead(q: JobQ, db: Conn, holds: Any = "until_finished", **options: Any) -> int:
    ref = once(q, holds, **options).enqueue(db, 7)
    assert ref.created
    drain(q, db)
    return int(ref.id)


def live(db: Conn) -> list[tuple[Any, ...]]:
    return db.execute("SELECT id, key, state FROM jobq.job ORDER BY id").fetchall()


def holders(db: Conn) -> list[tuple[Any, ...]]:
    return db.execute("SELECT key, job_id, holds FROM jobq.job_key ORDER BY key").fetchall()


@pytest.mark.parametrize("holds", ["until_finished", "until_started"])
def test_a_retry_takes_its_key_again(q: JobQ, db: Conn, holds: Any) -> None:
    first = dead(q, db, holds)
    assert holders(db) == []
    assert operations.retry(db, "jobq", [first], actor="ann").done == [first]
    assert holders(db) == [("sync:7", first, holds)]
    again = once(q, holds).enqueue(db, 7)
    assert (again.id, again.created) == (first, False)
    drain(q, db)
    assert holders(db) == []


@pytest.mark.parametrize("holds", ["until_finished", "until_started", "period"])
def test_a_key_that_another_job_has_is_left_to_it(q: JobQ, db: Conn, holds: Any) -> None:
    first = dead(q, db, holds)
    db.execute("DELETE FROM jobq.job_key")
    second = once(q, holds).enqueue(db, 7)
    assert second.created
    changed = operations.retry(db, "jobq", [first], actor="ann")
    assert changed == operations.Changed(refused={first: f"key 'sync:7' is held by job {second.id}"})
    assert live(db) == [(second.id, "sync:7", "ready")]
    assert db.execute("SELECT id FROM jobq.job_history").fetchall() == [(first,)]


def test_a_period_that_still_holds_is_kept_and_one_that_is_over_is_not_begun_again(q: JobQ, db: Conn) -> None:
    first = dead(q, db, "period", key_period=timedelta(days=2))
    before = db.execute("SELECT * FROM jobq.job_key").fetchall()
    assert operations.retry(db, "jobq", [first], actor="ann").done == [first]
    assert db.execute("SELECT * FROM jobq.job_key").fetchall() == before
    drain(q, db)
    db.execute("UPDATE jobq.job_key SET expires_at = now() - interval '1 s'")
    assert operations.retry(db, "jobq", [first], actor="ann").done == [first]
    assert once(q).enqueue(db, 7).created


def test_of_two_dead_jobs_with_one_key_one_wins(q: JobQ, db: Conn) -> None:
    first, second = dead(q, db), dead(q, db)
    changed = operations.retry(db, "jobq", [second, first], actor="ann")
    assert (changed.done, changed.refused) == ([first], {second: f"key 'sync:7' is held by job {first}"})
    assert live(db) == [(first, "sync:7", "ready")]
    assert holders(db) == [("sync:7", first, "until_finished")]


def test_a_key_that_is_being_taken_is_not_waited_for(q: JobQ, db: Conn, other: Conn) -> None:
    first = dead(q, db)
    once(q).enqueue(other, 7)
    changed = operations.retry(db, "jobq", [first], actor="ann")
    assert changed.refused == {first: "key 'sync:7' is being taken by another job at this moment: try again"}
    other.rollback()
    assert operations.retry(db, "jobq", [first], actor="ann").done == [first]


def test_in_a_bulk_operation(q: JobQ, db: Conn) -> None:
    first, second = dead(q, db), dead(q, db)
    third = int(q.tasks["sync"].options(key="sync:8", key_holds="until_finished").enqueue(db, 8).id)
    drain(q, db)
    holder = q.tasks["sync"].options(key="sync:8", key_holds="until_finished").enqueue(db, 8)
    drafted = operations.draft(db, "jobq", action="retry", filter=JobFilter.parse("state:failed"), actor="ann")
    operations.start(db, "jobq", drafted.id, actor="ann", reason="fixed")
    ended = operations.run_operation(db, "jobq", drafted.id)
    assert (ended.state, ended.done, ended.refused) == ("done", 1, 2)
    # Counted together, however many keys there are; each by itself in the batch.
    assert ended.refusals == {"its key is held by another job": 2}
    row = db.execute("SELECT refused FROM jobq.operation_batch WHERE operation_id = %s", [drafted.id]).fetchone()
    assert row is not None
    assert row[0] == {
        str(second): f"key 'sync:7' is held by job {first}",
        str(third): f"key 'sync:8' is held by job {holder.id}",
    }


def test_a_retry_by_many_operators_makes_one_job_of_one_key(q: JobQ, db: Conn, database_url: str) -> None:
    """Whatever meets: the key has one job, and the others are dead and told why."""
    ids = [dead(q, db) for _ in range(6)]
    done: list[int] = []
    refused: list[int] = []

    def operator(mine: list[int]) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            changed = operations.retry(connection, "jobq", mine, actor="ann")
            done.extend(changed.done)
            refused.extend(changed.refused)

    threads = [threading.Thread(target=operator, args=([one],)) for one in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    wait_until(lambda: len(done) + len(refused) == len(ids), what="the answers")
    assert len(done) == 1
    assert live(db) == [(done[0], "sync:7", "ready")]
    assert holders(db) == [("sync:7", done[0], "until_finished")]
