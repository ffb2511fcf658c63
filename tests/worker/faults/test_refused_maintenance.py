"""Schedules and maintenance tasks that the database refuses: that one is recorded and left alone, and the others go on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from flask import Flask

from jobq._worker import WorkerOptions
from jobq._worker.database import Database
from jobq._worker.faults.set_aside import SetAside
from jobq._worker.maintenance.partitions import Incomplete
from jobq._worker.maintenance.runner import Maintenance
from jobq._worker.sources.schedule_tick import tick
from jobq._worker.timeouts import Timeouts
from jobq.cli import main
from jobq.settings import Settings
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.rows import add_worker
from tests.support.workers import WorkerProcess

Conn = psycopg.Connection[Any]
STATES = ["22003", "23505", "42501", "P0001", "XX000", "40001", "53100", "55000", "57014"]


def refuse(db: Conn, table: str, event: str, condition: str, state: str) -> None:
    row = "OLD" if event == "DELETE" else "NEW"
    db.execute(
        f"CREATE OR REPLACE FUNCTION refuse_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF {condition} THEN RAISE EXCEPTION 'the rule' USING ERRCODE = '{state}'; END IF; RETURN {row}; END $$"
    )
    db.execute(
        f"CREATE OR REPLACE TRIGGER refuse BEFORE {event} ON jobq.{table} FOR EACH ROW EXECUTE FUNCTION refuse_{table}()"
    )


def refuse_later(db: Conn, table: str, event: str, condition: str) -> None:
    """Refuse it as a deferred constraint does: at the commit."""
    db.execute(
        f"CREATE FUNCTION refuse_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF {condition} THEN RAISE EXCEPTION 'the rule' USING ERRCODE = '23514'; END IF; RETURN NULL; END $$"
    )
    db.execute(
        f"CREATE CONSTRAINT TRIGGER refuse AFTER {event} ON jobq.{table} DEFERRABLE INITIALLY DEFERRED"
        f" FOR EACH ROW EXECUTE FUNCTION refuse_{table}()"
    )


async def test_a_schedule_whose_job_is_refused(database_url: str, db: Conn, jobs: Jobs) -> None:
    insert = (
        "INSERT INTO jobq.schedule (name, task, queue, every, next_at)"
        " VALUES (%s, 'noop', %s, interval '1 minute', date_trunc('minute', clock_timestamp()) - interval '5 minutes')"
    )
    async with await Database(Settings(database_url=database_url)).connect("test") as connection:
        for state in STATES:
            refuse(db, "job", "INSERT", "NEW.queue = 'bad'", state)
            db.execute("DELETE FROM jobq.schedule")
            db.execute("DELETE FROM jobq.schedule_tick")
            db.execute(insert, ("bad", "bad"))
            db.execute(insert, ("good", "good"))
            skip: list[str] = []
            found = {}
            while (done := await tick(connection, "jobq", skip=skip)) is not None:
                found[done.name] = done
                if done.error is not None:
                    skip.append(done.name)
            assert found["good"].jobs == 1, state
            assert found["bad"].error == "the rule"
            assert found["bad"].transient == (state[:2] in ("40", "53", "55", "57"))
            [(error,)] = db.execute("SELECT last_error FROM jobq.schedule WHERE name = 'bad'").fetchall()
            assert error == "the rule"


async def test_a_maintenance_task_that_is_refused(database_url: str, db: Conn) -> None:
    options = WorkerOptions(app="-", settings=Settings(database_url=database_url))
    maintenance = Maintenance(options)
    worker = add_worker(db)
    async with await Database(Settings(database_url=database_url)).connect("test") as connection:
        await maintenance.register(connection)
        everything = await maintenance.run_due(connection, worker)
        for state in STATES:
            refuse(db, "maintenance_task", "UPDATE", "NEW.name = 'keys' AND NEW.last_run_at > OLD.last_run_at", state)
            db.execute("ALTER TABLE jobq.maintenance_task DISABLE TRIGGER refuse")
            db.execute(
                "UPDATE jobq.maintenance_task SET due_at = now() - interval '1 second', last_run_at = '2020-01-01'"
            )
            db.execute("ALTER TABLE jobq.maintenance_task ENABLE TRIGGER refuse")
            assert await maintenance.run_due(connection, worker) == everything
            [(left,)] = db.execute(
                "SELECT array_agg(name) FROM jobq.maintenance_task WHERE last_run_at = '2020-01-01'"
            ).fetchall()
            assert left == ["keys"], state


@pytest.mark.parametrize("state", [*STATES, "deferred"])
async def test_rows_that_a_maintenance_task_may_not_change_hold_up_no_others(
    database_url: str, db: Conn, state: str
) -> None:
    options = WorkerOptions(app="-", settings=Settings(database_url=database_url), park_patience=0)
    maintenance = Maintenance(options)
    # Expired keys and jobs, and parked jobs whose arguments fit no code: the third of each is refused, so is the last but one.
    db.execute(
        "INSERT INTO jobq.job_key SELECT n, now(), now() - n * interval '1 s', n, 'period' FROM generate_series(1, 40) n"
    )
    late = (
        "INSERT INTO jobq.job (task, queue, expires_at)"
        " SELECT 't', 'q' || n, now() - interval '1 s' FROM generate_series(1, 40) n"
    )
    parked = (
        "INSERT INTO jobq.job (task, queue, state, claims, parked_at, parked_claims, parked_signature)"
        " SELECT 't', 'q' || n, 'parked', 1, now() - interval '1 s', 1, 'old' FROM generate_series(1, 40) n"
    )
    db.execute(late)
    db.execute(parked)
    for table, condition in (("job", "OLD.queue IN ('q3', 'q39')"), ("job_key", "OLD.key IN ('3', '39')")):
        if state == "deferred":
            refuse_later(db, table, "DELETE", condition)
        else:
            refuse(db, table, "DELETE", condition, state)
    async with await Database(Settings(database_url=database_url)).connect("test") as connection:
        for work, name in (
            (maintenance.tasks.expire_keys, "key of job"),
            (maintenance.tasks.expire_jobs, "job"),
            (maintenance.tasks.fail_parked, "job"),
        ):
            if state[:2] in ("40", "53", "55", "57"):
                # It may have been the lock of another, or the moment: all of them again, twice.
                for _ in range(2):
                    with pytest.raises(psycopg.Error, match="the rule"):
                        await work(connection)
            with pytest.raises(Incomplete, match=rf"^38 .*refused: {name} \w+: the rule; {name} \w+: the rule$"):
                await work(connection)
        assert db.execute("SELECT count(*) FROM jobq.job_key").fetchall() == [(2,)]
        assert db.execute("SELECT state, count(*) FROM jobq.job GROUP BY 1 ORDER BY 1").fetchall() == [
            ("parked", 2),
            ("ready", 2),
        ]
        # Once the rule is gone, and it is time to try again.
        db.execute("DROP TRIGGER refuse ON jobq.job; DROP TRIGGER refuse ON jobq.job_key")
        other = Maintenance(options)
        assert await other.tasks.expire_keys(connection) == "2 keys expired"
        assert await other.tasks.expire_jobs(connection) == "2 jobs expired"
        assert (await other.tasks.fail_parked(connection)).startswith("2 jobs failed")


async def test_a_row_that_takes_too_long_is_found_in_short_tries(database_url: str, db: Conn) -> None:
    db.execute("INSERT INTO jobq.job_key SELECT n, now(), now(), n, 'period' FROM generate_series(1, 64) n")
    db.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF OLD.key = '5' THEN PERFORM pg_sleep(60); END IF; RETURN OLD; END $$"
    )
    db.execute("CREATE TRIGGER slow BEFORE DELETE ON jobq.job_key FOR EACH ROW EXECUTE FUNCTION slow()")
    aside = SetAside[str](patience=1, seconds=0.2)
    keys = [str(n) for n in range(1, 65)]

    async def delete(part: list[str]) -> int:
        return (await connection.execute("DELETE FROM jobq.job_key WHERE key = ANY(%s)", [part])).rowcount

    async with await Database(Settings(database_url=database_url)).connect(
        "test", Timeouts(statement=3.0)
    ) as connection:
        begun = time.monotonic()
        async with connection.transaction():
            assert sum(await aside.change(connection, keys, delete)) == 63
        # Once as long as all may take, and seven times a fifth of a second.
        assert time.monotonic() - begun < 9
    assert aside.refused("key") == "key 5: canceling statement due to statement timeout"


@pytest.mark.parametrize("state", ["P0001", "deferred"])
async def test_ticks_that_cannot_be_deleted_hold_up_no_others(database_url: str, db: Conn, state: str) -> None:
    db.execute(
        "INSERT INTO jobq.schedule_tick (job_id, schedule, tick, inserted_at)"
        " SELECT n, CASE n WHEN 3 THEN 'bad' ELSE 'good' END,"
        " '2020-01-01T00:00Z'::timestamptz + n * interval '1 s', now() - interval '400 days' + n * interval '1 s'"
        " FROM generate_series(1, 40) AS n"
    )
    if state == "deferred":
        refuse_later(db, "schedule_tick", "DELETE", "OLD.schedule = 'bad'")
    else:
        refuse(db, "schedule_tick", "DELETE", "OLD.schedule = 'bad'", state)
    options = WorkerOptions(app="-", settings=Settings(database_url=database_url))
    async with await Database(Settings(database_url=database_url)).connect("test") as connection:
        maintenance = Maintenance(options)
        for deleted in (39, 0):
            told = rf"^{deleted} ticks expired; refused: tick bad/2020-01-01 00:00:03\+00: the rule$"
            with pytest.raises(Incomplete, match=told):
                await maintenance.tasks.expire_ticks(connection)
        assert db.execute("SELECT schedule FROM jobq.schedule_tick").fetchall() == [("bad",)]
        db.execute("DROP TRIGGER refuse ON jobq.schedule_tick")
        assert await Maintenance(options).tasks.expire_ticks(connection) == "1 ticks expired"


async def test_a_job_that_an_application_refers_to_holds_up_no_other_that_expires(database_url: str, db: Conn) -> None:
    """Through a foreign key that is asked at the commit."""
    db.execute("CREATE TABLE invoice (job bigint REFERENCES jobq.job (id) DEFERRABLE INITIALLY DEFERRED)")
    late = "INSERT INTO jobq.job (task, expires_at) SELECT 't', now() - interval '1 s' FROM generate_series(1, 40)"
    db.execute(late)
    db.execute("INSERT INTO invoice SELECT min(id) FROM jobq.job")
    maintenance = Maintenance(WorkerOptions(app="-", settings=Settings(database_url=database_url)))
    async with await Database(Settings(database_url=database_url)).connect("test") as connection:
        with pytest.raises(Incomplete, match=r"^39 jobs expired; refused: job \d+: .* violates foreign key"):
            await maintenance.tasks.expire_jobs(connection)
    assert db.execute("SELECT array_agg(id) = array_agg(job) FROM jobq.job, invoice").fetchall() == [(True,)]


async def test_a_maintenance_task_is_charged_with_what_is_asked_at_its_commit(
    database_url: str, db: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.execute("CREATE TABLE other (n integer)")
    db.execute("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the rule'; END $$")
    db.execute(
        "CREATE CONSTRAINT TRIGGER no AFTER INSERT ON other DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION no()"
    )

    async def rollup(connection: psycopg.AsyncConnection[Any], *_: Any) -> str:
        await connection.execute("INSERT INTO public.other VALUES (1)")
        return "done"

    monkeypatch.setattr("jobq._worker.maintenance.tasks.rollup", rollup)
    maintenance = Maintenance(WorkerOptions(app="-", settings=Settings(database_url=database_url)))
    async with await Database(Settings(database_url=database_url)).connect("test") as connection:
        await maintenance.register(connection)
        await maintenance.run_due(connection, add_worker(db))
    [(error,)] = db.execute("SELECT last_error FROM jobq.maintenance_task WHERE name = 'rollup'").fetchall()
    assert error.startswith("the rule")
    assert db.execute("SELECT count(*) FROM jobq.maintenance_task WHERE last_run_at IS NULL").fetchall() == [(0,)]


def test_problems_are_shown(database_url: str, db: Conn, make_app: Callable[..., Flask]) -> None:
    problem = {
        "what": "write an outcome",
        "job": 7,
        "error": "the <rule>",
        "since": "2026-01-01T00:00:00+00:00",
        "tries": 3,
    }
    add_worker(db, problems=[problem])
    environment = {"JOBQ_DATABASE_URL": database_url}
    found = CliRunner().invoke(main, ["doctor", "--json"], env=environment)
    [check] = [check for check in json.loads(found.stdout)["checks"] if check["check"] == "problems"]
    assert check["status"] == "fail"
    assert "cannot write an outcome (job 7)" in check["message"]
    assert "1 problem" in CliRunner().invoke(main, ["workers", "list"], env=environment).stdout
    shown = make_app(database_url).test_client().get("/workers").get_data(as_text=True)
    assert "write an outcome" in shown
    assert "the &lt;rule&gt;" in shown


@pytest.mark.parametrize(
    "statement", ["INSERT INTO jobq.maintenance_task (name) VALUES ('keys') ON CONFLICT DO NOTHING"]
)
def test_an_error_of_data_at_the_start_does_not_end_a_worker(
    db: Conn, jobs: Jobs, worker: Callable[..., WorkerProcess], statement: str
) -> None:
    db.execute(statement)
    refuse(db, "maintenance_task", "UPDATE", "true", "23505")
    running = worker("--processes", "1")
    job = apps.noop.enqueue(jobs.connection).id
    assert jobs.wait(job)["state"] == "succeeded"
    assert running.is_running()
