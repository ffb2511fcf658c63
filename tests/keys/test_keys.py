"""Idempotency keys: one job while a key is held, under any concurrency, and the caller's transaction goes on."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from jobq import InvalidOption, JobIdUnknown, JobQ, KeyConflict, Task
from tests.support.checks import some
from tests.support.waiting import wait_until

LEVELS = [
    psycopg.IsolationLevel.READ_COMMITTED,
    psycopg.IsolationLevel.REPEATABLE_READ,
    psycopg.IsolationLevel.SERIALIZABLE,
]
SNAPSHOTS = LEVELS[1:]


def application(url: str) -> tuple[JobQ, Task[[int], None]]:
    q = JobQ(url)

    @q.task
    def send(order: int) -> None: ...

    return q, send


@pytest.fixture
def q(database_url: str) -> JobQ:
    return application(database_url)[0]


@pytest.fixture
def send(q: JobQ) -> Any:
    return q.tasks["send"]


@pytest.fixture
def other(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A second connection."""
    with psycopg.connect(database_url) as connection:
        yield connection


def jobs(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return connection.execute("SELECT id, key, args->'order' FROM jobq.job ORDER BY id").fetchall()


def keys(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return connection.execute("SELECT key, job_id FROM jobq.job_key ORDER BY key").fetchall()


# --- Sixteen at once -----------------------------------------------------------------------------------------------------

PROCESSES, KEYS = 16, 1000


def contend(url: str, number: int, barrier: Any, answers: Any) -> None:
    """Enqueue all keys in an order of its own, rolling some back first; tell which jobs it made and was given."""
    q, send = application(url)
    draw = random.Random(number)
    names = [f"key {n}" for n in range(KEYS)]
    draw.shuffle(names)
    made: list[str] = []
    given: dict[str, int | None] = {}

    def note(refs: list[Any]) -> None:
        made.extend(ref.key for ref in refs if ref.created)
        given.update((ref.key, ref._id) for ref in refs)

    with psycopg.connect(url) as connection:
        # Three of four read what is committed; the fourth keeps to a snapshot.
        connection.isolation_level = LEVELS[1] if number % 4 == 3 else LEVELS[0]
        barrier.wait()
        try:
            match number % 4:
                case 0:  # one bulk, first rolled back
                    batch = [send.options(key=name).job(number) for name in names]
                    q.enqueue_many(connection, batch)
                    connection.rollback()
                    note(q.enqueue_many(connection, batch))
                    connection.commit()
                case 1:  # one by one, each in its own transaction, a third of them rolled back first
                    for name in names:
                        if draw.random() < 0.3:
                            send.options(key=name).enqueue(connection, number)
                            connection.rollback()
                        note([send.options(key=name).enqueue(connection, number)])
                        connection.commit()
                case 2:  # one by one in a single transaction, sorted
                    note([send.options(key=name).enqueue(connection, number) for name in sorted(names)])
                    connection.commit()
                case 3:  # bulks of 50, every other one rolled back first
                    for start in range(0, KEYS, 50):
                        batch = [send.options(key=name).job(number) for name in names[start : start + 50]]
                        if start % 100:
                            q.enqueue_many(connection, batch)
                            connection.rollback()
                        note(q.enqueue_many(connection, batch))
                        connection.commit()
        except Exception as error:
            answers.put((number, repr(error), {}))
            return
    answers.put((number, made, given))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sixteen_processes_with_the_same_thousand_keys(database_url: str, conn: psycopg.Connection[Any]) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(PROCESSES), context.Queue()
    processes = [
        context.Process(target=contend, args=(database_url, n, barrier, answers), daemon=True) for n in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    told = [answers.get(timeout=240) for _ in processes]
    for process in processes:
        process.join()
    assert [answer for answer in told if isinstance(answer[1], str)] == []

    assert len(jobs(conn)) == KEYS
    held = dict(keys(conn))
    assert held == {key: job_id for job_id, key, _ in jobs(conn)}
    # Each key was made by exactly one, and all were given that job, or told that their snapshot cannot see it.
    assert sorted(key for _, made, _ in told for key in made) == sorted(held)
    for number, _, given in told:
        assert set(given) == set(held)
        assert {key for key, job_id in given.items() if job_id != held[key]} <= (
            {key for key, job_id in given.items() if job_id is None} if number % 4 == 3 else set()
        )
    row = conn.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row == (0,)


# --- What a held key does ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_a_held_key_returns_its_job(send: Any, conn: psycopg.Connection[Any], level: Any) -> None:
    conn.isolation_level = level
    first = send.options(key="k").enqueue(conn, 1)
    again = send.options(key="k", queue="other", delay=60).enqueue(conn, 2)
    assert (first.created, again.created, again.replaced) == (True, False, False)
    assert again.id == first.id
    conn.commit()
    assert send.options(key="k").enqueue(conn, 3).id == first.id
    assert jobs(conn) == [(first.id, "k", 1)]


@pytest.mark.parametrize("level", LEVELS)
def test_replace_gives_the_waiting_job_new_arguments(send: Any, conn: psycopg.Connection[Any], level: Any) -> None:
    conn.isolation_level = level
    debounced = send.options(key="k", on_conflict="replace", delay=60, headers={"n": 1})
    first = debounced.enqueue(conn, 1)
    conn.commit()
    at = datetime.now(UTC) + timedelta(hours=1)
    again = send.options(key="k", on_conflict="replace", run_at=at, headers={"n": 2}).enqueue(conn, 2)
    assert (again.id, again.created, again.replaced) == (first.id, False, True)
    assert conn.execute("SELECT args->'order', headers, run_at FROM jobq.job").fetchone() == (2, {"n": 2}, at)
    # One that is parked has not begun: see test_parked.py.
    for started in ("state = 'running', attempt = 1", "state = 'ready', attempt = 1", "state = 'parked', attempt = 1"):
        conn.execute(f"UPDATE jobq.job SET {started}")
        ref = debounced.enqueue(conn, 3)
        assert (ref.id, ref.created, ref.replaced) == (first.id, False, False)
    assert jobs(conn) == [(first.id, "k", 2)]


@pytest.mark.parametrize("level", LEVELS)
def test_raise_inserts_nothing_and_leaves_the_transaction_usable(
    q: JobQ, send: Any, conn: psycopg.Connection[Any], level: Any
) -> None:
    conn.isolation_level = level
    first = send.options(key="k").enqueue(conn, 1)
    before = jobs(conn), keys(conn)
    strict = send.options(key="k", on_conflict="raise")
    with pytest.raises(KeyConflict, match=f"key 'k' is held by job {first.id}; use on_conflict='return'") as raised:
        strict.enqueue(conn, 2)
    assert (raised.value.key, raised.value.job_id) == ("k", first.id)
    batch = [
        send.job(3),
        send.options(key="a", on_conflict="raise").job(4),
        strict.job(5),
        send.options(key="z").job(6),
    ]
    with pytest.raises(KeyConflict):
        q.enqueue_many(conn, batch)
    assert (jobs(conn), keys(conn)) == before
    assert send.options(key="a", on_conflict="raise").enqueue(conn, 7).created
    conn.commit()


def test_the_same_key_twice_in_a_call(q: JobQ, send: Any, conn: psycopg.Connection[Any]) -> None:
    first, other, again = q.enqueue_many(conn, [send.options(key=key).job(n) for n, key in enumerate(("k", "l", "k"))])
    assert (first.created, other.created, again.created) == (True, True, False)
    assert first.id == again.id != other.id
    assert jobs(conn) == [(first.id, "k", 0), (other.id, "l", 1)]
    conn.rollback()

    first, again, last = q.enqueue_many(conn, [send.options(key="k", on_conflict="replace").job(n) for n in range(3)])
    assert [ref.replaced for ref in (first, again, last)] == [False, True, True]
    assert first.id == again.id == last.id
    assert jobs(conn) == [(first.id, "k", 2)]
    conn.rollback()

    with pytest.raises(KeyConflict, match="another job of this call"):
        q.enqueue_many(conn, [send.options(key="k", on_conflict="raise").job(n) for n in range(2)])
    assert (jobs(conn), keys(conn)) == ([], [])


def test_replacing_a_job_that_was_replaced_in_the_same_call(q: JobQ, send: Any, conn: psycopg.Connection[Any]) -> None:
    debounced = send.options(key="k", on_conflict="replace")
    first = debounced.enqueue(conn, 1)
    refs = q.enqueue_many(conn, [debounced.job(2), send.options(key="l").job(3), debounced.job(4)])
    assert [(ref.created, ref.replaced) for ref in refs] == [(False, True), (True, False), (False, True)]
    assert jobs(conn)[0] == (first.id, "k", 4)


def test_raise_and_replace_do_not_mix(q: JobQ, send: Any, conn: psycopg.Connection[Any]) -> None:
    batch = [send.options(key="a", on_conflict=policy).job(1) for policy in ("raise", "replace")]
    with pytest.raises(InvalidOption, match="make two calls"):
        q.enqueue_many(conn, batch)


def test_schemas_of_keys_are_as_given(q: JobQ, send: Any, conn: psycopg.Connection[Any]) -> None:
    """Keys are text, compared exactly, whatever is in them and however long."""
    names = ["k", "K", " k", "k ", "ü", "u\u0308", "%", "'; --", "🙂" * 500, "x" * 500]
    refs = q.enqueue_many(conn, [send.options(key=name).job(n) for n, name in enumerate(names)])
    assert all(ref.created for ref in some(refs))
    assert [(key, n) for _, key, n in jobs(conn)] == [(name, n) for n, name in enumerate(names)]


# --- How long a key holds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_a_period_ends(send: Any, conn: psycopg.Connection[Any], level: Any) -> None:
    conn.isolation_level = level
    brief = send.options(key="k", key_period=timedelta(hours=1))
    first = brief.enqueue(conn, 1)
    conn.commit()
    assert not brief.enqueue(conn, 1).created
    (until,) = conn.execute(
        "SELECT extract(epoch FROM expires_at - created_at)::float FROM jobq.job_key"
    ).fetchone() or (0,)
    assert 3600 <= until < 3700
    conn.execute("UPDATE jobq.job_key SET expires_at = clock_timestamp()")
    conn.commit()
    second = brief.enqueue(conn, 2)
    assert second.created
    assert second.id != first.id
    assert keys(conn) == [("k", second.id)]
    assert brief.enqueue(conn, 3).id == second.id
    conn.commit()


def test_a_short_period_ends_by_itself(send: Any, conn: psycopg.Connection[Any]) -> None:
    brief = send.options(key="k", key_period=0.001)
    first = brief.enqueue(conn, 1)
    wait_until(lambda: brief.enqueue(conn, 1).id > first.id, what="the key to expire")


@pytest.mark.parametrize("holds", ["until_finished", "until_started"])
def test_a_key_without_a_period_holds_until_the_worker_lets_go(
    send: Any, conn: psycopg.Connection[Any], holds: str
) -> None:
    held = send.options(key="k", key_holds=holds)
    first = held.enqueue(conn, 1)
    assert conn.execute("SELECT holds, expires_at FROM jobq.job_key").fetchone() == (holds, None)
    assert held.enqueue(conn, 2).id == first.id
    conn.execute("DELETE FROM jobq.job_key WHERE key = 'k'")
    assert held.enqueue(conn, 3).created


# --- Beside other transactions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", SNAPSHOTS)
def test_a_holder_beyond_the_snapshot(
    q: JobQ, send: Any, conn: psycopg.Connection[Any], other: psycopg.Connection[Any], level: Any
) -> None:
    conn.isolation_level = level
    conn.execute("SELECT FROM jobq.job")
    first = send.options(key="k").enqueue(other, 1)
    other.commit()

    ref = send.options(key="k").enqueue(conn, 2)
    assert not ref.created
    with pytest.raises(JobIdUnknown, match="key 'k' is held by a job that this transaction's snapshot cannot see"):
        _ = ref.id
    replaced = send.options(key="k", on_conflict="replace").enqueue(conn, 2)
    assert (replaced.created, replaced.replaced) == (False, False)
    with pytest.raises(KeyConflict) as raised:
        q.enqueue_many(conn, [send.options(key="k", on_conflict="raise").job(2), send.options(key="a").job(3)])
    assert raised.value.job_id is None

    kept = send.options(key="mine").enqueue(conn, 4)
    conn.commit()
    assert send.options(key="k").enqueue(conn, 5).id == first.id
    assert [row[0] for row in jobs(conn)] == [first.id, kept.id]


@pytest.mark.parametrize("level", SNAPSHOTS)
def test_a_holder_that_another_has_changed_since_the_snapshot(
    send: Any, conn: psycopg.Connection[Any], other: psycopg.Connection[Any], level: Any
) -> None:
    expired = send.options(key="expired", key_period=0.001).enqueue(other, 1)
    started = send.options(key="started").enqueue(other, 1)
    other.commit()
    conn.isolation_level = level
    conn.execute("SELECT FROM jobq.job")
    wait_until(lambda: send.options(key="expired").enqueue(other, 2).id != expired.id, what="the key to expire")
    other.execute("UPDATE jobq.job SET state = 'running' WHERE id = %s", [started.id])
    other.commit()

    ref = send.options(key="expired").enqueue(conn, 3)
    assert not ref.created
    with pytest.raises(JobIdUnknown):
        _ = ref.id
    replaced = send.options(key="started", on_conflict="replace").enqueue(conn, 3)
    assert (replaced.id, replaced.replaced) == (started.id, False)
    conn.commit()


@pytest.mark.parametrize("commit", [True, False])
def test_a_holder_that_has_not_committed_is_waited_for(
    send: Any, conn: psycopg.Connection[Any], other: psycopg.Connection[Any], server: Any, commit: bool
) -> None:
    first = send.options(key="k").enqueue(other, 1)
    pid = conn.info.backend_pid
    with ThreadPoolExecutor(1) as pool, server.admin() as admin:
        waiting = pool.submit(lambda: send.options(key="k").enqueue(conn, 2))
        wait_until(
            lambda: admin.execute("SELECT cardinality(pg_blocking_pids(%s))", [pid]).fetchone() == (1,),
            what="the second to wait for the first",
        )
        if commit:
            other.commit()
        else:
            other.rollback()
        ref = waiting.result()
    assert ref.created is not commit
    assert (ref.id == first.id) is commit


@pytest.mark.parametrize("policy", ["return", "raise"])
def test_a_conflict_locks_nothing_of_the_holder(
    send: Any, conn: psycopg.Connection[Any], other: psycopg.Connection[Any], policy: Any
) -> None:
    """A worker can finish the holder's job and let its key go, while a caller that met it holds his transaction open."""
    send.options(key="k", key_holds="until_finished").enqueue(conn, 1)
    conn.commit()
    try:
        send.options(key="k", on_conflict=policy).enqueue(conn, 2)
    except KeyConflict:
        assert policy == "raise"
    other.execute("SET lock_timeout = '1s'")
    other.execute("DELETE FROM jobq.job_key")
    other.execute("DELETE FROM jobq.job")
    other.commit()


def test_enqueue_in_sql(conn: psycopg.Connection[Any]) -> None:
    def enqueue(arguments: str) -> Any:
        return (conn.execute(f"SELECT jobq.enqueue({arguments})").fetchone() or (None,))[0]

    first = enqueue("""'send', '{"order": 1}', key => 'k', queue => 'a', priority => 9, delay => '1 hour'""")
    row = conn.execute(
        "SELECT task, args, queue, priority, key, run_at > now() + '59 minutes' FROM jobq.job WHERE id = %s", [first]
    ).fetchone()
    assert row == ("send", {"order": 1}, "a", 9, "k", True)
    assert enqueue("""'send', '{"order": 2}', key => 'k'""") == first
    assert enqueue("""'send', '{"order": 3}', key => 'k', on_conflict => 'replace'""") == first
    assert enqueue("'send'") > first
    for arguments, said in (
        ("'send', key => 'k', on_conflict => 'raise'", "is held by job"),
        ("'send', on_conflict => 'ignore'", "give return, replace or raise"),
        ("'send', delay => '-1 second'", "give an interval of 0 or more"),
        ("'send', delay => '1 second', run_at => now()", "give run_at or delay, not both"),
        ("'send', '[1]'", "job_args_check"),
        ("'send', priority => 12", "job_priority_check"),
        ("'send', key => ''", "job_key_key_check"),
    ):
        with pytest.raises(psycopg.Error, match=said), conn.transaction():
            enqueue(arguments)
