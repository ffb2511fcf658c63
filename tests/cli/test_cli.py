"""The command line on a real database: what it prints, what it changes, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from jobq import migrate, operations
from jobq.cli import main
from jobq.diagnostics import load, server
from jobq.filters import JobFilter
from tests.support.checks import some
from tests.support.rows import add_attempt, add_finished, add_job, add_worker
from tests.support.servers.postgres import OwnServer
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]
Run = Callable[..., Result]


@pytest.fixture
def db(database_url: str) -> Iterator[Conn]:
    """A connection that commits each statement by itself."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def run(database_url: str) -> Run:
    """Run the command line in this process."""

    def call(*arguments: str, answer: str | None = None, code: int = 0, **env: str | None) -> Result:
        environment = {"JOBQ_DATABASE_URL": database_url, "JOBQ_APP": None, "JOBQ_ACTOR": "ann", **env}
        result = CliRunner().invoke(main, arguments, input=answer, env=environment)
        assert result.exit_code == code, result.output
        return result

    return call


def document(result: Result) -> Any:
    return json.loads(result.stdout)


def states(db: Conn) -> dict[int, str]:
    query = "SELECT id, state FROM jobq.job UNION ALL SELECT id, state FROM jobq.job_history"
    return dict(db.execute(query).fetchall())


# --- migrate


def test_migrate_tells_asks_and_does(run: Run, empty_database_url: str) -> None:
    here = {"JOBQ_DATABASE_URL": empty_database_url}
    assert "no tables" in run("migrate", "--check", code=78, **here).stderr
    assert "nothing was changed" in run("migrate", answer="n\n", code=1, **here).stderr
    assert "--yes" in run("migrate", answer="", code=64, **here).stderr
    assert migrate.current(empty_database_url) is None
    asked = run("migrate", answer="y\n", **here)
    assert migrate.head() in asked.stderr
    assert migrate.current(empty_database_url) == migrate.head()
    assert document(run("migrate", "--json", **here))["applied"] == []
    assert document(run("migrate", "--check", "--json", **here))["pending"] == []


def test_migrate_goes_back_only_when_told_so(run: Run, database_url: str) -> None:
    asked = run("migrate", "--downgrade", "base", answer="n\n", code=1)
    assert "every job" in asked.stderr
    assert migrate.current(database_url) == migrate.head()
    run("migrate", "--downgrade", "nowhere", "--yes", code=64)
    back = run("migrate", "--downgrade", "base", "--yes", "--json")
    assert document(back)["after"] is None
    assert "schema 'jobq' is removed" in back.stderr
    assert migrate.current(database_url) is None
    assert "nothing to do" in run("migrate", "--downgrade", "base").stderr


def test_migrate_prints_sql_that_makes_the_schema(run: Run, empty_database_url: str) -> None:
    result = run("migrate", "--sql", JOBQ_DATABASE_URL=None)
    assert document(run("migrate", "--sql", "--json"))["sql"] == result.stdout
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(result.stdout.encode())
    assert migrate.current(empty_database_url) == migrate.head()
    run("migrate", "--sql", "--from", "nowhere", code=64)
    run("migrate", "--from", "0001", code=64)
    run("migrate", "--sql", "--check", code=64)


def test_a_schema_of_a_newer_jobq_is_told(run: Run, db: Conn) -> None:
    db.execute("UPDATE jobq.schema_version SET version_num = '9999'")
    assert "newer" in run("migrate", code=78).stderr
    assert "newer" in run("doctor", code=78).stdout


# --- jobs


def test_list_pages_and_filters(run: Run, db: Conn) -> None:
    ids = [add_job(db, queue="mail" if n % 2 else "default") for n in range(5)]
    add_job(db, run_in=3600)
    failed = add_finished(db, "failed", error="boom\nsecond line")
    page = document(run("jobs", "list", "--state", "ready", "--limit", "3", "--json"))
    assert [job["id"] for job in page["jobs"]] == ids[:1:-1]
    rest = document(run("jobs", "list", "--state", "ready", "--json", "--before", str(page["next_before"])))
    assert [job["id"] for job in rest["jobs"]] == ids[1::-1]
    assert rest["next_before"] is None
    assert len(document(run("jobs", "list", "--queue", "mail", "--json"))["jobs"]) == 2
    assert len(document(run("jobs", "list", "--json", JOBQ_JOBS_LIST_STATE="scheduled"))["jobs"]) == 1
    shown = run("jobs", "list")
    assert f"{failed}" in shown.stdout
    assert "boom" in shown.stdout
    assert "second line" not in shown.stdout
    assert "no jobs" in run("jobs", "list", "--task", "none").stderr
    run("jobs", "list", "--state", "lost", code=64)


def test_list_by_a_filter(run: Run, db: Conn) -> None:
    wanted = add_finished(db, "failed", task="mail.send", args={"order_id": 42}, ago=7200)
    add_finished(db, "failed", task="mail.send", args={"order_id": 42})
    add_finished(db, "failed", task="mail.check", args={"order_id": 42}, ago=7200)
    text = "state:failed age:>1h args.order_id:42"
    page = document(run("jobs", "list", "--where", text, "--task", "mail.send", "--json"))
    assert [job["id"] for job in page["jobs"]] == [wanted]
    assert document(run("jobs", "list", "--json", JOBQ_JOBS_LIST_WHERE=f"id:{wanted}"))["jobs"][0]["id"] == wanted
    assert "did you mean state?" in run("jobs", "list", "--where", "stat:failed", code=64).stderr
    assert "the filter has state: already" in run("jobs", "list", "--where", text, "--state", "ready", code=64).stderr


def test_export(run: Run, db: Conn) -> None:
    ids = [add_job(db, args={"n": n, "text": "é\u202e\n"}) for n in range(3)]
    ids.append(add_finished(db, "succeeded", result={"large": 2**60 + 1}))
    rows = [json.loads(line) for line in run("jobs", "export").stdout.splitlines()]
    assert [row["id"] for row in rows] == ids[::-1]
    assert rows[0]["result"] == {"large": 2**60 + 1}
    assert rows[1]["args"] == {"n": 2, "text": "é\u202e\n"}
    assert len(run("jobs", "export", "--where", "args.n:1").stdout.splitlines()) == 1
    assert len(run("jobs", "export", "--state", "ready", "--limit", "2").stdout.splitlines()) == 2
    assert run("jobs", "export", "--where", "args.n:9").stdout == ""
    assert "is no age" in run("jobs", "export", "--where", "age:>5parsecs", code=64).stderr


def test_show(run: Run, db: Conn) -> None:
    job = add_finished(db, "failed", args={"to": "ann\x1b[2J"}, error="boom", key="k1")
    add_attempt(db, job, message="boom", traceback="Traceback …\nValueError: \x1b[31mboom", log="first\n\x1b[2Jlast")
    shown = run("jobs", "show", str(job)).stdout
    assert "k1" in shown
    assert "attempt 1: error" in shown
    assert "\x1b" not in shown
    assert shown.index("  log (UTC):\n    first\n") > shown.index("boom")
    found = document(run("jobs", "show", str(job), "--json"))
    assert found["attempts"][0]["log"].startswith("first\n")
    assert (found["state"], found["args"], len(found["attempts"])) == ("failed", {"to": "ann\x1b[2J"}, 1)
    assert "job 99" in run("jobs", "show", "99", code=64).stderr
    live = add_job(db, args={"a": 1})
    assert "ready" in run("jobs", "show", str(live)).stdout


def test_retry_by_id(run: Run, db: Conn) -> None:
    dead, live = add_finished(db, "failed"), add_job(db, state="running")
    assert "retried 1 job" in run("jobs", "retry", str(dead), "--reason", "fixed").stdout
    assert states(db)[dead] == "ready"
    refused = run("jobs", "retry", str(live), "99", "--json", code=1)
    assert document(refused)["done"] == []
    assert set(document(refused)["refused"]) == {str(live), "99"}
    assert db.execute("SELECT actor, action, reason FROM jobq.audit").fetchall() == [("ann", "retry", "fixed")]
    assert "job 99" in run("jobs", "retry", "99", code=1).stderr


def test_bulk_retry_tells_what_it_touches_and_asks(run: Run, db: Conn) -> None:
    mails = [add_finished(db, "failed", queue="mail", task="mail.send") for _ in range(3)]
    other = add_finished(db, "failed", queue="other")
    choice = ("jobs", "retry", "--state", "failed", "--queue", "mail")
    assert "mail.send in queue mail" in run(*choice, answer="n\n", code=1).stderr
    assert run(*choice, "--dry-run").stdout == ""
    run(*choice, answer="", code=64)
    assert set(states(db).values()) == {"failed"}
    assert document(run(*choice, "--limit", "2", "--yes", "--json"))["done"] == [mails[1], mails[2]]
    assert "retried 1 job" in run(*choice, answer="y\n").stdout
    assert states(db) == {**dict.fromkeys(mails, "ready"), other: "failed"}
    assert "no job to retry" in run(*choice).stderr
    assert document(run(*choice, "--json"))["selected"] == 0


def test_bulk_cancel_in_several_steps(run: Run, db: Conn) -> None:
    db.execute("INSERT INTO jobq.job (task) SELECT 'mail.send' FROM generate_series(1, 2300)")
    running = add_job(db, state="running")
    kept = add_job(db, task="other")
    done = document(run("jobs", "cancel", "--task", "mail.send", "--yes", "--json"))
    assert len(done["done"]) == 2301
    assert states(db)[kept] == "ready"
    assert db.execute("SELECT cancel_requested_at IS NOT NULL FROM jobq.job WHERE id = %s", (running,)).fetchone() == (
        True,
    )
    assert db.execute("SELECT count(*) FROM jobq.job_history WHERE state = 'cancelled'").fetchone() == (2300,)


def test_bulk_needs_ids_or_filters_and_not_both(run: Run) -> None:
    assert "--state" in run("jobs", "cancel", code=64).stderr
    assert "not both" in run("jobs", "retry", "1", "--queue", "q", code=64).stderr
    run("jobs", "retry", "--state", "succeeded", code=64)
    run("jobs", "cancel", str(2**63), code=64)


def test_where_selects_by_any_filter(run: Run, db: Conn) -> None:
    wanted, other = add_finished(db, "failed", args={"order_id": 7}), add_finished(db, "failed", args={"order_id": 8})
    dead = add_finished(db, "cancelled", args={"order_id": 7})
    assert "retried 1 job" in run("jobs", "retry", "--where", "args.order_id:7", "--yes").stdout
    assert states(db) == {wanted: "ready", other: "failed", dead: "cancelled"}
    assert "retried 1 job" in run("jobs", "retry", "--where", "state:cancelled args.order_id:7", "--yes").stdout
    for words, says in (
        (("--where", "colour:blue"), "colour"),
        (("--where", "state:failed", "--state", "failed"), "twice"),
        (("--where", "state:succeeded"), "state:succeeded: expected one of failed"),
        (("--where", "queue:a", "--queue", "b"), "queue"),
        (("--where", "  "), "--where"),
    ):
        assert says in run("jobs", "retry", *words, "--yes", code=64).stderr
    assert states(db)[other] == "failed"


def test_snooze_move_and_delete(run: Run, db: Conn) -> None:
    one, two, dead = add_job(db), add_job(db, queue="mail"), add_finished(db, "failed")
    run("jobs", "snooze", str(one), "--for", "2h")
    assert "snoozed 1 job" in run("jobs", "snooze", "--queue", "mail", "--until", "2199-01-01T00:00", "--yes").stdout
    later = "SELECT id FROM jobq.job WHERE run_at > now() + interval '119 min' ORDER BY id"
    assert db.execute(later).fetchall() == [(one,), (two,)]
    run("jobs", "move", str(one), str(two), "--to-queue", "slow", "--to-priority", "9")
    assert db.execute("SELECT id, queue, priority FROM jobq.job ORDER BY id").fetchall() == [
        (one, "slow", 9),
        (two, "slow", 9),
    ]
    assert "--for or --until" in run("jobs", "snooze", str(one), code=64).stderr
    assert "--until 'soon'" in run("jobs", "snooze", str(one), "--until", "soon", code=64).stderr
    assert "--to-queue" in run("jobs", "move", str(one), code=64).stderr
    run("jobs", "delete", str(dead), answer="n\n", code=1)
    assert states(db)[dead] == "failed"
    assert "select the states" in run("jobs", "delete", "--task", "mail.send", "--yes", code=64).stderr
    assert "deleted 1 job" in run("jobs", "delete", "--state", "failed", "--yes").stdout
    assert document(run("jobs", "delete", str(one), str(two), "--yes", "--json"))["done"] == [one, two]
    assert states(db) == {}
    assert db.execute("SELECT role, address FROM jobq.audit GROUP BY 1, 2").fetchall() == [(None, None)]


def test_operations_are_listed_steered_and_carried_out(run: Run, db: Conn) -> None:
    assert "no bulk operations" in run("operations", "list").output
    for _ in range(3):
        add_finished(db, "failed")
    made = operations.draft(db, "jobq", action="retry", filter=JobFilter(states=("failed",)), actor="bob")
    assert "is draft; only a running one" in run("operations", "run", str(made.id), code=64).stderr
    operations.start(db, "jobq", made.id, reason="fixed", actor="bob")
    id = str(made.id)
    assert "is paused" in run("operations", "pause", id, "--reason", "wait").stdout
    assert "it is paused" in run("operations", "pause", id, code=64).stderr
    assert document(run("operations", "resume", id, "--json"))["state"] == "running"
    shown = run("operations", "run", id).stdout
    assert "done" in shown
    assert document(run("operations", "show", id, "--json"))["done"] == 3
    assert "it is done" in run("operations", "cancel", id, code=64).stderr
    assert "state:failed" in run("operations", "list").stdout
    assert "operation 99" in run("operations", "show", "99", code=64).stderr
    assert [actor for (actor,) in db.execute("SELECT actor FROM jobq.audit ORDER BY id").fetchall()] == [
        "bob", "ann", "ann", "bob",
    ]  # fmt: skip


# --- queues, stats


def test_queues(run: Run, db: Conn) -> None:
    assert "no queues" in run("queues", "list").stderr
    add_job(db, queue="mail")
    assert "nope" in run("queues", "pause", "nope", code=64).stderr
    assert run("queues", "pause", "mail", "--reason", "provider down").stdout == "queue mail is paused\n"
    assert "(unchanged)" in run("queues", "pause", "mail").stdout
    listed = run("queues", "list").stdout
    assert "mail" in listed
    assert "by ann: provider down" in listed
    [queue] = document(run("queues", "list", "--json"))["queues"]
    assert (queue["ready"], queue["pause_reason"]) == (1, "provider down")
    assert document(run("queues", "resume", "mail", "--json")) == {"queue": "mail", "paused": False, "changed": True}


def test_queues_are_set(run: Run, db: Conn) -> None:
    add_job(db, queue="pdf")
    assert "rate" not in run("queues", "list").stdout
    said = run(
        "queues", "set", "mail", "--limit", "20", "--rate", "50/s", "--burst", "10", "--groups", "fair:3",
        "--group-rate", "5/s", "--group-burst", "2", "--reason", "their API",
    ).stdout  # fmt: skip
    assert said == (
        "queue mail: At most 20 jobs run at a time; at most 50 starts a second, up to 10 of them at once; the groups take "
        "turns, at most 3 of each at a time; of each group at most 5 starts a second, up to 2 of them at once.\n"
    )
    assert run("queues", "set", "mail", "--limit", "20").stdout.endswith(" (unchanged)\n")
    listed = run("queues", "list").stdout
    for part in ("limit", "rate", "groups", "50/s, burst 10", "fair:3, 5/s, burst 2 each"):
        assert part in listed
    [mail, _] = document(run("queues", "list", "--json"))["queues"]
    assert mail["settings"]["rate"] == {"jobs": 50, "seconds": 1.0, "burst": 10}
    assert mail["settings"]["groups"] == {"mode": "fair", "limit": 3, "retry": None}

    changed = document(run("queues", "set", "mail", "--limit", "none", "--group-rate", "None", "--json"))
    assert (changed["changed"], changed["before"]["limit"], changed["after"]["limit"]) == (True, 20, None)
    assert changed["after"]["group_rate"] is None
    entries = db.execute("SELECT actor, reason, before, after FROM jobq.audit ORDER BY id").fetchall()
    assert [entry[:2] for entry in entries] == [("ann", "their API"), ("ann", None)]
    assert entries[1][3] == {"limit": None, "group_rate": None, "group_burst": None}


def test_one_group_is_set(run: Run, db: Conn) -> None:
    assert "no rule for its groups" in run("queues", "set", "mail", "--group", "a", "--limit", "3", code=64).stderr
    run("queues", "set", "mail", "--groups", "limited:1")
    set_a = ("queues", "set", "mail", "--group", "customer:42", "--limit")
    assert run(*set_a, "3").stdout == "group customer:42 of queue mail: at most 3 jobs at a time\n"
    assert run(*set_a, "3").stdout.endswith(" (unchanged)\n")
    assert document(run(*set_a, "none", "--json")) == {
        "queue": "mail", "group": "customer:42", "limit": None, "changed": True,
    }  # fmt: skip
    assert "pass no other setting" in run(*set_a, "3", "--rate", "5/s", code=64).stderr
    assert "only --limit" in run("queues", "set", "mail", "--group", "a", "--rate", "5/s", code=64).stderr


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((), "nothing to set"),
        (("--limit", "0"), "limit=0: expected a whole number from 1"),
        (("--limit", "-5"), "limit=-5"),
        (("--limit", "two"), "--limit 'two': expected a whole number of 1 or more or none"),
        (("--limit", "1e3"), "--limit '1e3'"),
        (("--limit", "4294967296"), "limit=4294967296: expected a whole number from 1 to 2147483647"),
        (("--burst", "none"), "--burst 'none'"),
        (("--burst", "5"), "burst=5: a burst needs a rate"),
        (("--rate", "0/s"), "rate='0/s'"),
        (("--rate", "fast"), "rate='fast': write jobs/period, such as 50/s"),
        (("--groups", "fifo"), "groups='fifo': expected ordered"),
        (("--groups", "ordered:3"), "one job at a time"),
        (("--group-rate", "5/s"), "the queue has no rule for its groups"),
    ],
)
def test_settings_that_cannot_be(run: Run, db: Conn, given: tuple[str, ...], says: str) -> None:
    assert says in run("queues", "set", "mail", *given, code=64).stderr
    assert db.execute("SELECT count(*) FROM jobq.queue").fetchone() == (0,)


def test_a_queue_is_shown(run: Run, db: Conn) -> None:
    assert "nosuch" in run("queues", "show", "nosuch", code=64).stderr
    run("queues", "set", "mail", "--limit", "20", "--groups", "limited:2")
    run("queues", "set", "mail", "--group", "vip", "--limit", "9")
    for key in ("a", "a", "b"):
        job = add_job(db, queue="mail", group_key=key)
    add_job(db, queue="mail", state="running", group_key="a", limited=True)
    shown = run("queues", "show", "mail").stdout
    lines = dict(line.split("  ", 1) for line in shown.splitlines() if "  " in line)
    assert lines["settings"].strip() == "At most 20 jobs run at a time; at most 2 of each group at a time."
    assert lines["running"].strip() == "1 of 20"
    assert lines["groups"].strip() == "2 with waiting jobs"
    assert lines["waiting"].strip() == "3 for their group"
    assert "limits of individual groups: vip: 9" in shown
    found = document(run("queues", "show", "mail", "--json"))
    assert found["groups"]["largest"][0] == {"key": "a", "waiting": 2, "running": 1, "limit": None}
    assert found["info"]["settings"]["limit"] == 20
    listed = run("jobs", "list", "--where", "group:a").stdout
    assert listed.split()[:5] == ["id", "state", "task", "queue", "group"]
    assert "group" not in run("jobs", "list", "--queue", "pdf").stdout
    told = run("jobs", "show", str(job)).stdout
    assert "group      b" in told
    assert "No worker is alive" in told
    assert document(run("queues", "show", "mail", "--json"))["groups"]["turns"] >= 2


def test_stats(run: Run, db: Conn) -> None:
    add_job(db)
    add_finished(db, "succeeded")
    add_worker(db, slots=4)
    numbers = document(run("stats", "--json"))
    assert (numbers["counts"]["ready"], numbers["workers_alive"], numbers["slots"]) == (1, 1, 4)
    shown = run("stats").stdout
    assert "1 with 4 slots" in shown
    assert "default" in shown


# --- doctor


def findings(result: Result) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for line in document(result)["checks"]:
        found.setdefault(line["check"], []).append(line)
    return found


def test_doctor_is_content_with_a_healthy_system(run: Run, db: Conn) -> None:
    add_worker(db, tasks=["mail.send"])
    add_job(db)
    found = findings(run("doctor", "--json"))
    wrong = [
        line for lines in found.values() for line in lines if line["status"] != "ok" and line["check"] != "durability"
    ]
    assert wrong == []
    assert {"database", "server", "clock", "schema", "privileges", "partitions", "workers", "tasks"} <= set(found)
    assert "ok    schema" in run("doctor").stdout


def test_doctor_sees_what_is_wrong(run: Run, db: Conn, database_url: str) -> None:
    add_worker(db, tasks=["mail.send"], queues=["mail", "default"])
    add_worker(db, tasks=["lost"], ago=100, pid=77)
    add_job(db, queue="slow")
    add_job(db, queue="default", task="gone")
    add_job(db, queue="mail", task="gone")
    db.execute("INSERT INTO jobq.queue (name, paused_at, paused_by) VALUES ('mail', now(), 'bob')")
    db.execute(
        "INSERT INTO jobq.maintenance_task (name, due_at, last_error) VALUES ('retention', now(), 'lock timeout')"
    )
    db.execute(
        "INSERT INTO jobq.maintenance_task (name, due_at) VALUES ('partitions', now() - interval '1 hour') "
        "ON CONFLICT DO NOTHING"
    )
    db.execute(
        "INSERT INTO jobq.operation (up_to, action, filter, actor, state, started_at, rate, error) VALUES"
        " (9, 'retry', 'state:failed', 'ann', 'running', now() - interval '1 hour', NULL, NULL),"
        " (9, 'retry', 'state:failed', 'ann', 'running', now(), NULL, NULL),"
        " (9, 'retry', 'state:failed', 'ann', 'running', now() - interval '1 hour', 0.0005, NULL),"
        " (9, 'cancel', 'task:t', 'ann', 'failed', now(), NULL, 'DiskFull: no space left')"
    )
    add_finished(db, "succeeded", ago=30 * 86400)
    db.execute("ALTER TABLE jobq.job SET (autovacuum_enabled = false)")
    result = run("doctor", "--json", code=78)
    found = findings(result)

    def told(check: str) -> str:
        return " | ".join(f"{line['status']} {line['message']}" for line in found[check])

    assert "fail no live worker serves queue slow (1 job due, the oldest for " in told("queues")
    assert "fail no live worker of queue default knows task gone (1 job due, the oldest for " in told("tasks")
    assert "warn worker box:77 sent no heartbeat" in told("workers")
    assert "warn queue mail is paused by bob, with 1 job due, the oldest for " in told("paused")
    assert "fail maintenance task retention failed when it last ran: lock timeout" in told("maintenance")
    assert "warn operation 1 (retry state:failed) has stood still for 60 min: no page carries it out" in told(
        "operations"
    )
    assert "warn operation 4 (cancel task:t) failed: DiskFull: no space left" in told("operations")
    assert len(found["operations"]) == 2
    assert "warn table job_history_succeeded_rest holds rows" in told("partitions")
    assert "fail autovacuum is switched off for table jobq.job" in told("autovacuum")
    assert all(some(line["fix"] for lines in found.values() for line in lines if line["status"] != "ok"))


def test_doctor_sees_groups_that_stand_still(run: Run, db: Conn) -> None:
    worker = add_worker(db, tasks=["mail.send"])

    def told(check: str, code: int = 0) -> str:
        return " | ".join(
            f"{line['status']} {line['message']}" for line in findings(run("doctor", "--json", code=code))[check]
        )

    run("queues", "set", "mail", "--limit", "2", "--groups", "limited:1")
    for key in ("a", "a", "b"):
        add_job(db, queue="mail", group_key=key)
    assert (told("limits"), told("groups")) == (
        "ok no limit is used up by jobs that no worker runs", "ok every group with waiting jobs has a turn or a running job",
    )  # fmt: skip
    assert told("turns") == "ok no group is next in line for long"

    db.execute("UPDATE jobq.group_ready SET due_at = now() - interval '630 s'")
    assert told("turns").startswith("warn queue mail: the group that is next in line has been for 10 min, and 1 worker")
    db.execute("UPDATE jobq.worker SET running = slots")
    assert told("turns").startswith("ok")
    db.execute("UPDATE jobq.worker SET running = 0")
    held = [add_job(db, queue="mail", state="running", limited=True, worker_id=worker, started_at="2020-01-01T00:00Z")
            for _ in range(2)]  # fmt: skip
    assert told("turns").startswith("ok"), "the limit is full"
    assert told("limits").startswith("ok no limit")

    add_job(db, queue="mail", state="running", limited=True, worker_id=worker)
    assert told("limits").startswith("ok queue mail: 3 jobs run, more than its limit of 2")
    # It is stranded, too, beside a live worker.
    db.execute("UPDATE jobq.job SET worker_id = gen_random_uuid() WHERE id = %s", (held[0],))
    assert (
        told("limits", 1)
        == "warn queue mail: 1 of the 2 that its limit lets run is held by jobs whose worker is not alive"
    )

    db.execute("DELETE FROM jobq.group_ready WHERE group_key = 'a'")
    assert told("groups", 1).startswith("warn queue mail: 1 group of those looked at waits without a turn")
    (line,) = findings(run("doctor", "--json", code=1))["groups"]
    assert "such as a;" in line["message"]
    db.execute(line["fix"].partition("; or ")[2].encode())
    assert told("groups", 1).startswith("ok")
    db.execute("DELETE FROM jobq.group_ready WHERE group_key = 'a'")
    add_job(db, queue="mail", state="running", limited=True, group_key="a", worker_id=worker)
    assert told("groups", 1).startswith("ok"), "its turn comes with the end of the job that runs"


def test_doctor_knows_that_waiting_jobs_are_jobs(run: Run, db: Conn) -> None:
    run("queues", "set", "mail", "--groups", "ordered")
    add_worker(db, tasks=["other"], queues=["pdf"])
    add_job(db, queue="mail", group_key="a")
    assert (
        "no live worker serves queue mail (1 job due"
        in findings(run("doctor", "--json", code=1))["queues"][0]["message"]
    )
    add_worker(db, tasks=["other"], queues=["mail"])
    assert "knows task mail.send" in findings(run("doctor", "--json", code=1))["tasks"][0]["message"]
    run("queues", "pause", "mail")
    assert "with 1 job due" in findings(run("doctor", "--json"))["paused"][0]["message"]


def test_doctor_sees_missing_partitions_and_workers(run: Run, db: Conn) -> None:
    add_job(db)
    names = db.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^job_attempt_[0-9]{8}$'"
    ).fetchall()
    for (name,) in names:
        db.execute(f"DROP TABLE jobq.{name}".encode())
    found = findings(run("doctor", "--json", code=1))
    assert [line["status"] for line in found["partitions"]] == ["fail"]
    assert found["workers"][0]["status"] == "fail"


def test_doctor_without_a_schema_or_a_database(run: Run, empty_database_url: str) -> None:
    missing = run("doctor", code=78, JOBQ_DATABASE_URL=empty_database_url)
    assert "jobq migrate" in missing.stdout
    gone = run("doctor", "--json", code=69, JOBQ_DATABASE_URL="postgresql://127.0.0.1:1/none")
    assert document(gone)["exit_code"] == 69


def test_doctor_names_missing_privileges(run: Run, db: Conn, database_url: str) -> None:
    db.execute("DROP ROLE IF EXISTS doctor_viewer")
    db.execute("CREATE ROLE doctor_viewer LOGIN")
    try:
        as_viewer = psycopg.conninfo.make_conninfo(database_url, user="doctor_viewer")
        assert "may not read schema" in run("doctor", code=78, JOBQ_DATABASE_URL=as_viewer).stdout
        assert "role" in run("jobs", "list", code=78, JOBQ_DATABASE_URL=as_viewer).stderr
        db.execute("GRANT USAGE ON SCHEMA jobq TO doctor_viewer")
        db.execute("GRANT SELECT ON ALL TABLES IN SCHEMA jobq TO doctor_viewer")
        found = findings(run("doctor", "--json", JOBQ_DATABASE_URL=as_viewer))
        assert "INSERT/UPDATE/DELETE on job" in found["privileges"][0]["message"]
    finally:
        db.execute("DROP OWNED BY doctor_viewer")
        db.execute("DROP ROLE doctor_viewer")


def test_doctor_sees_jobs_that_wait_while_slots_stand_idle(run: Run, db: Conn) -> None:
    """What /readyz tells of one worker from inside, seen from outside."""
    add_worker(db, tasks=["mail.send"], slots=16)
    add_job(db)
    assert [line["status"] for line in findings(run("doctor", "--json"))["idle"]] == ["ok"]
    db.execute("UPDATE jobq.job SET run_at = now() - interval '1 minute'")
    (told,) = findings(run("doctor", "--json", code=1))["idle"]
    assert told["status"] == "fail"
    assert re.search(r"due for [67]\d s", told["message"])
    assert "16 slots of its workers stand idle" in told["message"]
    # With every slot busy it is a backlog, and no fault.
    db.execute("UPDATE jobq.worker SET running = slots")
    assert findings(run("doctor", "--json"))["idle"][0]["status"] == "ok"


def test_doctor_tells_each_workers_heartbeat_and_lock(run: Run, db: Conn) -> None:
    free, held, pooled, before = 11, (5 << 32) + 7, 13, 14
    db.execute("SELECT pg_advisory_lock(%s)", (held,))
    for pid, key, start in (
        (1, free, "pg_postmaster_start_time()"),
        (2, held, "pg_postmaster_start_time()"),
        (3, pooled, "NULL"),
        (4, before, "pg_postmaster_start_time() - interval '1 hour'"),
    ):
        worker = add_worker(db, tasks=[], pid=pid)
        db.execute(
            f"UPDATE jobq.worker SET lock_key = %s, lock_server_start = {start} WHERE id = %s".encode(), (key, worker)
        )
    told = {line["message"].split(" ")[0]: line for line in findings(run("doctor", "--json"))["heartbeats"]}
    assert {name: line["status"] for name, line in told.items()} == {
        "box:1": "warn",
        "box:2": "ok",
        "box:3": "ok",
        "box:4": "ok",
    }
    assert "lock lost" in told["box:1"]["message"]
    assert "lock held" in told["box:2"]["message"]
    assert "as through a pooler" in told["box:3"]["message"]
    assert "before this one" in told["box:4"]["message"]
    assert all(" ago, " in line["message"] for line in some(told.values()))


def test_doctor_sees_a_queue_for_later_that_nobody_serves(run: Run, db: Conn) -> None:
    add_worker(db, tasks=["mail.send"], queues=["mail"])
    add_job(db, queue="reports")
    db.execute("UPDATE jobq.job SET run_at = now() + interval '1 day'")
    (told,) = findings(run("doctor", "--json"))["queues"]
    assert told["message"] == "queue reports has 1 job for later, and no live worker serves it"
    assert "--queues reports" in told["fix"]


def test_doctor_sees_dead_rows(run: Run, db: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(db.info.dsn, autocommit=True) as other:
        other.execute(
            "INSERT INTO jobq.job_key (key, job_id, holds)"
            " SELECT n::text, n, 'until_finished' FROM generate_series(1, 300) AS n"
        )
        other.execute("DELETE FROM jobq.job_key")

    def told() -> list[dict[str, str]]:
        return findings(run("doctor", "--json"))["dead rows"]

    # The server counts once the session that deleted has ended.
    wait_until(lambda: "job_key 300" in told()[0]["message"], timeout=60, what="the count of dead rows")
    assert "never vacuumed" in told()[0]["message"]
    monkeypatch.setattr(load, "DEAD_ROWS", 200)
    (warned,) = told()
    assert warned["status"] == "warn"
    assert "jobq.job_key has 300 dead rows and 0 live ones" in warned["message"]
    assert "VACUUM jobq.job_key" in warned["fix"]


def test_doctor_sees_what_runs_short(run: Run, db: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(run("doctor", "--json"))
    assert found["connections"][0]["status"] == "ok"
    assert found["notify"][0]["message"] == "the notification queue is 0% full"
    monkeypatch.setattr(load, "CONNECTIONS_LEFT", 10_000)
    monkeypatch.setattr(load, "NOTIFY_USAGE", 0.0)
    found = findings(run("doctor", "--json"))
    assert [found[check][0]["status"] for check in ("connections", "notify")] == ["warn", "warn"]
    assert "raise max_connections" in found["connections"][0]["fix"]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (
            "SELECT *\n FROM orders WHERE card = '4111 1111' AND id = 77",
            "SELECT * FROM orders WHERE card = '…' AND id = …",
        ),
        ("UPDATE t2 SET a = E'it\\'s', b = 'x''y' WHERE c = $1", "UPDATE t2 SET a = '…', b = '…' WHERE c = $1"),
        ("SELECT $tag$secret$tag$, 'cut off in the mid", "SELECT '…', '…'"),
        (None, ""),
    ],
)
def test_statements_are_shown_without_their_values(query: str | None, shown: str) -> None:
    assert load.shortened(query) == shown


# --- Errors, as a process


def process(*arguments: str, url: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobq", *arguments],
        env={**os.environ, "JOBQ_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,
    )


@pytest.mark.parametrize("command", [("jobs", "list"), ("stats",), ("migrate", "--yes"), ("queues", "list")])
def test_no_database_exits_with_69_and_a_sentence(command: tuple[str, ...]) -> None:
    done = process(*command, url="postgresql://ann:hunter2@127.0.0.1:1/none")
    assert done.returncode == 69
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr
    assert "Traceback" in process("--debug", *command, url="postgresql://127.0.0.1:1/none").stderr


def test_no_migration_exits_with_78(run: Run, empty_database_url: str) -> None:
    for command in (("jobs", "list"), ("stats",), ("queues", "pause", "q")):
        assert "jobq migrate" in run(*command, code=78, JOBQ_DATABASE_URL=empty_database_url).stderr


def test_a_lock_that_is_not_free_exits_with_75(run: Run, db: Conn, conn: Conn, database_url: str) -> None:
    job = add_job(db)
    conn.execute("LOCK TABLE jobq.job")
    impatient = psycopg.conninfo.make_conninfo(database_url, options="-c lock_timeout=100ms")
    assert "lock" in run("jobs", "cancel", str(job), code=75, JOBQ_DATABASE_URL=impatient).stderr


def test_a_reader_that_goes_away_is_no_error(database_url: str, db: Conn) -> None:
    db.execute("INSERT INTO jobq.job (task) SELECT 'mail.send' FROM generate_series(1, 3000)")
    command = [sys.executable, "-m", "jobq", "jobs", "list", "--limit", "3000", "--json"]
    environment = {**os.environ, "JOBQ_DATABASE_URL": database_url}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(10)
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(60) == 0


@pytest.mark.parametrize("command", [("--help",), ("jobs", "--help"), ("config",), ("migrate", "--sql")])
def test_a_reader_that_never_reads_is_no_error(command: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "jobq", *command], stdout=closed, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_server_that_dies_in_the_middle_exits_with_69(own_server: OwnServer) -> None:
    migrate.upgrade(own_server.url)
    with psycopg.connect(own_server.url, autocommit=True) as connection:
        connection.execute("INSERT INTO jobq.job (task) SELECT 'mail.send' FROM generate_series(1, 10)")
    environment = {**os.environ, "JOBQ_DATABASE_URL": own_server.url}
    with subprocess.Popen(
        [sys.executable, "-m", "jobq", "jobs", "cancel", "--task", "mail.send"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stderr is not None
        assert child.stdin is not None
        assert "10 jobs" in child.stderr.readline()
        own_server.kill()
        child.stdin.write("y\n")
        child.stdin.close()
        told = child.stderr.read()
        assert child.wait(60) == 69, told
    assert "cancelled 0 jobs of 10" in told


# --- What the doctor can only be shown with other limits


def test_doctor_sees_long_transactions(run: Run, conn: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LONG_TRANSACTION", -1)
    conn.execute("SELECT pg_current_xact_id(), 'a secret'")
    told = [line["message"] for line in findings(run("doctor", "--json"))["transactions"]]
    assert any("idle in transaction" in message and "vacuum cannot clean up" in message for message in told)
    assert any("its statement: SELECT pg_current_xact_id(), '…'" in message for message in told)
    assert not any("secret" in message for message in some(told))


def test_doctor_sees_an_old_server_and_a_clock_that_is_off(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "OLDEST_SERVER", 99)
    monkeypatch.setattr(server, "CLOCK_SKEW", -1.0)
    found = findings(run("doctor", "--json", code=78))
    assert found["server"][0]["status"] == "fail"
    assert "upgrade to PostgreSQL 99" in found["server"][0]["fix"]
    assert found["clock"][0]["status"] == "warn"


def test_doctor_sees_commits_that_are_not_durable(run: Run, database_url: str) -> None:
    careless = psycopg.conninfo.make_conninfo(database_url, options="-c synchronous_commit=off")
    told = findings(run("doctor", "--json", JOBQ_DATABASE_URL=careless))["durability"]
    assert any("synchronous_commit is off" in line["message"] for line in told)


@pytest.mark.parametrize(
    ("command", "filter", "meanwhile", "why"),
    [
        ("delete", "state:failed", "retry", "it is ready by now"),
        ("cancel", "state:ready", "begin", "it is running by now"),
    ],
)
def test_what_has_moved_on_while_the_question_stood_is_left_alone(
    run: Run, db: Conn, monkeypatch: pytest.MonkeyPatch, command: str, filter: str, meanwhile: str, why: str
) -> None:
    job = add_finished(db, "failed") if meanwhile == "retry" else add_job(db)

    def somebody_is_quicker(*_: Any, **__: Any) -> None:
        if meanwhile == "retry":
            assert operations.retry(db, "jobq", [job], actor="bob").done == [job]
        else:
            db.execute("UPDATE jobq.job SET state = 'running', started_at = now(), worker_id = gen_random_uuid()")

    monkeypatch.setattr("jobq.cli.output.confirm", somebody_is_quicker)
    answer = document(run("jobs", command, "--where", filter, "--json"))
    assert (answer["done"], answer["refused"]) == ([], {str(job): why})
    assert db.execute("SELECT cancel_requested_at FROM jobq.job").fetchall() == [(None,)]
