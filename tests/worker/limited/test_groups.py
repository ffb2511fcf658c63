"""Groups, limits and rates as the database keeps them: claims of a limited queue, one after the other and at once."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import namedtuple_row, tuple_row

from jobq import JobQ, migrate, operations
from jobq._postgres.sql import statement
from jobq._worker.inline import drain
from jobq._worker.ipc.messages import Disposition, Failure, Success
from jobq._worker.lanes.cursor import NOWHERE
from jobq._worker.statements.parameters import advance_parameters, settle_parameters
from tests.support.checks import some
from tests.support.rows import ALL_GROUPS
from tests.support.waiting import wait_until

q = JobQ()


@q.task(queue="mail")
def send(n: int = 0) -> None: ...


Conn = psycopg.Connection[Any]


@pytest.fixture
def db(database_url: str) -> Iterator[Conn]:
    with psycopg.connect(database_url, autocommit=True, row_factory=namedtuple_row) as connection:
        yield connection


def rule(db: Conn, queue: str = "mail", **columns: Any) -> None:
    """Set what a queue has, as `configure` does."""
    names = ", ".join(columns)
    db.execute(
        f"INSERT INTO jobq.queue (name, {names}) VALUES (%s{', %s' * len(columns)}) ON CONFLICT (name) DO UPDATE SET "
        + ", ".join(f"{name} = excluded.{name}" for name in columns),
        (queue, *columns.values()),
    )


def put(db: Conn, *groups: str | None, **options: Any) -> list[int]:
    """Enqueue a job for each of `groups`, in this order, and return their ids."""
    jobs = [send.options(group=group, **options).job(n) for n, group in enumerate(groups)]
    return [ref.id for ref in q.enqueue_many(db, jobs)]


def claim(db: Conn, want: int = 100, *, queue: str = "mail", worker: UUID | None = None) -> list[int]:
    return [row.id for row in claimed(db, want, queue=queue, worker=worker)[0]]


def claimed(db: Conn, want: int = 100, *, queue: str = "mail", worker: UUID | None = None) -> tuple[list[Any], Any]:
    """Claim, and return the jobs, and the last row: what is to be said of the next claim."""
    query = "SELECT * FROM jobq.claim_limited(%s, %s, %s)"

    def rows() -> list[Any] | None:
        found = db.execute(query, (worker or WORKER, queue, want)).fetchall()
        return None if found[-1].task == "locked" else found

    *jobs, last = wait_until(rows, what="the queue's lock") or []
    return sorted(jobs), last


WORKER = uuid4()
NAMES = "SELECT id, claims, (extract(epoch FROM started_at) * 1000000)::bigint FROM jobq.job WHERE id = ANY(%s)"


def succeed(db: Conn, *ids: int, worker: UUID = WORKER) -> None:
    names = {row[0]: row for row in db.execute(NAMES, (list(ids),)).fetchall()}
    done = [Success(id_, names[id_][1], names[id_][2], b"null", 0.001) for id_ in ids]
    with db.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(statement("ack_and_claim", "jobq").query, advance_parameters(worker, done, NOWHERE, 0))
        assert (cursor.fetchone() or (None,))[0] == len(ids)


def set_back(db: Conn, id_: int, ending: Disposition, delay: float = 0.0, *, worker: UUID = WORKER) -> None:
    [(_, claims, started)] = db.execute(NAMES, ([id_],)).fetchall()
    back = Failure(id_, claims, started, ending, delay=delay, recorded="error", error_type="E", message="e")
    settle, parameters = statement("record_failures", "jobq").query, settle_parameters(worker, [back])
    # A row that another transaction has locked is passed over, as by a worker, which tries again.
    [row] = wait_until(lambda: db.execute(settle, parameters).fetchall(), what="the job's row")
    assert tuple(row)[:2] == (1, True)


def states(db: Conn) -> dict[int, str]:
    return dict(db.execute("SELECT id, state FROM jobq.job ORDER BY id").fetchall())


def turns(db: Conn) -> Counter[str]:
    return Counter(row.group_key for row in db.execute("SELECT group_key FROM jobq.group_ready").fetchall())


# --- entering ----------------------------------------------------------------------------------------------------------


def test_a_group_is_only_a_name_where_the_queue_has_no_rule(db: Conn) -> None:
    put(db, "a", "a", None)
    assert set(states(db).values()) == {"ready"}
    assert turns(db) == {}


def test_jobs_with_a_group_wait_for_its_turn(db: Conn) -> None:
    rule(db, group_mode="ordered")
    put(db, "a", "a", None, "b")
    assert list(states(db).values()) == ["waiting", "waiting", "ready", "waiting"]
    assert turns(db) == {"a": 1, "b": 1}


def test_every_way_in_gives_a_turn(db: Conn) -> None:
    rule(db, group_mode="fair")
    db.execute("SELECT jobq.enqueue('t', queue => 'mail', group_key => 'sql')")
    db.execute("INSERT INTO jobq.job (task, queue, group_key) VALUES ('t', 'mail', 'plain')")
    send.options(group="keyed", key="k").enqueue(db)
    q.enqueue_many(db, [send.options(group="many", key=str(n)).job() for n in range(3)])
    send.options(group="one").enqueue(db)
    assert turns(db) == {"sql": 1, "plain": 1, "keyed": 1, "many": 1, "one": 1}
    assert set(states(db).values()) == {"waiting"}


def test_a_rolled_back_savepoint_takes_its_turn_with_it_and_the_next_job_gets_one(database_url: str, db: Conn) -> None:
    rule(db, group_mode="ordered")
    with psycopg.connect(database_url) as connection:
        with connection.transaction(), connection.transaction(force_rollback=True):
            send.options(group="a").enqueue(connection)
        (kept,) = put(connection, "a")
    assert claim(db) == [kept]


@pytest.mark.parametrize("group", ["", "x" * 201])
def test_a_group_of_no_length_is_refused_by_the_database_too(db: Conn, group: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="give 1 to 200 characters"):
        db.execute("INSERT INTO jobq.job (task, group_key) VALUES ('t', %s)", (group,))


# --- order -------------------------------------------------------------------------------------------------------------


def test_an_ordered_group_runs_one_at_a_time_in_order(db: Conn) -> None:
    rule(db, group_mode="ordered")
    a1, a2, b1, a3 = put(db, "a", "a", "b", "a")
    assert claim(db) == [a1, b1]
    assert claim(db) == []
    succeed(db, a1)
    assert claim(db) == [a2]
    succeed(db, a2, b1)
    assert claim(db) == [a3]


def test_priority_does_not_break_the_order_of_a_group(db: Conn) -> None:
    rule(db, group_mode="ordered")
    (low,) = put(db, "a", priority=0)
    (high,) = put(db, "a", priority=9)
    assert claim(db) == [low]
    succeed(db, low)
    assert claim(db) == [high]


def test_a_retrying_head_holds_its_group_back(db: Conn) -> None:
    rule(db, group_mode="ordered")
    first, second = put(db, "a", "a")
    assert claim(db) == [first]
    set_back(db, first, Disposition.RETRY, delay=3600)
    assert states(db) == {first: "waiting", second: "waiting"}
    jobs, last = claimed(db)
    assert jobs == []
    # Nothing before its time, however many jobs come.
    assert 3500 < last.timeout <= 3600
    (third,) = put(db, "a")
    assert claim(db) == []
    operations.retry(db, "jobq", [first], actor="test")
    assert claim(db) == [first]
    succeed(db, first)
    assert claim(db) == [second]
    succeed(db, second)
    assert claim(db) == [third]


def test_a_retrying_head_is_passed_over_where_that_is_wanted(db: Conn) -> None:
    rule(db, group_mode="ordered", group_retry="pass")
    first, second, third = put(db, "a", "a", "a")
    assert claim(db) == [first]
    set_back(db, first, Disposition.RETRY, delay=3600)
    assert claim(db) == [second]
    operations.retry(db, "jobq", [first], actor="test")
    assert claim(db) == []
    succeed(db, second)
    # It is the oldest again.
    assert claim(db) == [first]
    succeed(db, first)
    assert claim(db) == [third]


@pytest.mark.parametrize("way", ["cancel", "delete", "fail"])
def test_a_head_that_leaves_lets_the_next_one_go(db: Conn, way: str) -> None:
    rule(db, group_mode="ordered")
    first, second = put(db, "a", "a")
    assert claim(db) == [first]
    if way == "fail":
        set_back(db, first, Disposition.FAIL)
    else:
        set_back(db, first, Disposition.RETRY, delay=3600)
        assert claim(db) == []
        getattr(operations, way)(db, "jobq", [first], actor="test")
    assert claim(db) == [second]


def test_a_head_that_somebody_has_locked_is_not_overtaken(db: Conn, database_url: str) -> None:
    rule(db, group_mode="ordered")
    first, second = put(db, "a", "a")
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (first,))
        jobs, last = claimed(db)
        assert jobs == []
        assert 0 < last.timeout <= 0.25
    wait_until(lambda: claim(db) == [first], what="the head")
    succeed(db, first)
    assert claim(db) == [second]


def test_jobs_that_came_before_the_rule_keep_their_place(db: Conn) -> None:
    early = put(db, "a", "a")
    rule(db, group_mode="ordered")
    (late,) = put(db, "a")
    order = []
    for _ in range(3):
        (one,) = claim(db)
        order.append(one)
        succeed(db, one)
    assert order == [*early, late]


def test_a_rule_that_is_taken_away_lets_all_go(db: Conn) -> None:
    rule(db, group_mode="ordered")
    ids = put(db, "a", "a", "b")
    assert claim(db) == [ids[0], ids[2]]
    rule(db, group_mode=None)
    succeed(db, ids[0])
    assert claim(db) == [ids[1]]
    (plain,) = put(db, "a")
    assert states(db)[plain] == "ready"


# --- limits ------------------------------------------------------------------------------------------------------------


def test_a_group_with_a_limit(db: Conn) -> None:
    rule(db, group_mode="limited", group_limit=2)
    ids = put(db, *"aaaab")
    assert claim(db) == [ids[0], ids[1], ids[4]]
    assert claim(db) == []
    succeed(db, ids[1])
    assert claim(db) == [ids[2]]


def test_a_retry_gives_its_permit_back(db: Conn) -> None:
    rule(db, group_mode="limited", group_limit=1)
    first, second = put(db, "a", "a")
    assert claim(db) == [first]
    set_back(db, first, Disposition.RETRY, delay=3600)
    assert claim(db) == [second]


def test_a_limit_of_one_group_alone(db: Conn) -> None:
    rule(db, group_mode="limited", group_limit=1)
    db.execute("INSERT INTO jobq.rate_state (queue, group_key, max_running) VALUES ('mail', 'big', 3)")
    ids = put(db, *["big"] * 5, "small", "small")
    assert claim(db) == [*ids[:3], ids[5]]


def test_a_queue_with_a_limit(db: Conn) -> None:
    rule(db, max_running=3)
    ids = put(db, *[None] * 5)
    jobs, last = claimed(db, 2)
    assert [job.id for job in jobs] == ids[:2]
    assert (last.claims, last.timeout) == (1, 0)
    jobs, last = claimed(db)
    assert [job.id for job in jobs] == ids[2:3]
    # Nothing to come for before a job ends.
    assert (last.claims, last.timeout) == (0, None)
    succeed(db, ids[0])
    assert claim(db) == ids[3:4]


def test_a_limit_lowered_below_what_runs_admits_none(db: Conn) -> None:
    rule(db, max_running=4)
    ids = put(db, *[None] * 8)
    assert claim(db) == ids[:4]
    rule(db, max_running=2)
    succeed(db, *ids[:2])
    assert claim(db) == []
    succeed(db, ids[2])
    assert claim(db) == ids[4:5]


def test_a_group_is_only_a_name_in_a_queue_with_a_limit(db: Conn) -> None:
    rule(db, max_running=1)
    first, second = put(db, "a", "a")
    assert claim(db) == [first]
    set_back(db, first, Disposition.RETRY, delay=0.0)
    assert states(db) == {first: "ready", second: "ready"}
    assert claim(db) == [second]


def test_a_queue_with_a_limit_takes_priorities_in_their_order(db: Conn) -> None:
    rule(db, max_running=1)
    (low,) = put(db, None, priority=1)
    (high,) = put(db, None, priority=8)
    assert claim(db) == [high]
    succeed(db, high)
    assert claim(db) == [low]


def test_groups_and_the_queue_have_their_limits_together(db: Conn) -> None:
    rule(db, max_running=3, group_mode="limited", group_limit=2)
    ids = put(db, *"aaa", *"bbb", None)
    first = claim(db)
    assert len(first) == 3
    groups = Counter("ab "[(ids.index(one)) // 3] for one in first)
    assert max(groups.values()) <= 2


# --- turns -------------------------------------------------------------------------------------------------------------


def test_groups_take_turns(db: Conn) -> None:
    rule(db, group_mode="fair")
    many = put(db, *["a"] * 50)
    (late,) = put(db, "b")
    assert claim(db, 1) == many[:1]
    assert claim(db, 1) == [late]
    assert claim(db, 1) == many[1:2]


def test_a_claim_is_shared_among_the_groups(db: Conn) -> None:
    rule(db, group_mode="fair")
    a = put(db, *["a"] * 50)
    b = put(db, *["b"] * 50)
    c = put(db, "c")
    got = set(claim(db, 30))
    assert len(got) == 30
    assert c[0] in got
    assert 13 <= len(got & set(a)) <= 16
    assert 13 <= len(got & set(b)) <= 16


def test_jobs_without_a_group_are_not_kept_waiting_by_those_with_one(db: Conn) -> None:
    rule(db, group_mode="fair")
    put(db, *["a"] * 200)
    plain = set(put(db, *[None] * 50))
    got = [one for _ in range(40) for one in claim(db, 1)]
    assert 5 <= len(plain & set(got)) <= 35


# --- rates -------------------------------------------------------------------------------------------------------------


def test_a_rate_admits_a_burst_and_tells_when_to_come_again(db: Conn) -> None:
    rule(db, rate_jobs=1, rate_seconds=100.0, rate_burst=3)
    ids = put(db, *[None] * 5)
    jobs, last = claimed(db)
    assert [job.id for job in jobs] == ids[:3]
    assert 95 < last.timeout <= 100.1
    jobs, last = claimed(db)
    assert jobs == []
    assert 90 < last.timeout <= 100.1


def test_a_rate_refills_with_time(db: Conn) -> None:
    rule(db, rate_jobs=1, rate_seconds=100.0, rate_burst=3)
    ids = put(db, *[None] * 5)
    assert claim(db) == ids[:3]
    db.execute("UPDATE jobq.rate_state SET paid_until = paid_until - interval '101 seconds'")
    assert claim(db) == ids[3:4]
    # However long nothing came, no more than the burst.
    db.execute("UPDATE jobq.rate_state SET paid_until = now() - interval '1 day'")
    put(db, *[None] * 5)
    assert len(claim(db)) == 3


def test_a_rate_of_each_group(db: Conn) -> None:
    rule(db, group_mode="fair", group_rate_jobs=1, group_rate_seconds=100.0, group_rate_burst=2)
    ids = put(db, *"aaaabb")
    jobs, last = claimed(db)
    assert [job.id for job in jobs] == [ids[0], ids[1], ids[4], ids[5]]
    assert 95 < last.timeout <= 100.1
    assert claim(db) == []
    db.execute("UPDATE jobq.rate_state SET paid_until = paid_until - interval '101 seconds' WHERE group_key = 'a'")
    db.execute("UPDATE jobq.group_ready SET due_at = due_at - interval '101 seconds'")
    assert claim(db) == [ids[2]]


# --- at once -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["ordered", "limited"])
def test_claims_at_once_never_exceed_a_limit_nor_break_an_order(db: Conn, database_url: str, mode: str) -> None:
    """Eight workers that claim, end and set back as fast as they can, while jobs are still inserted."""
    rule(db, max_running=10, group_mode=mode, group_limit=None if mode == "ordered" else 2)
    groups = [f"g{n % 12}" for n in range(480)]
    faults: list[str] = []
    ended: dict[str, list[int]] = defaultdict(list)
    lock = threading.Lock()
    running: Counter[str] = Counter()
    left = len(groups)
    # Each group is enqueued by one of two: transactions of two that overlap may be in either order.
    halves = tuple([group for group in groups if int(group[1:]) % 2 == half] for half in range(2))

    def work(number: int) -> None:
        nonlocal left
        worker = uuid4()
        with psycopg.connect(database_url, autocommit=True, row_factory=namedtuple_row) as own:
            if number < 2:
                for start in range(0, 240, 6):
                    put(own, *halves[number][start : start + 6])
                return
            while True:
                with lock:
                    if left <= 0:
                        return
                jobs, _ = claimed(own, 4, worker=worker)
                group_of: dict[int, str] = dict(
                    own.execute(
                        "SELECT id, group_key FROM jobq.job WHERE id = ANY(%s)", ([j.id for j in jobs],)
                    ).fetchall()
                )
                with lock:
                    for job in jobs:
                        running[group_of[job.id]] += 1
                    if sum(running.values()) > 10:
                        faults.append(f"{sum(running.values())} at once")
                    if any(count > (1 if mode == "ordered" else 2) for count in running.values()):
                        faults.append(f"{running}")
                for job in jobs:
                    with lock:
                        running[group_of[job.id]] -= 1
                        ended[group_of[job.id]].append(job.id)
                        left -= 1
                    succeed(own, job.id, worker=worker)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), states(db)
    assert faults == []
    assert sum(map(len, ended.values())) == len(groups)
    if mode == "ordered":
        assert all(ids == sorted(ids) for ids in some(ended.values()))


# --- operators ---------------------------------------------------------------------------------------------------------


def test_moving_to_and_from_a_queue_with_groups(db: Conn) -> None:
    rule(db, group_mode="ordered")
    a1, a2 = put(db, "a", "a")
    (other,) = put(db, "a", queue="other")
    assert operations.move(db, "jobq", [a1], queue="other", actor="test").done == [a1]
    assert states(db)[a1] == "ready"
    assert claim(db) == [a2]
    assert operations.move(db, "jobq", [other], queue="mail", actor="test").done == [other]
    assert states(db)[other] == "waiting"
    assert claim(db) == []
    succeed(db, a2)
    assert claim(db) == [other]


def test_a_redriven_job_waits_for_its_turn(db: Conn) -> None:
    rule(db, group_mode="ordered")
    first, second = put(db, "a", "a")
    assert claim(db) == [first]
    set_back(db, first, Disposition.FAIL)
    assert claim(db) == [second]
    assert operations.retry(db, "jobq", [first], actor="test").done == [first]
    assert states(db)[first] == "waiting"
    assert claim(db) == []
    succeed(db, second)
    assert claim(db) == [first]


def test_a_snoozed_job_comes_at_its_new_time(db: Conn) -> None:
    rule(db, group_mode="limited", group_limit=1)
    first, second = put(db, "a", "a")
    assert operations.snooze(db, "jobq", [first], seconds=3600, actor="test").done == [first]
    assert claim(db) == [second]
    succeed(db, second)
    jobs, last = claimed(db)
    assert jobs == []
    assert 3500 < last.timeout <= 3600


def test_a_job_that_is_replaced_comes_at_its_new_time(db: Conn) -> None:
    rule(db, group_mode="fair")
    debounced = send.options(group="a", key="k", key_holds="until_started", on_conflict="replace", delay=3600)
    first = debounced.enqueue(db, 1)
    assert claim(db) == []
    again = send.options(group="a", key="k", key_holds="until_started", on_conflict="replace").enqueue(db, 2)
    assert (again.id, again.replaced) == (first.id, True)
    assert claim(db) == [first.id]


def test_a_paused_queue_gives_nothing(db: Conn) -> None:
    rule(db, group_mode="fair")
    ids = put(db, "a")
    operations.pause(db, "jobq", "mail", actor="test")
    assert db.execute("SELECT * FROM jobq.claim_limited(%s, 'mail', 10)", (WORKER,)).fetchall() == []
    operations.resume(db, "jobq", "mail", actor="test")
    assert claim(db) == ids


def test_an_expired_job_is_claimed_as_such(db: Conn) -> None:
    rule(db, group_mode="fair")
    put(db, "a", expires_in=3600)
    db.execute("UPDATE jobq.job SET expires_at = now() - interval '1 second'")
    jobs, _ = claimed(db)
    assert [job.expired for job in jobs] == [True]


# --- odd company -------------------------------------------------------------------------------------------------------


def test_a_turn_taken_in_a_transaction_does_not_stand_for_what_it_inserts_later(database_url: str, db: Conn) -> None:
    rule(db, group_mode="fair")
    with psycopg.connect(database_url, row_factory=namedtuple_row) as connection:
        (first,) = put(connection, "a")
        assert claim(connection) == [first]
        (second,) = put(connection, "a")
        connection.commit()
    assert claim(db) == [second]


def test_groups_of_one_name_in_two_schemas_have_a_turn_each(database_url: str, db: Conn) -> None:
    migrate.upgrade(database_url, "other")
    rule(db, group_mode="fair")
    db.execute("INSERT INTO other.queue (name, group_mode) VALUES ('mail', 'fair')")
    with psycopg.connect(database_url) as connection:
        for schema in ("jobq", "other"):
            connection.execute(f"SELECT {schema}.enqueue('t', queue => 'mail', group_key => 'a')")
    for schema in ("jobq", "other"):
        assert [row.group_key for row in db.execute(f"SELECT group_key FROM {schema}.group_ready").fetchall()] == ["a"]


def test_names_that_look_alike_are_different_groups(database_url: str, db: Conn) -> None:
    names = [("x\x1fy", "z"), ("x", "y\x1fz"), ("1 x", "y"), ("1", "x y")]
    for queue in {queue for queue, _ in names}:
        rule(db, queue, group_mode="fair")
    with psycopg.connect(database_url) as connection:
        for queue, group in names:
            put(connection, group, queue=queue)
    assert len(turns(db)) == 4


@pytest.mark.parametrize("kind", ["plain", "late"])
def test_a_job_that_somebody_has_locked_is_not_asked_for_again_and_again(
    db: Conn, database_url: str, kind: str
) -> None:
    (held,) = put(db, "a" if kind == "late" else None)
    if kind == "late":
        rule(db, group_mode="ordered")
    else:
        rule(db, max_running=5)
    with psycopg.connect(database_url) as operator:
        operator.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (held,))
        jobs, last = claimed(db)
        assert jobs == []
        assert 0.2 < last.timeout <= 0.25
    assert claim(db) == [held]


def test_a_cap_of_one_worker_makes_no_group_of_a_name(db: Conn) -> None:
    """No other worker would come to a turn: to others the queue is a plain one."""
    ids = put(db, "a", "a")
    assert claim(db) == ids
    set_back(db, ids[0], Disposition.RETRY)
    succeed(db, ids[1])
    assert states(db) == {ids[0]: "ready"}
    assert turns(db) == {}


def test_a_drain_in_process_goes_past_groups_that_have_nothing(db: Conn) -> None:
    rule(db, group_mode="fair")
    db.execute(
        "INSERT INTO jobq.group_ready (queue, group_key) SELECT 'mail', n::text FROM generate_series(1, 3000) AS n"
    )
    put(db, "a")
    assert drain(q, db).succeeded == 1
    assert states(db) == {}


def test_what_rates_no_longer_need_is_forgotten(db: Conn) -> None:
    db.execute(
        "INSERT INTO jobq.rate_state (queue, group_key, max_running, paid_until) VALUES ('mail', 'limited', 3, '2020-01-01'), "
        "('mail', 'long ago', NULL, '2020-01-01'), ('mail', 'still', NULL, now() + interval '1 hour')"
    )
    assert db.execute(statement("rate_prune", "jobq").query).fetchall() == [(1,)]
    assert db.execute("SELECT group_key FROM jobq.rate_state ORDER BY 1").fetchall() == [("limited",), ("still",)]


def test_a_group_without_a_turn_gets_one(db: Conn) -> None:
    """Nothing of ours loses one; a hand that deletes rows does."""
    rule(db, group_mode="ordered")
    lost, _, kept, running, _ = put(db, "a", "a", "b", "c", "c")
    assert claim(db, 3) == [lost, kept, running]
    db.execute("UPDATE jobq.job SET state = 'waiting' WHERE id = ANY(%s)", ([lost, kept],))
    db.execute("INSERT INTO jobq.group_ready (queue, group_key) VALUES ('mail', 'b')")
    with db.cursor(row_factory=tuple_row) as cursor:
        look = {"most": 100, "after_queue": "", "after_group": "", "channel": "jobq", **ALL_GROUPS}
        cursor.execute(statement("group_ready_repair", "jobq").query, look)
        assert cursor.fetchall() == [(1, 1, None, None)]
    assert turns(db) == {"a": 1, "b": 1}
    assert claim(db) == [lost, kept]
