"""Keys belong to a task; one key for all tasks is an option, and never mixes their jobs up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from jobq import InvalidOption, JobIdUnknown, JobNotFound, JobQ, KeyConflict, Task, operations
from jobq._worker.inline import drain
from jobq.cli import main
from jobq.job import OnConflict

Conn = psycopg.Connection[Any]
POLICIES: list[OnConflict] = ["return", "replace", "raise"]
SNAPSHOTS = [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE]


class Shop:
    """Two tasks that use the same keys, and what they ran with."""

    def __init__(self, url: str) -> None:
        self.q = JobQ(url)
        self.ran: list[tuple[str, int]] = []

        @self.q.task
        def charge(cents: int) -> None:
            self.ran.append(("charge", cents))

        @self.q.task
        def refund(cents: int) -> None:
            self.ran.append(("refund", cents))

        self.charge: Task[[int], None] = charge
        self.refund: Task[[int], None] = refund


@pytest.fixture
def shop(database_url: str) -> Shop:
    return Shop(database_url)


@pytest.fixture
def db(database_url: str) -> Iterator[Conn]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def held(db: Conn) -> list[tuple[Any, ...]]:
    return db.execute("SELECT key, scope, task, job_id FROM jobq.job_key ORDER BY key, scope").fetchall()


def live(db: Conn) -> list[tuple[Any, ...]]:
    return db.execute("SELECT task, (args->'cents')::integer FROM jobq.job ORDER BY id").fetchall()


# --- Of the task -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_another_task_s_job_is_never_touched(shop: Shop, db: Conn, policy: OnConflict) -> None:
    shop.charge.options(key="order:7").enqueue(db, 9900)
    ref = shop.refund.options(key="order:7", on_conflict=policy).enqueue(db, 100)
    assert (ref.created, ref.replaced) == (True, False)
    refs = shop.q.enqueue_many(
        db,
        [
            shop.charge.options(key="order:8").job(5000),
            shop.refund.options(key="order:8", on_conflict=policy).job(1),
            # The same task's own, in the same call.
            shop.refund.options(key="order:8").job(2),
        ],
    )
    assert [ref.created for ref in refs] == [True, True, False]
    assert refs[2].id == refs[1].id
    drain(shop.q, db)
    assert sorted(shop.ran) == [("charge", 5000), ("charge", 9900), ("refund", 1), ("refund", 100)]


def test_queues_do_not_part_the_keys_of_a_task(shop: Shop, db: Conn) -> None:
    first = shop.charge.options(key="k").enqueue(db, 1)
    again = shop.charge.options(key="k", queue="other").enqueue(db, 2)
    assert (again.created, again.id) == (False, first.id)


@pytest.mark.parametrize("until", ["until_finished", "until_started"])
def test_what_ends_lets_its_own_key_go_and_no_other(shop: Shop, db: Conn, until: Any) -> None:
    charge = shop.charge.options(key="k", key_holds=until).enqueue(db, 1)
    refund = shop.refund.options(key="k", key_holds=until, delay=600).enqueue(db, 2)
    drain(shop.q, db)
    assert shop.ran == [("charge", 1)]
    assert held(db) == [("k", "refund", None, refund.id)]
    again = shop.charge.options(key="k", key_holds=until, delay=600).enqueue(db, 3)
    assert again.created
    assert again.id != charge.id
    with db.transaction():
        operations.cancel(db, "jobq", [again.id], actor="ann")
    assert held(db) == [("k", "refund", None, refund.id)]


def test_a_plain_key_and_a_shared_one_are_apart(shop: Shop, db: Conn) -> None:
    own = shop.charge.options(key="k").enqueue(db, 1)
    shared = shop.charge.options(key="k", key_scope="global").enqueue(db, 2)
    assert shared.created
    assert held(db) == [("k", "", "charge", shared.id), ("k", "charge", None, own.id)]


# --- Of all tasks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [None, *SNAPSHOTS])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_shared_key_of_another_task_is_a_conflict_that_names_it(
    shop: Shop, db: Conn, policy: OnConflict, level: psycopg.IsolationLevel | None
) -> None:
    holder = shop.charge.options(key="k", key_scope="global").enqueue(db, 9900)
    db.autocommit = False
    db.isolation_level = level
    refund = shop.refund.options(key="k", key_scope="global", on_conflict=policy)
    with pytest.raises(
        KeyConflict, match=rf"'k' is held by job {holder.id}, of task 'charge'; key_scope='global'"
    ) as found:
        refund.enqueue(db, 100)
    assert (found.value.key, found.value.job_id, found.value.task) == ("k", holder.id, "charge")
    # The transaction goes on.
    assert shop.refund.enqueue(db, 5).created
    db.commit()
    assert live(db) == [("charge", 9900), ("refund", 5)]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_holder_is_named_when_its_job_has_ended(shop: Shop, db: Conn, policy: OnConflict) -> None:
    holder = shop.charge.options(key="k", key_scope="global").enqueue(db, 1)
    drain(shop.q, db)
    db.execute("DELETE FROM jobq.job_history")
    with pytest.raises(KeyConflict) as found:
        shop.refund.options(key="k", key_scope="global", on_conflict=policy).enqueue(db, 2)
    assert (found.value.job_id, found.value.task) == (holder.id, "charge")


def test_a_shared_key_of_the_same_task_is_an_ordinary_key(shop: Shop, db: Conn) -> None:
    first = shop.charge.options(key="k", key_scope="global").enqueue(db, 1)
    again = shop.charge.options(key="k", key_scope="global", on_conflict="replace").enqueue(db, 2)
    assert (again.id, again.replaced) == (first.id, True)
    with pytest.raises(KeyConflict, match="use on_conflict='return'") as found:
        shop.charge.options(key="k", key_scope="global", on_conflict="raise").enqueue(db, 3)
    assert (found.value.job_id, found.value.task) == (first.id, "charge")
    assert live(db) == [("charge", 2)]


@pytest.mark.parametrize("level", [None, *SNAPSHOTS])
@pytest.mark.parametrize("policy", ["return", "replace"])
def test_of_a_bulk_with_such_a_conflict_nothing_stays(
    shop: Shop, db: Conn, policy: OnConflict, level: psycopg.IsolationLevel | None
) -> None:
    """Not even what was replaced before the conflict, in the order of keys, was come to."""
    first = shop.charge.options(key="a", key_scope="global").enqueue(db, 1)
    last = shop.charge.options(key="z", key_scope="global").enqueue(db, 2)
    db.autocommit = False
    db.isolation_level = level
    with pytest.raises(KeyConflict) as found:
        shop.q.enqueue_many(
            db,
            [
                shop.charge.options(key="a", key_scope="global", on_conflict="replace").job(10),
                shop.refund.options(key="m", key_scope="global", on_conflict=policy).job(11),
                shop.refund.options(key="z", key_scope="global", on_conflict=policy).job(12),
                shop.refund.job(13),
            ],
        )
    assert (found.value.key, found.value.job_id, found.value.task) == ("z", last.id, "charge")
    db.commit()
    assert live(db) == [("charge", 1), ("charge", 2)]
    assert held(db) == [("a", "", "charge", first.id), ("z", "", "charge", last.id)]


@pytest.mark.parametrize("policy", POLICIES)
def test_two_tasks_with_one_shared_key_in_one_call(shop: Shop, db: Conn, policy: OnConflict) -> None:
    jobs = [
        shop.charge.options(key="k", key_scope="global").job(1),
        shop.refund.options(key="k", key_scope="global", on_conflict=policy).job(2),
    ]
    with pytest.raises(KeyConflict, match=r"another job of this call, .* of task 'charge'") as found:
        shop.q.enqueue_many(db, jobs)
    assert (found.value.job_id, found.value.task) == (None, "charge")
    assert (live(db), held(db)) == ([], [])


def test_a_holder_beyond_the_snapshot_is_not_given_out_as_this_task_s(shop: Shop, db: Conn, database_url: str) -> None:
    with psycopg.connect(database_url) as late:
        late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        late.execute("SELECT 1")
        shop.charge.options(key="k", key_scope="global").enqueue(db, 1)
        ref = shop.refund.options(key="k", key_scope="global", on_conflict="replace").enqueue(late, 2)
        assert (ref.created, ref.replaced) == (False, False)
        with pytest.raises(JobIdUnknown):
            _ = ref.id
        late.commit()
    assert live(db) == [("charge", 1)]


def test_a_shared_key_whose_period_is_over_goes_to_another_task(shop: Shop, db: Conn) -> None:
    for autocommit, level in ((True, None), (False, SNAPSHOTS[0])):
        shop.charge.options(key="k", key_scope="global").enqueue(db, 1)
        db.execute("UPDATE jobq.job_key SET expires_at = now() - interval '1 s'")
        db.autocommit, db.isolation_level = autocommit, level
        ref = shop.refund.options(key="k", key_scope="global").enqueue(db, 2)
        if not autocommit:
            db.commit()
        assert ref.created
        assert held(db) == [("k", "", "refund", ref.id)]
        db.execute("DELETE FROM jobq.job_key")


def test_a_dead_job_takes_its_key_again_where_it_held_it(shop: Shop, db: Conn) -> None:
    for scope in ("task", "global"):
        key = f"of {scope}"
        options: Any = {"key": key, "key_scope": scope, "key_holds": "until_finished"}
        dead = shop.charge.options(**options).enqueue(db, 1)
        operations.cancel(db, "jobq", [dead.id], actor="ann")
        other = shop.refund.options(**options).enqueue(db, 2)
        back = operations.retry(db, "jobq", [dead.id], actor="ann")
        if scope == "task":
            assert back.done == [dead.id]
        else:
            assert back.done == []
            assert f"is held by job {other.id}" in back.refused[dead.id]
            operations.delete(db, "jobq", [other.id], actor="ann")
            operations.retry(db, "jobq", [dead.id], actor="ann")
            assert (key, "", "charge", dead.id) in held(db)


# --- Said by operators and other languages -----------------------------------------------------------------------------


def test_in_sql(shop: Shop, db: Conn) -> None:
    enqueue = "SELECT jobq.enqueue(%s, %s, key => 'k', key_scope => %s)"
    [(first,)] = db.execute(enqueue, ("charge", '{"cents": 1}', "global")).fetchall()
    assert db.execute(enqueue, ("charge", '{"cents": 2}', "global")).fetchall() == [(first,)]
    for policy in POLICIES:
        with pytest.raises(psycopg.errors.UniqueViolation, match=f"held by job {first} of task 'charge'"):
            db.execute(
                "SELECT jobq.enqueue('refund', '{}', key => 'k', key_scope => 'global', on_conflict => %s)", (policy,)
            )
    [(own,)] = db.execute("SELECT jobq.enqueue('refund', '{\"cents\": 3}', key => 'k')").fetchall()
    assert own != first
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="key_scope => 'queue': give task or global"):
        db.execute(enqueue, ("charge", "{}", "queue"))
    assert db.execute("SELECT key_scope FROM jobq.job ORDER BY id").fetchall() == [("global",), (None,)]


def test_on_the_command_line(shop: Shop, db: Conn, database_url: str) -> None:
    def run(*command: str) -> Any:
        return CliRunner().invoke(main, [*command], env={"JOBQ_DATABASE_URL": database_url})

    new = ("--key", "k", "--key-scope", "global", "--force", "--json")
    made = json.loads(run("enqueue", "charge", "cents=1", *new).stdout)
    refused = run("enqueue", "refund", "cents=2", *new)
    assert refused.exit_code == 64
    assert f"held by job {made['id']}, of task 'charge'" in refused.output
    assert "(global)" in run("jobs", "show", str(made["id"])).output
    assert json.loads(run("jobs", "show", str(made["id"]), "--json").stdout)["key_scope"] == "global"


def test_only_what_says_key_may_say_scope(shop: Shop) -> None:
    with pytest.raises(InvalidOption, match="pass key="):
        shop.charge.options(key_scope="global")
    with pytest.raises(InvalidOption, match="key_scope='queue': expected one of task, global"):
        shop.charge.options(key="k", key_scope="queue")  # type: ignore[arg-type]


# --- Replaced, and deleted ---------------------------------------------------------------------------------------------


def test_replace_moves_the_expiry(shop: Shop, db: Conn) -> None:
    debounced: Any = {"key": "k", "key_holds": "until_started", "on_conflict": "replace"}
    first = shop.charge.options(**debounced, delay=10, expires_in=20).enqueue(db, 1)
    # As though it had been enqueued a quarter of a minute ago.
    db.execute("UPDATE jobq.job SET run_at = run_at - interval '15 s', expires_at = expires_at - interval '15 s'")
    again = shop.charge.options(**debounced, delay=10, expires_in=20).enqueue(db, 2)
    assert (again.id, again.replaced) == (first.id, True)
    left = "SELECT extract(epoch FROM expires_at - run_at)::numeric(9, 2)::float8 FROM jobq.job"
    assert db.execute(left).fetchall() == [(10.0,)]
    # What the last call has not is not kept from the one before.
    assert shop.charge.options(**debounced, delay=10).enqueue(db, 3).replaced
    assert db.execute("SELECT expires_at FROM jobq.job").fetchall() == [(None,)]


def test_replace_within_a_call_moves_the_expiry(shop: Shop, db: Conn) -> None:
    debounced: Any = {"key": "k", "key_holds": "until_started", "on_conflict": "replace"}
    shop.q.enqueue_many(
        db,
        [
            shop.charge.options(**debounced, delay=1, expires_in=2).job(1),
            shop.charge.options(**debounced, delay=30, expires_in=60).job(2),
        ],
    )
    left = "SELECT (args->'cents')::integer, extract(epoch FROM expires_at - run_at)::integer FROM jobq.job"
    assert db.execute(left).fetchall() == [(2, 30)]


@pytest.mark.parametrize("ended", [False, True])
def test_a_deleted_job_lets_its_key_go(shop: Shop, db: Conn, ended: bool) -> None:
    first = shop.charge.options(key="receipt:7", delay=0 if ended else 600).enqueue(db, 7)
    other = shop.refund.options(key="receipt:7", delay=600).enqueue(db, 7)
    if ended:
        drain(shop.q, db)
    operations.delete(db, "jobq", [first.id], actor="ann")
    assert held(db) == [("receipt:7", "refund", None, other.id)]
    again = shop.charge.options(key="receipt:7").enqueue(db, 7)
    assert again.created
    assert again.status() == "ready"
    with pytest.raises(JobNotFound):
        first.status()
