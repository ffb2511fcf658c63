"""Schedules with real workers: each second one job, whatever is killed; declared in code, withdrawn, paused, and changed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from jobq import operations
from jobq.cron import Every
from jobq.schedule import Schedule
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = "tests.apps.scheduled:q"
SMALL = ("--processes", "1", "--concurrency", "4")


def start(worker: StartWorker, scheduled: str, **env: str) -> WorkerProcess:
    running = worker(*SMALL, app=APP, env={"SCHEDULED": scheduled, **env})
    wait_until(lambda: "working" in running.log, what="the worker")
    return running


def row(jobs: Jobs, name: str) -> dict[str, Any]:
    found = jobs.all("SELECT * FROM jobq.schedule WHERE name = %s", name)
    return found[0] if found else {}


def ticks(jobs: Jobs, name: str) -> list[dict[str, Any]]:
    return jobs.all("SELECT * FROM jobq.schedule_tick WHERE schedule = %s ORDER BY tick", name)


def test_each_second_is_one_job_with_two_workers_of_which_one_is_killed(worker: StartWorker, jobs: Jobs) -> None:
    first, second = start(worker, "seconds"), start(worker, "seconds")
    wait_until(lambda: len(ticks(jobs, "seconds")) >= 3, what="three ticks")
    first.kill()
    reached = len(ticks(jobs, "seconds"))
    wait_until(lambda: len(ticks(jobs, "seconds")) >= reached + 3, what="three ticks more")
    third = start(worker, "seconds")
    second.kill()
    reached = len(ticks(jobs, "seconds"))
    wait_until(lambda: len(ticks(jobs, "seconds")) >= reached + 3, what="three ticks more")
    operations.pause_schedule(jobs.connection, "jobq", "seconds", actor="ann")
    found = ticks(jobs, "seconds")
    wait_until(lambda: not jobs.all("SELECT FROM jobq.job"), what="the end of all jobs")
    assert third.is_running()

    moments = [tick["tick"] for tick in found]
    assert {later - earlier for earlier, later in pairwise(moments)} == {timedelta(seconds=1)}
    # Each job belongs to one tick, and knows it.
    by_job = jobs.all(
        "SELECT id, headers ->> 'jobq.tick' AS tick, headers ->> 'jobq.schedule' AS schedule FROM jobq.job_history"
    )
    assert {job["id"] for job in by_job} == {tick["job_id"] for tick in found}
    assert len(by_job) == len(found)
    assert {job["tick"] for job in by_job} == {moment.isoformat() for moment in moments}
    assert {job["schedule"] for job in by_job} == {"seconds"}
    # What ran more than once was taken from a worker that was killed.
    notes = {note for tick in found for note in jobs.traces(tick["job_id"])}
    assert notes == {f"seconds {moment.isoformat()}" for moment in moments}


@pytest.mark.essential
def test_the_tick_is_passed_as_an_argument(worker: StartWorker, jobs: Jobs) -> None:
    start(worker, "told")
    wait_until(lambda: jobs.all("SELECT FROM ran"), what="a job")
    note = jobs.all("SELECT note FROM ran LIMIT 1")[0]["note"]
    moment = ticks(jobs, "told")[0]["tick"]
    assert note == f"hello {moment.isoformat()} True"


def test_a_schedule_in_code_is_declared_changed_and_withdrawn(worker: StartWorker, jobs: Jobs) -> None:
    first = start(worker, "nightly")
    wait_until(lambda: row(jobs, "nightly"), what="the schedule")
    made = row(jobs, "nightly")
    assert (made["source"], made["app"], made["cron"], made["timezone"]) == ("code", APP, "30 2 * * *", "Europe/Berlin")
    operations.pause_schedule(jobs.connection, "jobq", "nightly", actor="ann", reason="not now")

    # A new version beside the old one: other times, the pause stays.
    second = start(worker, "nightly", NIGHTLY="0 4 * * *")
    wait_until(lambda: row(jobs, "nightly")["cron"] == "0 4 * * *", what="the new times")
    changed = row(jobs, "nightly")
    assert changed["next_at"] != made["next_at"]
    assert (changed["paused_by"], changed["pause_reason"]) == ("ann", "not now")
    operations.resume_schedule(jobs.connection, "jobq", "nightly", actor="ann")
    before = row(jobs, "nightly")["next_at"]

    # A version without it: as long as a worker of another still declares it, it stays.
    third = start(worker, "none")
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.worker") == 3, what="three workers")
    first.terminate()
    first.wait()
    assert row(jobs, "nightly")["withdrawn_at"] is None
    second.terminate()
    second.wait()
    jobs.all("SELECT pg_notify('jobq', 'schedules')")
    wait_until(lambda: row(jobs, "nightly")["withdrawn_at"], what="the withdrawal")
    assert "a schedule is withdrawn" in third.log

    # Declared again, it starts over.
    jobs.all("UPDATE jobq.schedule SET next_at = now() - interval '3 days' RETURNING name")
    start(worker, "nightly", NIGHTLY="0 4 * * *")
    wait_until(lambda: row(jobs, "nightly")["withdrawn_at"] is None, what="the return")
    assert row(jobs, "nightly")["next_at"] == before
    assert ticks(jobs, "nightly") == []


def test_what_is_gone_although_it_is_declared_is_written_again(worker: StartWorker, jobs: Jobs) -> None:
    start(worker, "nightly")
    wait_until(lambda: row(jobs, "nightly"), what="the schedule")
    jobs.connection.execute("UPDATE jobq.schedule SET withdrawn_at = now()")
    jobs.all("SELECT pg_notify('jobq', 'schedules')")
    wait_until(lambda: row(jobs, "nightly")["withdrawn_at"] is None, what="its return")
    jobs.connection.execute("DELETE FROM jobq.schedule")
    jobs.all("SELECT pg_notify('jobq', 'schedules')")
    wait_until(lambda: row(jobs, "nightly"), what="its return from nothing")


def test_a_worker_of_another_application_withdraws_nothing(worker: StartWorker, jobs: Jobs) -> None:
    first = start(worker, "nightly")
    wait_until(lambda: row(jobs, "nightly"), what="the schedule")
    first.terminate()
    first.wait()
    jobs.all("UPDATE jobq.schedule SET next_at = now() - interval '3 days' RETURNING name")
    other = worker(*SMALL)
    wait_until(lambda: "working" in other.log, what="the other application's worker")
    operations.set_schedule(
        jobs.connection, "jobq", Schedule(name="other", task="noop", when=Every(timedelta(seconds=1))), actor="ann"
    )
    wait_until(lambda: len(ticks(jobs, "other")) >= 2, what="ticks")
    assert row(jobs, "nightly")["withdrawn_at"] is None
    assert ticks(jobs, "nightly") == []
    # Its own application's worker makes up for the last night.
    start(worker, "nightly")
    wait_until(lambda: len(ticks(jobs, "nightly")) == 1, what="the tick that was missed")


def test_a_schedule_made_at_run_time_ticks_within_moments(worker: StartWorker, jobs: Jobs) -> None:
    """The loop sleeps for up to 30 s: it is woken."""
    start(worker, "none")
    for n in range(2):
        made = Schedule(name=f"s{n}", task="tick", when=Every(timedelta(seconds=1)))
        assert operations.set_schedule(jobs.connection, "jobq", made, actor="ann")
    wait_until(lambda: ticks(jobs, "s0") and ticks(jobs, "s1"), timeout=15, what="ticks of both")


def test_the_connection_is_there_while_a_tick_is_near(worker: StartWorker, jobs: Jobs) -> None:
    def connections() -> int:
        found: int = jobs.one("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobq worker schedules'")
        return found

    start(worker, "nightly", NIGHTLY="0 0 29 2 *")
    wait_until(lambda: row(jobs, "nightly"), what="the schedule")
    wait_until(lambda: connections() == 0, what="the connection to go")
    made = Schedule(name="s", task="tick", when=Every(timedelta(seconds=50)))
    operations.set_schedule(jobs.connection, "jobq", made, actor="ann")
    wait_until(lambda: connections() == 1, what="the connection to stay")


def test_what_cannot_be_understood_stops_nothing_else(worker: StartWorker, jobs: Jobs) -> None:
    for name, cron, zone in (("a", "61 * * * *", "UTC"), ("b", "* * * * *", "Mars/Phobos"), ("c", "0 0 30 2 *", "UTC")):
        jobs.all(
            "INSERT INTO jobq.schedule (name, task, cron, timezone) VALUES (%s, 'tick', %s, %s) RETURNING name",
            name,
            cron,
            zone,
        )
    jobs.all("INSERT INTO jobq.schedule (name, task, every, priority) VALUES ('d', 'tick', '1 s', 77) RETURNING name")
    jobs.all("INSERT INTO jobq.schedule (name, task, every) VALUES ('z', 'tick', '1 s') RETURNING name")
    running = start(worker, "none")
    wait_until(lambda: len(ticks(jobs, "z")) >= 3, what="ticks")
    assert "its minute '61' is invalid" in row(jobs, "a")["last_error"]
    assert "is no zone" in row(jobs, "b")["last_error"]
    assert "its day of month '30'" in row(jobs, "c")["last_error"]
    wait_until(lambda: row(jobs, "d")["last_error"], what="the error of one whose jobs cannot be inserted")
    assert "priority" in row(jobs, "d")["last_error"]
    assert [ticks(jobs, name) for name in "abcd"] == [[], [], [], []]
    assert running.log.count("a schedule cannot tick") == 4
    # Mended, and told: it goes on.
    jobs.all("UPDATE jobq.schedule SET cron = '* * * * * *' WHERE name = 'a' RETURNING name")
    jobs.all("SELECT pg_notify('jobq', 'schedules')")
    wait_until(lambda: ticks(jobs, "a"), what="a tick of the fixed one")
    assert row(jobs, "a")["last_error"] is None


def test_a_name_that_is_taken_at_run_time_stays_so(worker: StartWorker, jobs: Jobs) -> None:
    made = Schedule(name="nightly", task="tick", when=Every(timedelta(days=1)))
    operations.set_schedule(jobs.connection, "jobq", made, actor="ann")
    running = start(worker, "nightly")
    wait_until(lambda: row(jobs, "nightly")["last_error"], what="the complaint")
    assert (row(jobs, "nightly")["source"], row(jobs, "nightly")["every"]) == ("runtime", timedelta(days=1))
    # Its row is committed a moment before the log has it.
    wait_until(lambda: "a schedule's name is taken by one made at run time" in running.log, what="the warning")


@pytest.mark.parametrize("forgotten", ["forgotten"])
def test_a_schedule_on_what_is_no_task_is_told_at_the_start(worker: StartWorker, forgotten: str, tmp_path: Any) -> None:
    (tmp_path / f"{forgotten}.py").write_text(
        "from jobq import JobQ\nq = JobQ()\n@q.schedule('@daily')\ndef lost() -> None: ...\n"
    )
    running = worker(*SMALL, app=f"{forgotten}:q", env={"PYTHONPATH": str(tmp_path)})
    assert running.wait() == 78
    assert "put @q.task on it as well" in running.log


# --- What the database refuses, or takes too long for --------------------------------------------------------------------


def on(jobs: Jobs, table: str, event: str, condition: str, what: str) -> None:
    jobs.connection.execute(
        f"CREATE FUNCTION rule() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN IF {condition} THEN {what}; END IF;"
        " RETURN NEW; END$$".encode()
    )
    jobs.connection.execute(
        f"CREATE TRIGGER rule BEFORE {event} ON jobq.{table} FOR EACH ROW EXECUTE FUNCTION rule()".encode()
    )


def test_a_schedule_whose_insert_takes_long_holds_up_no_other(worker: StartWorker, jobs: Jobs) -> None:
    on(jobs, "job", "INSERT", "NEW.queue = 'slow'", "PERFORM pg_sleep(30)")
    begin = (
        "INSERT INTO jobq.schedule (name, task, queue, every, next_at)"
        " VALUES (%s, 'tick', %s, interval '1 second', date_trunc('second', clock_timestamp()) + interval '1 second')"
    )
    running = start(worker, "none")
    for name in ("another slow", "slow", "quick"):
        jobs.connection.execute(begin, (name, name.removeprefix("another ")))
    tries = (
        "SELECT min((p ->> 'tries')::integer) FROM jobq.worker, jsonb_array_elements(problems) AS p"
        " WHERE p ->> 'what' = 'tick' HAVING count(*) = 2"
    )
    wait_until(lambda: any(value >= 3 for value in column(jobs, tries)), timeout=90, what="three tries of both")
    wait_until(lambda: len(ticks(jobs, "quick")) >= 10, what="the ticks of the other")
    late = "SELECT max(extract(epoch FROM inserted_at - tick))::float8 FROM jobq.schedule_tick WHERE schedule = 'quick'"
    # Both may be tried one after the other, each for two seconds.
    [most] = column(jobs, late)
    assert most < 15
    assert ticks(jobs, "slow") == []
    assert "canceling statement due to statement timeout" in row(jobs, "slow")["last_error"]
    jobs.connection.execute("DROP TRIGGER rule ON jobq.job")
    for name in ("slow", "another slow"):
        wait_until(partial(ticks, jobs, name), timeout=70, what="its turn")
    assert running.is_running()


def column(jobs: Jobs, query: str) -> list[Any]:
    return [next(iter(found.values())) for found in jobs.all(query)]


def test_a_schedule_that_cannot_be_withdrawn_holds_up_no_other(worker: StartWorker, jobs: Jobs) -> None:
    for name in ("bad", "good", "worse"):
        jobs.connection.execute(
            "INSERT INTO jobq.schedule (name, task, queue, every, next_at, source, app)"
            " VALUES (%s, 'tick', 'q', interval '1 minute', now() + interval '1 hour', 'code', %s)",
            (name, APP),
        )
    rule = "IF NEW.name = 'bad' THEN RAISE EXCEPTION 'the rule'; ELSE PERFORM pg_sleep(30); END IF"
    on(jobs, "schedule", "UPDATE", "NEW.withdrawn_at IS NOT NULL AND NEW.name <> 'good'", rule)
    start(worker, "seconds")
    withdrawn = "SELECT name FROM jobq.schedule WHERE withdrawn_at IS NOT NULL"
    wait_until(lambda: column(jobs, withdrawn) == ["good"], timeout=20, what="the withdrawal")
    told = (
        "SELECT p ->> 'error' FROM jobq.worker, jsonb_array_elements(problems) AS p"
        " WHERE p ->> 'what' = 'withdraw schedules'"
    )
    [said] = wait_until(lambda: column(jobs, told), what="the word of it")
    assert said.endswith(
        "refused: schedule bad: the rule; schedule worse: canceling statement due to statement timeout"
    )
    # What was lost is still looked for, and what is declared ticks.
    wait_until(lambda: ticks(jobs, "seconds"), what="a tick")
    jobs.connection.execute("DELETE FROM jobq.schedule WHERE name = 'seconds'")
    wait_until(lambda: row(jobs, "seconds"), timeout=40, what="what was lost")


def test_a_schedule_that_cannot_be_written_down_holds_up_no_other(worker: StartWorker, jobs: Jobs) -> None:
    on(jobs, "schedule", "INSERT", "NEW.name = 'seconds'", "PERFORM pg_sleep(30)")
    start(worker, "seconds,told")
    # It is tried for five seconds.
    wait_until(lambda: ticks(jobs, "told"), timeout=15, what="the other")
    assert row(jobs, "seconds") == {}
