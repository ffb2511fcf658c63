"""The scheduler's transaction, and what operators do with schedules, on a database of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection

from jobq import InvalidArguments, InvalidOption, JobQ, UnknownSchedule, UnknownTask, operations, queries
from jobq._postgres.sql import statement
from jobq._worker.sources.schedule_tick import Ticked, tick
from jobq.cron import Cron, Every, When
from jobq.schedule import Schedule
from tests.support.rows import ALL_TICKS, add_worker

Conn = psycopg.Connection[Any]
START = datetime(2026, 3, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURLY = Every(HOUR)


def add(db: Conn, name: str = "s", when: When = HOURLY, *, next_at: datetime | None = START, **options: Any) -> None:
    """Make a schedule whose first tick is `next_at`."""
    made = Schedule(name=name, task=options.pop("task", "t"), when=when, **options)
    operations.set_schedule(db, "jobq", made, actor="ann")
    if next_at is not None:
        db.execute("UPDATE jobq.schedule SET next_at = %s WHERE name = %s", (next_at, name))


async def turn(url: str, now: datetime | None, skip: list[str] | None = None) -> list[Ticked]:
    """What one worker's look at `now` does."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        done: list[Ticked] = []
        while found := await tick(
            connection, "jobq", now=now, skip=[*(skip or []), *(d.name for d in done if d.error)]
        ):
            done.append(found)
        return done


def jobs_of(db: Conn) -> list[tuple[Any, ...]]:
    return db.execute(
        "SELECT headers ->> 'jobq.schedule', headers ->> 'jobq.tick' FROM jobq.job ORDER BY id"
    ).fetchall()


def ticks_of(db: Conn, name: str = "s") -> list[datetime]:
    return [
        row[0] for row in db.execute("SELECT tick FROM jobq.schedule_tick WHERE schedule = %s ORDER BY tick", (name,))
    ]


def value(db: Conn, column: str, name: str = "s") -> Any:
    row = db.execute(f"SELECT {column} FROM jobq.schedule WHERE name = %s".encode(), (name,)).fetchone()
    return row and row[0]


# --- Ticks -------------------------------------------------------------------------------------------------------------


async def test_a_tick_is_a_job_as_the_schedule_says(db: Conn, database_url: str) -> None:
    add(
        db,
        task="mail.send",
        args={"to": "ann", "n": [1, None]},
        tick_argument="at",
        queue="mail",
        priority=8,
        max_attempts=3,
        timeout=9.5,
        headers={"tags": ["x"]},
    )
    before = datetime.now(UTC)
    assert await turn(database_url, START + timedelta(seconds=1)) == [Ticked("s", 1)]
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        [job] = cursor.execute("SELECT * FROM jobq.job").fetchall()
    iso = START.isoformat()
    assert job["args"] == {"to": "ann", "n": [1, None], "at": iso}
    assert job["headers"] == {"tags": ["x"], "jobq.schedule": "s", "jobq.tick": iso}
    assert (job["task"], job["queue"], job["priority"], job["max_attempts"], job["timeout"]) == (
        "mail.send",
        "mail",
        8,
        3,
        9.5,
    )
    # Never in the past, however late the tick.
    assert job["run_at"] > before
    assert db.execute("SELECT tick, job_id FROM jobq.schedule_tick").fetchall() == [(START, job["id"])]
    assert (value(db, "next_at"), value(db, "last_tick"), value(db, "last_job_id")) == (START + HOUR, START, job["id"])
    assert await turn(database_url, START + timedelta(seconds=2)) == []


@pytest.mark.parametrize(
    ("missed", "expected"),
    [("all", [0, 1, 2, 3]), ("last", [3]), ("skip", [])],
)
async def test_missed_ticks(db: Conn, database_url: str, missed: Any, expected: list[int]) -> None:
    add(db, missed=missed)
    await turn(database_url, START + 3 * HOUR + timedelta(minutes=10))
    assert ticks_of(db) == [START + n * HOUR for n in expected]
    assert len(jobs_of(db)) == len(expected)
    assert value(db, "next_at") == START + 4 * HOUR


async def test_the_cap_keeps_the_latest(db: Conn, database_url: str) -> None:
    add(db, missed="all", max_missed=2)
    await turn(database_url, START + 50 * HOUR)
    assert ticks_of(db) == [START + 49 * HOUR, START + 50 * HOUR]


async def test_ten_workers_that_look_at_once_insert_a_tick_once(db: Conn, database_url: str) -> None:
    for n in range(20):
        add(db, f"s{n:02}")
    for hour in range(5):
        turns = await asyncio.gather(*(turn(database_url, START + hour * HOUR) for _ in range(10)))
        assert sum(done.jobs for found in turns for done in found) == 20
    assert len(set(jobs_of(db))) == len(jobs_of(db)) == 100


async def test_a_worker_killed_in_the_transaction_has_done_nothing(db: Conn, database_url: str) -> None:
    add(db)
    async with await AsyncConnection.connect(database_url, autocommit=True) as dying:
        db.execute(
            "CREATE FUNCTION jobq.die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$"
        )
        db.execute("CREATE TRIGGER die BEFORE UPDATE ON jobq.schedule FOR EACH ROW EXECUTE FUNCTION jobq.die()")
        with pytest.raises(psycopg.OperationalError):
            await tick(dying, "jobq", now=START)
    db.execute("DROP TRIGGER die ON jobq.schedule")
    assert (jobs_of(db), ticks_of(db), value(db, "next_at")) == ([], [], START)
    assert await turn(database_url, START) == [Ticked("s", 1)]


async def test_a_tick_that_is_there_already_is_not_inserted_again(db: Conn, database_url: str) -> None:
    """As when an operator has set next_at back by hand."""
    add(db, missed="all")
    await turn(database_url, START + HOUR)
    db.execute("UPDATE jobq.schedule SET next_at = %s", (START,))
    assert await turn(database_url, START + 2 * HOUR) == [Ticked("s", 1)]
    assert ticks_of(db) == [START, START + HOUR, START + 2 * HOUR]
    assert len(jobs_of(db)) == 3


async def test_what_somebody_else_looks_at_is_left_to_them(db: Conn, database_url: str) -> None:
    add(db)
    add(db, "t")
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM jobq.schedule WHERE name = 's' FOR UPDATE")
        assert await turn(database_url, START) == [Ticked("t", 1)]
    assert await turn(database_url, START) == [Ticked("s", 1)]


async def test_a_row_written_by_hand_begins_now(db: Conn, database_url: str) -> None:
    db.execute("INSERT INTO jobq.schedule (name, task, cron) VALUES ('s', 't', '0 7 * * *')")
    assert await turn(database_url, START) == [Ticked("s", 0)]
    assert value(db, "next_at") == datetime(2026, 3, 29, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("column", "bad", "said"),
    [
        ("cron", "61 * * * *", "its minute '61' is invalid"),
        ("timezone", "Mars/Phobos", "is no zone"),
        ("priority", 77, "priority"),
        ("queue", "", "queue"),
        ("timeout", -1, "timeout"),
    ],
)
async def test_a_bad_row_is_marked_and_passed_over(
    db: Conn, database_url: str, column: str, bad: Any, said: str
) -> None:
    add(db, "good", Cron("0 * * * *"))
    add(db, "bad", Cron("0 * * * *"), next_at=START - HOUR)
    query = f"UPDATE jobq.schedule SET {column} = %s WHERE name = 'bad'".encode()
    db.execute(query, (bad,))
    done = await turn(database_url, START)
    assert [(one.name, one.jobs) for one in done] == [("bad", 0), ("good", 1)]
    assert said in value(db, "last_error", "bad")
    assert (ticks_of(db, "bad"), value(db, "next_at", "bad")) == ([], START - HOUR)
    [info] = [info for info in queries.schedules(db, "jobq") if info.name == "bad"]
    assert info.status == "broken"
    assert said in (info.last_error or "")
    # Mended, it makes up for what it missed.
    fine = {"cron": "0 * * * *", "timezone": "UTC", "priority": 5, "queue": "default", "timeout": None}
    db.execute(query, (fine[column],))
    assert await turn(database_url, START) == [Ticked("bad", 1)]
    assert value(db, "last_error", "bad") is None


async def test_an_interval_that_python_cannot_hold_stops_nobody(db: Conn, database_url: str) -> None:
    for name, every in (("a", "100000000 years"), ("b", "-100000000 years"), ("c", "0 s")):
        db.execute(
            "INSERT INTO jobq.schedule (name, task, every, next_at) VALUES (%s, 't', %s, %s)", (name, every, START)
        )
    db.execute("INSERT INTO jobq.schedule (name, task, cron, next_at) VALUES ('e', 't', '@daily', 'infinity')")
    add(db, "z")
    assert [(one.name, one.jobs) for one in await turn(database_url, START)] == [("a", 0), ("b", 0), ("c", 0), ("z", 1)]
    assert [info.status for info in queries.schedules(db, "jobq")] == ["broken", "broken", "broken", "ticking", "late"]


async def test_one_whose_insert_takes_too_long_stops_nobody(db: Conn, database_url: str) -> None:
    db.execute(
        "CREATE FUNCTION jobq.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$"
    )
    db.execute(
        "CREATE TRIGGER slow BEFORE INSERT ON jobq.job FOR EACH ROW WHEN (NEW.task = 'slow') EXECUTE FUNCTION jobq.slow()"
    )
    add(db, "a", task="slow")
    add(db, "z")
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("SET statement_timeout = '300ms'")
        first = await tick(connection, "jobq", now=START)
        assert first is not None
        assert "statement timeout" in (first.error or "")
        assert await tick(connection, "jobq", now=START, skip=["a"]) == Ticked("z", 1)


async def test_paused_and_withdrawn_ones_do_not_tick(db: Conn, database_url: str) -> None:
    for name, column in (("p", "paused_at"), ("w", "withdrawn_at")):
        add(db, name)
        db.execute(f"UPDATE jobq.schedule SET {column} = now() WHERE name = '{name}'".encode())
    assert await turn(database_url, START) == []


async def test_one_in_code_ticks_while_a_live_worker_declares_it(db: Conn, database_url: str) -> None:
    add(db)
    db.execute("UPDATE jobq.schedule SET source = 'code', app = 'shop:q'")
    declaring(db, ["other"])
    assert await turn(database_url, START) == []
    declaring(db, ["other", "s"])
    assert await turn(database_url, START) == [Ticked("s", 1)]


def test_when_a_schedule_is_withdrawn(db: Conn) -> None:
    def withdrawn() -> list[str]:
        return [row[0] for row in db.execute(statement("schedule_withdraw", "jobq").query, {"only": None})]

    add(db)
    add(db, "runtime")
    db.execute("UPDATE jobq.schedule SET source = 'code', app = 'shop:q' WHERE name = 's'")
    # Its application has no worker at all: no one knows.
    declaring(db, [], app="blog:q")
    assert withdrawn() == []
    # An outage is over, and the worker that declares it has not had its heartbeat yet.
    last = declaring(db, ["s"], ago=3600)
    declaring(db, [])
    assert withdrawn() == []
    db.execute("DELETE FROM jobq.worker WHERE id = %s", (last,))
    assert withdrawn() == ["s"]
    assert withdrawn() == []


def declaring(db: Conn, names: list[str], *, app: str = "shop:q", ago: float = 0) -> UUID:
    worker = add_worker(db, app=app, ago=ago)
    db.execute("UPDATE jobq.worker SET schedules = %s WHERE id = %s", (names, worker))
    return worker


# --- Operators ---------------------------------------------------------------------------------------------------------


def audit(db: Conn) -> list[tuple[Any, ...]]:
    return db.execute("SELECT action, actor, target, reason, before, after FROM jobq.audit ORDER BY id").fetchall()


def test_adding_and_replacing(db: Conn) -> None:
    daily = Schedule(name="s", task="t", when=Cron("0 7 * * *", "Europe/Berlin"), args={"secret": "x"})
    assert operations.set_schedule(db, "jobq", daily, actor="ann", reason="needed")
    first = value(db, "next_at")
    assert first > datetime.now(UTC)
    with pytest.raises(InvalidOption, match="name='s' is taken by a schedule of task t: choose another, or replace it"):
        operations.set_schedule(db, "jobq", daily, actor="ann")
    other = Schedule(name="s", task="u", when=Cron("0 7 * * *", "Europe/Berlin"), priority=9)
    assert not operations.set_schedule(db, "jobq", other, actor="bob", replace=True)
    # Its times are as they were, and so is where it stands in them.
    assert (value(db, "task"), value(db, "priority"), value(db, "next_at")) == ("u", 9, first)
    operations.set_schedule(db, "jobq", Schedule(name="s", task="u", when=HOURLY), actor="bob", replace=True)
    assert value(db, "next_at") < datetime.now(UTC) + HOUR

    (added, changed, _) = audit(db)
    assert added[:4] == ("schedule_set", "ann", {"schedule": "s"}, "needed")
    assert added[4] is None
    assert added[5]["cron"] == "0 7 * * *"
    assert "secret" not in str(added)
    assert (changed[4]["task"], changed[5]["task"]) == ("t", "u")


def test_a_name_in_code_is_taken(db: Conn) -> None:
    add(db)
    db.execute("UPDATE jobq.schedule SET source = 'code', app = 'shop:q'")
    for replace in (False, True):
        with pytest.raises(InvalidOption, match="is taken by a schedule that application shop:q declares"):
            operations.set_schedule(db, "jobq", Schedule(name="s", task="t", when=HOURLY), actor="a", replace=replace)


def test_two_who_add_the_same_name_at_once(db: Conn, database_url: str) -> None:
    """The second waits for the first, and is refused."""
    made = Schedule(name="s", task="t", when=HOURLY)
    said: list[str] = []

    def second() -> None:
        with psycopg.connect(database_url) as conn:
            try:
                operations.set_schedule(conn, "jobq", made, actor="bob")
            except InvalidOption as error:
                said.append(str(error))

    with psycopg.connect(database_url) as conn:
        operations.set_schedule(conn, "jobq", made, actor="ann")
        thread = threading.Thread(target=second)
        thread.start()
        conn.commit()
    thread.join(20)
    assert len(said) == 1
    assert value(db, "made_by") == "ann"


async def test_pause_and_resume(db: Conn, database_url: str) -> None:
    add(db, missed="all")
    assert operations.pause_schedule(db, "jobq", "s", actor="ann", reason="broken")
    assert not operations.pause_schedule(db, "jobq", "s", actor="bob")
    assert (value(db, "paused_by"), value(db, "pause_reason")) == ("ann", "broken")
    assert await turn(database_url, None) == []
    assert operations.resume_schedule(db, "jobq", "s", actor="ann")
    assert not operations.resume_schedule(db, "jobq", "s", actor="ann")
    # The ticks of the pause are not made up for.
    assert value(db, "next_at") > datetime.now(UTC)
    assert await turn(database_url, None) == []
    assert [row[0] for row in audit(db)] == ["schedule_set", "schedule_pause", "schedule_resume"]


def test_removing(db: Conn) -> None:
    add(db)
    operations.remove_schedule(db, "jobq", "s", actor="ann")
    assert value(db, "name") is None
    with pytest.raises(UnknownSchedule, match="there is no schedule 's'"):
        operations.remove_schedule(db, "jobq", "s", actor="ann")
    # One in code: only once no live worker declares it.
    add(db)
    db.execute("UPDATE jobq.schedule SET source = 'code', app = 'shop:q'")
    worker = declaring(db, ["s"])
    with pytest.raises(InvalidOption, match="is declared by application shop:q and would come back"):
        operations.remove_schedule(db, "jobq", "s", actor="ann")
    db.execute("DELETE FROM jobq.worker WHERE id = %s", (worker,))
    operations.remove_schedule(db, "jobq", "s", actor="ann")


def test_running_one_now_is_no_tick(db: Conn) -> None:
    add(db, tick_argument="at", args={"n": 1}, next_at=None)
    before = value(db, "next_at")
    job = operations.run_schedule(db, "jobq", "s", actor="ann")
    row = db.execute("SELECT id, args, headers FROM jobq.job").fetchone()
    assert row is not None
    assert row[0] == job
    assert row[1]["n"] == 1
    assert abs(datetime.fromisoformat(row[1]["at"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert row[2] == {"jobq.schedule": "s"}
    assert (value(db, "next_at"), ticks_of(db)) == (before, [])
    assert audit(db)[-1][:3] == ("schedule_run", "ann", {"schedule": "s", "job": job})


@pytest.mark.parametrize("name", ["pause_schedule", "resume_schedule", "remove_schedule", "run_schedule"])
def test_unknown_names(db: Conn, name: str) -> None:
    change: Callable[..., Any] = getattr(operations, name)
    with pytest.raises(UnknownSchedule, match="there is no schedule 'nosuch'"):
        change(db, "jobq", "nosuch", actor="ann")
    with pytest.raises(InvalidOption, match="actor"):
        change(db, "jobq", "nosuch", actor=" ")
    assert audit(db) == []


def test_the_application_adds_what_fits_its_task(db: Conn, database_url: str) -> None:
    q = JobQ(database_url)

    @q.task(queue="reports", priority=2)
    def report(customer: int, at: datetime) -> None: ...

    try:
        assert q.add_schedule(
            report,
            "0 6 1 * *",
            timezone="Europe/Berlin",
            name="report:42",
            args={"customer": 42},
            tick_argument="at",
            actor="app",
        )
        with pytest.raises(InvalidArguments, match="customer"):
            q.add_schedule(
                "report", "@daily", name="report:43", args={"customer": "x"}, tick_argument="at", actor="app"
            )
        with pytest.raises(UnknownTask):
            q.add_schedule("nosuch", "@daily", name="x", actor="app")
    finally:
        q.close()
    [info] = queries.schedules(db, "jobq")
    assert (info.name, info.queue, info.priority, info.args, info.tick_argument) == (
        "report:42",
        "reports",
        2,
        {"customer": 42},
        "at",
    )


# --- What is shown -----------------------------------------------------------------------------------------------------


def test_what_is_shown_of_each(db: Conn) -> None:
    add(db, "fine", Cron("0 7 * * mon-fri", "Europe/Berlin"), next_at=None)
    add(db, "late")
    add(db, "code")
    db.execute("UPDATE jobq.schedule SET source = 'code', app = 'a' WHERE name = 'code'")
    add(db, "gone")
    db.execute("UPDATE jobq.schedule SET source = 'code', withdrawn_at = now() WHERE name = 'gone'")
    add(db, "still")
    operations.pause_schedule(db, "jobq", "still", actor="ann")
    found = queries.schedules(db, "jobq", preview=4)
    assert {info.name: info.status for info in found} == {
        "code": "undeclared",
        "fine": "ticking",
        "gone": "withdrawn",
        "late": "late",
        "still": "paused",
    }
    fine = next(info for info in found if info.name == "fine")
    assert fine.description == "at 07:00 on Monday through Friday, Europe/Berlin"
    assert len(fine.next_ticks) == 4
    assert fine.next_ticks[0] == fine.next_at
    # A page at a time.
    assert [info.name for info in queries.schedules(db, "jobq", after="fine", limit=2)] == ["gone", "late"]
    assert queries.schedule(db, "jobq", "nosuch") is None


async def test_ticks_are_shown_with_their_jobs_and_go_when_they_are_old(db: Conn, database_url: str) -> None:
    add(db, missed="all")
    await turn(database_url, START + 4 * HOUR)
    shown = queries.schedule_ticks(db, "jobq", "s", limit=3)
    assert [info.tick for info in shown] == [START + n * HOUR for n in (4, 3, 2)]
    db.execute(
        "UPDATE jobq.schedule_tick SET inserted_at = now() - interval '8 days' WHERE tick < %s", (START + 3 * HOUR,)
    )
    params = {"keep": timedelta(days=7), "batch": 2, **ALL_TICKS}
    query = statement("schedule_ticks_expire", "jobq").query
    assert [db.execute(query, params).fetchone() for _ in range(3)] == [(2,), (1,), (0,)]
    assert ticks_of(db) == [START + 3 * HOUR, START + 4 * HOUR]
