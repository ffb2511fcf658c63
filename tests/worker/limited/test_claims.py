"""Claims of limited queues against whatever else happens to their jobs: moves, locks, pinned horizons, clocks, many turns."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.rows import namedtuple_row, tuple_row

from jobq import operations
from jobq._postgres.sql import statement
from jobq._worker.database import Database
from jobq._worker.ipc.messages import Disposition
from jobq._worker.limited.declared_rules import declare
from jobq._worker.limited.queues import LimitedQueues
from jobq._worker.maintenance import group_sweep
from jobq._worker.maintenance.partitions import Incomplete
from jobq._worker.maintenance.runner import Maintenance
from jobq._worker.options import WorkerOptions
from jobq.settings import Settings
from tests.support.rows import ALL_GROUPS
from tests.support.waiting import wait_until
from tests.worker.limited.test_groups import WORKER, Conn, claim, claimed, put, rule, set_back, states, succeed, turns

PLANNER = (
    "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off "
    "-c plan_cache_mode=force_generic_plan"
)


@pytest.fixture
def db(database_url: str) -> Iterator[Conn]:
    with psycopg.connect(
        database_url, autocommit=True, row_factory=namedtuple_row, options=PLANNER, prepare_threshold=0
    ) as connection:
        yield connection


class Caller:
    """A worker that remembers from claim to claim what claim_limited told it."""

    def __init__(self, db: Conn) -> None:
        self.db = db
        self.id = uuid4()
        self.limited = LimitedQueues("jobq", 60.0)
        self.limited.refresh(["mail", "other"])

    def claim(self, want: int = 100, queue: str = "mail") -> list[int]:
        parameters = self.limited.begin(self.id, queue, want)
        with self.db.cursor(row_factory=tuple_row) as cursor:
            rows = cursor.execute(statement("claim_limited", "jobq").query, parameters).fetchall()
        return [row[0] for row in self.limited.took(parameters, rows).rows]

    def pages(self, want: int, queue: str = "mail") -> tuple[int, list[int]]:
        """Claim, and return how many pages that touched: dead index entries cost a page each."""
        before = self.db.execute("SELECT coalesce(max(id), 0) FROM jobq.job").fetchone()
        assert before is not None
        parameters = self.limited.begin(self.id, queue, want)
        with self.db.cursor(row_factory=tuple_row) as cursor:
            query = statement("claim_limited", "jobq").query
            cursor.execute("DROP TABLE IF EXISTS claimed_now")
            plan = cursor.execute(
                b"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) CREATE TEMP TABLE claimed_now AS " + query,
                parameters,
            ).fetchone()
            assert plan is not None
            rows = cursor.execute("SELECT * FROM claimed_now ORDER BY id NULLS LAST").fetchall()
        found = self.limited.took(parameters, rows).rows
        return plan[0][0]["Plan"]["Shared Hit Blocks"], [row[0] for row in found]


# --- what happens between the pick and the lock --------------------------------------------------------------------------

PICKED = "                SELECT coalesce(array_agg(free.id), '{}'), coalesce(array_agg(free.n), '{}') INTO got, got_of"
PAUSE = 424242


@pytest.fixture
def paused_claims(db: Conn) -> None:
    """Claims of this database wait for the lock PAUSE after they have picked the heads of groups."""
    row = db.execute("SELECT pg_get_functiondef('jobq.claim_limited'::regproc)").fetchone()
    assert row is not None
    assert row[0].count(PICKED) == 1
    paused = row[0].replace(PICKED, f"PERFORM pg_advisory_xact_lock({PAUSE});\n{PICKED}")
    db.execute(paused.encode())


@pytest.mark.usefixtures("paused_claims")
@pytest.mark.parametrize("way", ["move", "snooze", "cancel", "delete", "regroup"])
def test_what_somebody_does_between_the_pick_and_the_lock_holds(db: Conn, database_url: str, way: str) -> None:
    rule(db, "mail", group_mode="fair")
    rule(db, "other", group_mode="ordered", max_running=1)
    (running,) = put(db, "g", queue="other")
    assert claim(db, queue="other") == [running]
    (picked,) = put(db, "g")
    with psycopg.connect(database_url, autocommit=True) as hold:
        hold.execute("SELECT pg_advisory_lock(%s)", (PAUSE,))
        got: list[list[int]] = []

        def claimer() -> None:
            with psycopg.connect(database_url, autocommit=True, row_factory=namedtuple_row) as own:
                got.append(claim(own))

        thread = threading.Thread(target=claimer)
        thread.start()
        waits = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = %s"
        wait_until(lambda: db.execute(waits, (PAUSE,)).fetchall(), what="the claim at its pause")
        if way == "move":
            assert operations.move(hold, "jobq", [picked], queue="other", actor="test").done == [picked]
        elif way == "snooze":
            assert operations.snooze(hold, "jobq", [picked], seconds=3600, actor="test").done == [picked]
        elif way == "regroup":
            hold.execute("UPDATE jobq.job SET group_key = 'another' WHERE id = %s", (picked,))
        else:
            assert getattr(operations, way)(hold, "jobq", [picked], actor="test").done == [picked]
        hold.execute("SELECT pg_advisory_unlock(%s)", (PAUSE,))
        thread.join(20)
    assert got == [[]]
    assert states(db) == {running: "running"} | ({} if way in ("cancel", "delete") else {picked: "waiting"})


def test_moves_and_snoozes_never_let_claims_exceed_a_limit(
    db: Conn, database_url: str, pytestconfig: pytest.Config
) -> None:
    """Movers, snoozers and a canceller against claimers, as fast as they can, between two ordered queues with a limit."""
    long: bool = pytestconfig.getoption("--chaos-long")
    moves_wanted, seconds = (30_000, 600.0) if long else (300, 20.0)
    for queue in ("mail", "other"):
        rule(db, queue, group_mode="ordered", max_running=1)
        put(db, *[f"g{n % 3}" for n in range(30)], queue=queue)
    faults: list[str] = []
    counts: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    chooser = random.Random(1)

    def on() -> bool:
        return not faults and time.monotonic() < deadline and (counts["moves"] < moves_wanted or counts["claims"] < 50)

    def connect() -> Conn:
        return psycopg.connect(
            database_url, autocommit=True, row_factory=namedtuple_row, options=PLANNER, prepare_threshold=0
        )

    def claims() -> None:
        with connect() as own:
            caller = Caller(own)
            while on():
                queue = chooser.choice(["mail", "other"])
                got = caller.claim(4, queue)
                if not got:
                    time.sleep(0.0005)
                    continue
                counts["claims"] += 1
                found = own.execute(
                    "SELECT queue, count(*) AS jobs FROM jobq.job WHERE state = 'running' GROUP BY queue HAVING count(*) > 1"
                ).fetchall()
                if found:
                    faults.append(f"after {counts}: {found}")
                for id_ in got:
                    row = own.execute("SELECT count(*) FROM jobq.job WHERE id = %s AND run_at > started_at", (id_,))
                    if row.fetchone() != (0,):
                        faults.append(f"{id_} started before its time")
                    # Back into a queue, as a snooze from inside does.
                    back = own.execute("SELECT claims FROM jobq.job WHERE id = %s", (id_,)).fetchone()
                    assert back is not None
                    set_back(own, id_, Disposition.SNOOZE, worker=caller.id)

    def moves() -> None:
        with connect() as own:
            while on():
                rows = own.execute("SELECT id, queue FROM jobq.job WHERE state = 'waiting' ORDER BY random() LIMIT 3")
                for row in rows.fetchall():
                    to = "other" if row.queue == "mail" else "mail"
                    done = operations.move(own, "jobq", [row.id], queue=to, actor="test").done
                    counts["moves"] += len(done)

    def snoozes() -> None:
        with connect() as own:
            while on():
                rows = own.execute(
                    "SELECT id FROM jobq.job WHERE state = 'waiting' ORDER BY random() LIMIT 1"
                ).fetchall()
                operations.snooze(own, "jobq", [row.id for row in rows], seconds=0.02, actor="test")
                gone = operations.cancel(own, "jobq", [row.id for row in rows if chooser.random() < 0.1], actor="test")
                put(own, *[f"g{n % 3}" for n, _ in enumerate(gone.done)])

    threads = [threading.Thread(target=work) for work in (claims, claims, moves, moves, snoozes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 30)
    assert faults == []
    assert counts["claims"] >= 50
    assert counts["moves"] >= (moves_wanted if long else 50)


# --- what a caller knows from before ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["ordered", "limited", None])
def test_what_callers_know_of_running_jobs_is_never_too_little(db: Conn, mode: str | None) -> None:
    """Two callers with a memory of their own, whose jobs end, fail and run as plain ones; rules come and go."""
    chooser = random.Random(7)
    groups: dict[str, Any] = (
        {} if mode is None else {"group_mode": mode, "group_limit": 2 if mode == "limited" else None}
    )
    rule(db, max_running=6, **groups)
    callers = [Caller(db), Caller(db)]
    put(db, *[f"g{n % 5}" if mode else None for n in range(400)])
    of_worker = {caller.id: caller for caller in callers}
    for _ in range(300):
        caller = chooser.choice(callers)
        caller.claim(chooser.randint(1, 5))
        running = db.execute("SELECT id, group_key, worker_id FROM jobq.job WHERE state = 'running'").fetchall()
        assert len(running) <= 6
        most = {"ordered": 1, "limited": 2, None: 6}[mode]
        assert max(Counter(row.group_key for row in running).values(), default=0) <= most
        for row in running:
            what = chooser.random()
            if what < 0.25:
                succeed(db, row.id, worker=row.worker_id)
            elif what < 0.35:
                set_back(db, row.id, Disposition.RETRY, worker=row.worker_id)
            else:
                continue
            of_worker[row.worker_id].limited.forget()
        if chooser.random() < 0.05:
            # Without a rule one more is claimed as a plain job; when the rule is back, it counts.
            rule(db, max_running=None, group_mode=None, group_limit=None)
            db.execute(
                "UPDATE jobq.job SET state = 'running', worker_id = %s, claims = claims + 1, started_at = now() WHERE id = "
                "(SELECT min(id) FROM jobq.job WHERE state IN ('ready', 'waiting') AND NOT EXISTS ("
                "SELECT FROM jobq.job WHERE state = 'running' HAVING count(*) > 4))",
                (caller.id,),
            )
            rule(db, max_running=6, **groups)
            db.execute(statement("count_running", "jobq").query, {"queue": "mail"})
            left = Counter(r.group_key for r in db.execute("SELECT group_key FROM jobq.job WHERE state = 'running'"))
            for group, number in left.items():
                # The plain claim has heeded no group: end what is too much.
                for row in (
                    db.execute(
                        "SELECT id, worker_id FROM jobq.job WHERE state = 'running' AND group_key = %s ORDER BY id",
                        (group,),
                    ).fetchall()[most:]
                    if mode and number > most
                    else ()
                ):
                    succeed(db, row.id, worker=row.worker_id)
    assert db.execute("SELECT count(*) > 100 FROM jobq.job_history").fetchone() == (True,)


def test_what_is_known_is_void_when_the_rule_has_changed(db: Conn) -> None:
    rule(db, max_running=3)
    caller = Caller(db)
    first, *_ = put(db, *[None] * 6)
    assert caller.claim(1) == [first]
    known = caller.limited._known["mail"]
    assert (known.ran, known.ran_by is not None) == (f"{{{first}}}", True)
    # As if it had run under a number of long ago, which a plain claim leaves as it is.
    db.execute("UPDATE jobq.job SET permit = 0")
    known.ran = "{}"
    rule(db, max_running=2)
    assert len(caller.claim()) == 1


# --- a lock that another holds ---------------------------------------------------------------------------------------


def test_a_claim_waits_for_no_lock_and_says_so(db: Conn, database_url: str) -> None:
    rule(db, max_running=1)
    ids = put(db, None)
    caller = Caller(db)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT 1")
        operations.configure(other, "jobq", "mail", limit=2, actor="anna")
        db.execute("SET lock_timeout = '1ms'")
        db.execute("SET statement_timeout = '5s'")
        rows = db.execute("SELECT * FROM jobq.claim_limited(%s, 'mail', 1)", (WORKER,)).fetchall()
        assert [(row.id, row.task) for row in rows] == [(None, "locked")]
        assert caller.claim() == []
        other.rollback()
    assert caller.claim() == ids


# --- under a pinned horizon ------------------------------------------------------------------------------------------

KINDS: dict[str, tuple[dict[str, Any], int]] = {
    "fair": ({"group_mode": "fair", "group_limit": 2, "max_running": 50}, 500),
    "ordered": ({"group_mode": "ordered"}, 60),
    "pass": ({"group_mode": "ordered", "group_retry": "pass"}, 60),
    "tenants": ({"group_mode": "fair"}, 5),
    "limit": ({"max_running": 50}, 0),
    "rate": ({"rate_jobs": 1_000_000, "rate_seconds": 1.0, "rate_burst": 1_000_000}, 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_claims_touch_as_many_pages_at_the_end_as_at_the_beginning(db: Conn, database_url: str, kind: str) -> None:
    settings, groups = KINDS[kind]
    rule(db, **settings)
    put(db, *[f"g{n % groups}" if groups else None for n in range(3_000)])
    db.execute("ANALYZE")
    caller = Caller(db)
    with psycopg.connect(database_url) as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT count(*) FROM jobq.job")
        pages: list[float] = []
        while len(pages) < 200:
            touched, got = caller.pages(40)
            if not got:
                break
            # Some end later than those that are claimed after them.
            succeed(db, *got[:-2], worker=caller.id)
            pages.append(touched / len(got))
            for late in got[-2:]:
                succeed(db, late, worker=caller.id)
    assert states(db) == {}
    fifth = len(pages) // 5
    first, last = sum(pages[:fifth]) / fifth, sum(pages[-fifth:]) / fifth
    assert last <= 1.5 * first, pages


def test_a_claim_steps_over_the_turns_that_are_gone(db: Conn, database_url: str) -> None:
    rule(db, group_mode="ordered")
    knowing = Caller(db)
    with psycopg.connect(database_url) as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT count(*) FROM jobq.job")
        db.execute(
            "INSERT INTO jobq.group_ready (queue, group_key) SELECT 'mail', 'g' || n FROM generate_series(1, 8000) AS n"
        )
        while turns(db):
            assert knowing.claim(40) == []
        put(db, *[f"late {n}" for n in range(10)])

        def one(caller: Caller) -> int:
            touched, got = caller.pages(1)
            assert len(got) == 1
            succeed(db, *got, worker=caller.id)
            return touched

        # The least of some: now and then a claim reads all from the beginning.
        stepping = min(one(knowing) for _ in range(5))
        reading = min(one(Caller(db)) for _ in range(5))
    assert 2 * stepping < reading, (stepping, reading)


# --- turns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("want", [1, 32])
def test_whoever_comes_after_many_single_jobs_of_another_is_next(db: Conn, want: int) -> None:
    rule(db, group_mode="fair")
    put(db, *["a"] * 100)
    # Each transaction gives a turn.
    db.execute("INSERT INTO jobq.group_ready (queue, group_key) SELECT 'mail', 'a' FROM generate_series(1, 20000)")
    (late,) = put(db, "b")
    got = [one for _ in range(2) for one in claim(db, want)]
    assert late in got
    assert turns(db)["a"] <= 1


def test_a_turn_below_what_was_read_is_found(db: Conn, database_url: str) -> None:
    """An insert that is held open, while claims go on above it."""
    rule(db, group_mode="ordered")
    caller = Caller(db)
    with psycopg.connect(database_url) as slow:
        (held,) = put(slow, "slow")
        for n in range(50):
            (one,) = put(db, f"g{n}")
            assert caller.claim() == [one]
            succeed(db, one, worker=caller.id)
        slow.commit()
    wait_until(lambda: caller.claim() == [held], what="the job whose insert was held open")


def test_the_job_that_comes_back_is_the_head_again_whatever_is_known_of_its_group(db: Conn) -> None:
    rule(db, group_mode="ordered")
    caller = Caller(db)
    first, second, third = put(db, "a", "a", "a")
    assert caller.claim() == [first]
    # What a claim writes down now and then.
    db.execute("INSERT INTO jobq.rate_state (queue, group_key, head_id) VALUES ('mail', 'a', %s)", (first,))
    set_back(db, first, Disposition.RETRY, worker=caller.id)
    assert caller.claim() == [first]
    succeed(db, first, worker=caller.id)
    # An operator brings one back that is lower than that.
    db.execute("UPDATE jobq.rate_state SET head_id = %s", (third,))
    db.execute("INSERT INTO jobq.group_ready (queue, group_key) VALUES ('mail', 'a')")
    assert caller.claim() == [second]
    succeed(db, second, worker=caller.id)
    assert caller.claim() == [third]


def test_a_job_for_later_that_is_made_due_is_found_below_what_is_known(db: Conn) -> None:
    rule(db, group_mode="fair")
    caller = Caller(db)
    (later,) = put(db, "a", delay=3600)
    assert caller.claim() == []
    db.execute("INSERT INTO jobq.rate_state (queue, group_key, head_at) SELECT 'mail', 'a', run_at FROM jobq.job")
    assert operations.retry(db, "jobq", [later], actor="test").done == [later]
    wait_until(lambda: caller.claim() == [later], what="the job")


async def test_rules_that_an_application_declares_let_go_what_the_former_held_back(db: Conn, database_url: str) -> None:
    database = Database(Settings(database_url=database_url))
    async with await database.connect("test") as connection:
        await declare(connection, "jobq", {"mail": ("limited", 1, None), "other": ("ordered", None, "hold")})
        ids = put(db, *["a"] * 3)
        assert claim(db) == ids[:1]
        assert claim(db) == []
        held, behind = put(db, "a", "a", queue="other")
        assert claim(db, queue="other") == [held]
        set_back(db, held, Disposition.RETRY, delay=3600)
        assert claim(db, queue="other") == []
        await declare(connection, "jobq", {"mail": ("limited", 3, None), "other": ("ordered", None, "pass")})
        assert claim(db) == ids[1:]
        assert claim(db, queue="other") == [behind]
        # Nothing that changes: no lock, no turn.
        before = turns(db)
        with psycopg.connect(database_url) as open_one:
            open_one.execute(statement("queue_lock", "jobq").query, {"schema": "jobq", "queue": "mail"})
            await declare(connection, "jobq", {"mail": ("limited", 3, None)})
        assert turns(db) == before


async def test_the_sweep_comes_to_every_group(db: Conn, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rule(db, group_mode="fair")
    rule(db, "other", group_mode="fair")
    for queue in ("mail", "other"):
        put(db, *[f"g{n}" for n in range(12)], queue=queue)
    db.execute("DELETE FROM jobq.group_ready")
    monkeypatch.setattr(group_sweep, "GROUPS", 10)
    options = WorkerOptions(app="-", settings=Settings(database_url=database_url))
    async with await Database(options.settings).connect("test") as connection:
        # Out of time after each look.
        monkeypatch.setattr(group_sweep, "SWEEP_SECONDS", -1.0)
        swept = Maintenance(options)
        said = [await swept.tasks.sweep_turns(connection) for _ in range(4)]
        assert [text.split()[0] for text in said] == ["10", "10", "4", "0"]
        db.execute("DELETE FROM jobq.group_ready")
        monkeypatch.setattr(group_sweep, "SWEEP_SECONDS", 60.0)
        assert (await Maintenance(options).tasks.sweep_turns(connection)).startswith("24 turns given")
    assert sorted(turns(db).values()) == [2] * 12


async def test_groups_that_cannot_get_a_turn_hold_up_no_others(
    db: Conn, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule(db, group_mode="fair")
    rule(db, "other", group_mode="fair")
    for queue in ("mail", "other"):
        put(db, *[f"g{n}" for n in range(12)], queue=queue)
    db.execute("DELETE FROM jobq.group_ready")
    refused = "NEW.queue = 'mail' AND NEW.group_key IN ('g3', 'g7')"
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF {refused} THEN RAISE EXCEPTION 'the rule'; END IF; RETURN NEW; END $$"
    )
    db.execute("CREATE TRIGGER refuse BEFORE INSERT ON jobq.group_ready FOR EACH ROW EXECUTE FUNCTION refuse()")
    monkeypatch.setattr(group_sweep, "GROUPS", 10)
    monkeypatch.setattr(group_sweep, "SWEEP_SECONDS", 60.0)
    told = r" turns given, 0 rates forgotten; refused: group mail/g3: the rule; group mail/g7: the rule$"
    found = Maintenance(WorkerOptions(app="-", settings=Settings(database_url=database_url)))
    async with await Database(Settings(database_url=database_url)).connect("test") as connection:
        for given in (22, 0):
            async with connection.transaction():
                with pytest.raises(Incomplete, match=f"^{given}{told}"):
                    await found.tasks.sweep_turns(connection)
            assert sorted(turns(db)) == sorted(f"g{n}" for n in range(12))
            assert db.execute("SELECT count(*) FROM jobq.group_ready").fetchall() == [(22,)]
        db.execute("DROP TRIGGER refuse ON jobq.group_ready")
        other = Maintenance(WorkerOptions(app="-", settings=Settings(database_url=database_url)))
        async with connection.transaction():
            assert await other.tasks.sweep_turns(connection) == "2 turns given, 0 rates forgotten"


async def test_rates_that_cannot_be_forgotten_keep_no_turn_back(db: Conn, database_url: str) -> None:
    rule(db, group_mode="fair")
    put(db, "a")
    db.execute("DELETE FROM jobq.group_ready")
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the rule'; END $$"
    )
    db.execute("CREATE TRIGGER refuse BEFORE DELETE ON jobq.rate_state EXECUTE FUNCTION refuse()")
    found = Maintenance(WorkerOptions(app="-", settings=Settings(database_url=database_url)))
    async with (
        await Database(Settings(database_url=database_url)).connect("test") as connection,
        connection.transaction(),
    ):
        with pytest.raises(Incomplete, match=r"^1 turns given; no rate forgotten: the rule"):
            await found.tasks.sweep_turns(connection)
    assert turns(db) == {"a": 1}


# --- clocks ----------------------------------------------------------------------------------------------------------


def test_a_rate_goes_on_after_the_clock_was_ahead(db: Conn) -> None:
    rule(db, rate_jobs=10, rate_seconds=1.0, rate_burst=5)
    put(db, *[None] * 20)
    assert len(claim(db)) == 5
    db.execute("UPDATE jobq.rate_state SET paid_until = paid_until + interval '1 hour'")
    jobs, last = claimed(db)
    assert jobs == []
    assert last.timeout < 1
    wait_until(lambda: claim(db), what="the next start")


def test_a_rate_of_groups_goes_on_after_the_clock_was_ahead(db: Conn) -> None:
    rule(db, group_mode="fair", group_rate_jobs=10, group_rate_seconds=1.0, group_rate_burst=5)
    put(db, *["a"] * 20)
    assert len(claim(db)) == 5
    db.execute("UPDATE jobq.rate_state SET paid_until = paid_until + interval '1 hour'")
    db.execute("UPDATE jobq.group_ready SET due_at = clock_timestamp()")
    jobs, last = claimed(db)
    assert jobs == []
    assert last.timeout < 1
    wait_until(lambda: claim(db), what="the next start")


@pytest.mark.parametrize("mode", ["ordered", "fair"])
def test_turns_of_a_clock_that_was_ahead_are_not_waited_for(db: Conn, mode: str) -> None:
    rule(db, group_mode=mode)
    ids = put(db, "a", "b")
    db.execute("UPDATE jobq.group_ready SET due_at = due_at + interval '1 hour'")
    later = put(db, "c", delay=7200)
    assert claim(db) == []
    query = statement("group_ready_repair", "jobq").query
    with db.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(query, {"most": 100, "after_queue": "", "after_group": "", "channel": "jobq", **ALL_GROUPS})
        # That of c is at its time.
        assert cursor.fetchall() == [(2, 1, None, None)]
    assert claim(db) == ids
    assert later[0] in states(db)


@pytest.mark.parametrize("of", ["queue", "group"])
def test_a_rate_whose_share_is_no_whole_number_of_microseconds_is_not_exceeded(db: Conn, of: str) -> None:
    if of == "queue":
        rule(db, rate_jobs=9_500, rate_seconds=1.0, rate_burst=100)
    else:
        rule(db, group_mode="fair", group_rate_jobs=9_500, group_rate_seconds=1.0, group_rate_burst=100)
    ids = put(db, *["a" if of == "group" else None] * 100)
    assert claim(db) == ids
    (row,) = db.execute(
        "SELECT extract(epoch FROM paid_until - started_at)::float8 AS paid FROM jobq.rate_state, jobq.job LIMIT 1"
    ).fetchall()
    assert 100 / 9_500 <= row.paid <= 100 / 9_500 + 2e-6


@pytest.mark.parametrize("mode", [{"group_mode": "ordered"}, {"group_mode": "fair", "group_limit": 1}])
def test_an_ungrouped_job_between_two_of_a_group_hides_no_running_one(db: Conn, mode: dict[str, Any]) -> None:
    """A claim of jobs without a group learns nothing of who runs in the groups."""
    rule(db, **mode)
    caller = Caller(db)
    for turn in range(12):
        [first] = put(db, f"g{turn}")
        assert caller.claim(1) == [first]
        [plain] = put(db, None)
        assert caller.claim() == [plain]
        [second] = put(db, f"g{turn}")
        assert caller.claim() == [], f"{second} runs beside {first}"
        succeed(db, first, plain, worker=caller.id)
        assert caller.claim() == [second]
        succeed(db, second, worker=caller.id)
