"""``jobq schedules``, and what the doctor says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from jobq import operations, queries
from jobq.cli import main
from jobq.cron import Every
from jobq.schedule import Schedule
from tests.support.checks import some
from tests.support.rows import add_worker

Conn = psycopg.Connection[Any]
APP = """
from datetime import date, datetime
from jobq import JobQ

q = JobQ()

@q.task(queue="reports", priority=2)
def report(customer: int, day: date, at: datetime) -> None: ...
"""


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    monkeypatch.setenv("JOBQ_DATABASE_URL", database_url)
    monkeypatch.setenv("JOBQ_ACTOR", "ann")
    (tmp_path / "scheduled_app.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))

    def call(*args: str, expect: int = 0) -> Result:
        result = CliRunner().invoke(main, args, prog_name="jobq", standalone_mode=True)
        assert result.exit_code == expect, result.output
        return result

    return call


def read(result: Result) -> Any:
    return json.loads(result.stdout)


def test_adding_listing_showing_and_removing(run: Any, db: Conn) -> None:
    add_worker(db, tasks=["mail.send"])
    said = run("schedules", "add", "digest", "to=ann", "n=3", "--task", "mail.send", "--cron", "0 7 * * mon-fri",
               "--timezone", "Europe/Berlin", "--missed", "skip", "--queue", "mail", "--reason", "asked").stdout  # fmt: skip
    assert said == "schedule digest is added: at 07:00 on Monday through Friday, Europe/Berlin\n"
    [info] = queries.schedules(db, "jobq")
    assert (info.args, info.queue, info.missed, info.made_by) == ({"to": "ann", "n": 3}, "mail", "skip", "ann")
    assert "digest" in run("schedules", "list").stdout
    [listed] = read(run("schedules", "list", "--json"))["schedules"]
    assert (listed["status"], listed["description"]) == ("ticking", "at 07:00 on Monday through Friday, Europe/Berlin")
    shown = run("schedules", "show", "digest").stdout
    assert "at run time, by ann" in shown
    assert read(run("schedules", "show", "digest", "--json"))["ticks"] == []
    assert "is taken by a schedule of task mail.send" in run(
        "schedules", "add", "digest", "--task", "mail.send", "--every", "1h", expect=64
    ).output  # fmt: skip
    run("schedules", "add", "digest", "--task", "mail.send", "--every", "1h", "--replace")
    assert queries.schedules(db, "jobq")[0].every == timedelta(hours=1)

    assert run("schedules", "pause", "digest", "--reason", "no").stdout == "schedule digest is paused\n"
    assert run("schedules", "pause", "digest").stdout == "schedule digest is paused (unchanged)\n"
    assert read(run("schedules", "resume", "digest", "--json")) == {
        "schedule": "digest",
        "paused": False,
        "changed": True,
    }
    job = read(run("schedules", "run", "digest", "--json"))["job"]
    assert db.execute("SELECT task FROM jobq.job WHERE id = %s", (job,)).fetchone() == ("mail.send",)
    assert run("schedules", "remove", "digest", "--yes").stdout == "schedule digest is removed\n"
    assert queries.schedules(db, "jobq") == []
    assert [row[0] for row in db.execute("SELECT action FROM jobq.audit ORDER BY id")] == [
        "schedule_set", "schedule_set", "schedule_pause", "schedule_resume", "schedule_run", "schedule_remove",
    ]  # fmt: skip


def test_the_application_checks_the_arguments(run: Any, db: Conn) -> None:
    add = ("schedules", "add", "r", "customer=42", "--app", "scheduled_app:q", "--task", "report", "--cron", "@daily",
           "--tick-argument", "at")  # fmt: skip
    assert "day" in run(*add, expect=64).output
    assert "day" in run(*add, "day=yesterday", expect=64).output
    run(*add, "day=2026-01-31")
    [info] = queries.schedules(db, "jobq")
    assert (info.args, info.queue, info.priority) == ({"customer": 42, "day": "2026-01-31"}, "reports", 2)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--task", "t", "--cron", "61 * * * *"), "its minute '61' is invalid; expected 0 to 59"),
        (("--task", "t", "--cron", "0 7 * * *", "--timezone", "Berlin"), "did you mean Europe/Berlin"),
        (("--task", "t"), "expected either a cron expression"),
        (("--task", "t", "--every", "0"), "every=0 seconds"),
        (("--task", "t", "--every", "1m", "--timezone", "Europe/Berlin"), "an interval is counted in UTC"),
        (("--task", "mail.sned", "--every", "1m"), "did you mean mail.send"),
        (("--task", "t", "--every", "1m", "--max-missed", "0"), "--max-missed"),
    ],
)
def test_bad_input(run: Any, db: Conn, args: tuple[str, ...], said: str) -> None:
    add_worker(db, tasks=["mail.send"])
    result = run("schedules", "add", "s", *args, expect=64)
    assert said in result.output
    assert queries.schedules(db, "jobq") == []


def test_the_next_ticks(run: Any, db: Conn) -> None:
    said = run(
        "schedules", "next", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "-n", "3"
    ).stdout.splitlines()
    assert said[0] == "at 02:30 every day, Europe/Berlin"
    assert len(said) == 4
    assert all("02:30:00 +0" in line or "03:00:00 +0200" in line for line in some(said[1:]))
    made = Schedule(name="s", task="t", when=Every(timedelta(minutes=5)))
    operations.set_schedule(db, "jobq", made, actor="ann")
    found = read(run("schedules", "next", "s", "--json", "-n", "2"))
    assert found["description"] == "every 5 minutes"
    first, second = map(datetime.fromisoformat, found["ticks"])
    assert second - first == timedelta(minutes=5)
    assert first > datetime.now(UTC) - timedelta(minutes=5)
    assert (
        "pass either a schedule, or an expression"
        in run("schedules", "next", "s", "--cron", "@daily", expect=64).output
    )
    assert "schedule 'nosuch' does not exist" in run("schedules", "next", "nosuch", expect=64).output
    db.execute("UPDATE jobq.schedule SET every = NULL, cron = '61 * * * *'")
    assert "its minute '61' is invalid" in run("schedules", "next", "s", expect=64).output


def test_the_doctor(run: Any, db: Conn) -> None:
    def findings() -> list[tuple[str, str]]:
        checks = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)["checks"]
        return [(check["status"], check["message"]) for check in checks if check["check"] == "schedules"]

    assert findings() == [("ok", "all that are not paused tick")]
    worker = add_worker(db, tasks=["t"], app="a")
    for name in ("fine", "late", "bad", "gone", "undeclared", "lost"):
        made = Schedule(name=name, task="t" if name != "lost" else "u", when=Every(timedelta(hours=1)))
        operations.set_schedule(db, "jobq", made, actor="ann")
    assert worker
    db.execute("UPDATE jobq.schedule SET next_at = now() - interval '5 minutes' WHERE name = 'late'")
    db.execute("UPDATE jobq.schedule SET timezone = 'Mars', every = NULL, cron = '0 7 * * *' WHERE name = 'bad'")
    db.execute("UPDATE jobq.schedule SET source = 'code', withdrawn_at = now() WHERE name = 'gone'")
    db.execute("UPDATE jobq.schedule SET source = 'code', app = 'b' WHERE name = 'undeclared'")
    found = findings()
    assert [status for status, _ in found] == ["fail", "fail", "warn", "warn", "warn"]
    for (_, message), words in zip(
        found,
        (
            "schedule bad cannot tick: timezone='Mars' is no zone",
            "1 schedule is due for more than a minute: late",
            "1 schedule is declared by no live worker: undeclared",
            "1 schedule is no longer in the code: gone",
            "no live worker knows the task of 1 schedule: lost",
        ),
        strict=True,
    ):
        assert words in message
