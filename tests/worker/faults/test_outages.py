"""Every outage of tests/support/outages.py × every surface: what it says, and in which colour.

`/readyz` is about one worker: test_outages_readyz.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from html import unescape

import psycopg
import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from jobq.cli import main
from tests.support.checks import some
from tests.support.outages import OUTAGES, Outage, due, healthy, old_dead_letter
from tests.support.rows import add_job, add_worker
from tests.support.web import Conn, words

every_outage = pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.name.replace(" ", "-"))


@pytest.fixture
def make(db: Conn, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Outage], None]]:
    with ExitStack() as stack:

        def bring_about(outage: Outage) -> None:
            outage.make(db)
            for name, value in outage.settings.items():
                monkeypatch.setattr(name, value)
            if "snapshot" in outage.name:
                other = stack.enter_context(psycopg.connect(database_url))
                other.execute("SELECT pg_current_xact_id()")

        yield bring_about


def doctor(database_url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments], env={"JOBQ_DATABASE_URL": database_url})


def samples(text: str) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def says(html: str) -> list[tuple[str, str]]:
    """The sentences under “Needs attention” with their levels."""
    found = re.search(r'<ul class="notices" aria-label="Needs attention">(.*?)</ul>', html, flags=re.DOTALL)
    if found is None:
        return []
    items = re.findall(r'<span class="notice is-(\w+)">.*?title="([^"]*)"', found[1], flags=re.DOTALL)
    return [(level, unescape(text)) for level, text in items]


@every_outage
def test_the_overview(outage: Outage, make: Callable[[Outage], None], client: FlaskClient) -> None:
    make(outage)
    answer = client.get("/")
    # Without its tables the page is not whole, and says so to what only looks at the status.
    assert answer.status_code == (503 if "older" in outage.name else 200)
    told = says(answer.text)
    assert [level for level, text in told if outage.says in text] == [outage.level], told
    assert "No problems:" not in answer.text


@every_outage
def test_doctor(outage: Outage, make: Callable[[Outage], None], database_url: str) -> None:
    make(outage)
    result = doctor(database_url)
    assert result.exit_code == outage.code, result.output
    assert len([line for line in result.stdout.splitlines() if outage.line in line]) == 1, result.output
    report = json.loads(doctor(database_url, "--json").stdout)
    assert report["exit_code"] == outage.code
    assert all(set(check) == {"check", "status", "message", "fix"} for check in some(report["checks"]))
    assert all(some(check["fix"] for check in report["checks"] if check["status"] != "ok"))


@every_outage
def test_metrics(outage: Outage, make: Callable[[Outage], None], database_url: str, client: FlaskClient) -> None:
    make(outage)
    printed = CliRunner().invoke(main, ["metrics"], env={"JOBQ_DATABASE_URL": database_url})
    assert printed.exit_code == 0, printed.output
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    for text in (printed.stdout, answer.text):
        found = samples(text)
        assert {name: found.get(name, 0.0) >= least for name, least in outage.metric.items()} == dict.fromkeys(
            outage.metric, True
        ), text


@every_outage
def test_the_page_of_the_queue(outage: Outage, make: Callable[[Outage], None], db: Conn, client: FlaskClient) -> None:
    make(outage)
    if not db.execute("SELECT FROM jobq.job WHERE queue = 'mail' LIMIT 1").fetchall() and outage.queue is None:
        add_job(db, queue="mail", run_in=-1)
    answer = client.get("/queues/mail")
    text = words(answer.text)
    if "schema older" in outage.name:
        assert (answer.status_code, "Run “jobq migrate”" in text) == (503, True)
        return
    assert answer.status_code == 200
    if outage.queue is not None:
        assert outage.queue in text
    else:
        # What is not about this queue is not said of it.
        assert outage.says not in text


def test_a_healthy_system_is_green_everywhere(db: Conn, database_url: str, client: FlaskClient) -> None:
    healthy(db)
    add_job(db, queue="mail")
    old_dead_letter(db)
    text = words(client.get("/").text)
    assert "No problems: 1 worker alive, no late jobs, 1 job failed permanently more than 24 hours ago." in text
    assert says(client.get("/queues/mail").text) == []
    result = doctor(database_url)
    assert result.exit_code == 0
    assert "ok    failures      none in the last 24 hours; 1 job failed permanently before that" in result.stdout
    found = samples(CliRunner().invoke(main, ["metrics"], env={"JOBQ_DATABASE_URL": database_url}).stdout)
    assert (
        sum(value for name, value in found.items() if name.startswith("jobq_findings{") and "durability" not in name)
        == 0
    )
    assert (found["jobq_due"], found["jobq_unserved_jobs"], found["jobq_failed"], found["jobq_failed_24h"]) == (
        1,
        0,
        1,
        0,
    )


def test_the_list_of_queues_tells_which_are_unserved(db: Conn, client: FlaskClient) -> None:
    healthy(db, queues=["pdf"])
    due(db, 1, queue="pdf")
    assert ">unserved<" not in client.get("/queues").text
    due(db, 1)
    assert client.get("/queues").text.count(">unserved<") == 1


# --- One cause is one line


@pytest.mark.parametrize("workers", ["none", "of other queues", "quiet", "without the tasks", "idle", "busy"])
def test_a_cause_that_hits_many_queues_is_one_line(
    db: Conn, database_url: str, client: FlaskClient, workers: str
) -> None:
    before = len(doctor(database_url).stdout.splitlines())
    for n in range(60):
        due(db, 1, queue=f"q{n}", task=f"task{n}")
    if workers == "of other queues":
        healthy(db, queues=["pdf"])
    elif workers == "quiet":
        healthy(db, state="quiet")
    elif workers == "without the tasks":
        healthy(db, running=16)
    elif workers == "idle":
        healthy(db, tasks=[f"task{n}" for n in range(60)])
    elif workers == "busy":
        healthy(db, tasks=[f"task{n}" for n in range(60)], running=16)
    told = doctor(database_url).stdout
    # One for the workers themselves, one for the queues, with what to do about each.
    assert len(told.splitlines()) <= before + 6, told
    assert "60 queues" in told or "60 tasks" in told
    assert len(says(client.get("/").text)) <= 3


def test_paused_and_silent_and_failing_ones_are_one_line_each(db: Conn, database_url: str) -> None:
    healthy(db)
    for n in range(30):
        db.execute("INSERT INTO jobq.queue (name, paused_at, paused_by) VALUES (%s, now(), 'ann')", (f"q{n}",))
        db.execute("INSERT INTO jobq.maintenance_task (name, last_error) VALUES (%s, 'no space left')", (f"c{n}",))
        add_worker(db, pid=100 + n, ago=100)
    lines = doctor(database_url).stdout.splitlines()
    for kind in ("warn  paused", "fail  maintenance", "warn  workers"):
        assert len([line for line in lines if line.startswith(kind)]) == 1


# --- Names that mean ill

FORGED = "x\nok    schema        all is well\r\x1b[2K\u202e\u2028"


def test_names_forge_no_line(db: Conn, database_url: str, client: FlaskClient) -> None:
    add_worker(db, tasks=["t"], queues=[FORGED], host=FORGED, app=FORGED, problems=[{"what": FORGED, "error": FORGED}])
    due(db, 1, queue=FORGED, task=FORGED)
    due(db, 1, queue=FORGED + "2", task=FORGED)
    db.execute(
        "INSERT INTO jobq.queue (name, paused_at, paused_by, pause_reason) VALUES ('p', now(), %s, %s)",
        (FORGED, FORGED),
    )
    db.execute("INSERT INTO jobq.maintenance_task (name, last_error) VALUES (%s, %s)", (FORGED, FORGED))
    db.execute(
        "INSERT INTO jobq.schedule (name, task, every, last_error) VALUES (%s, %s, interval '1 hour', %s)",
        (FORGED,) * 3,
    )
    shown = doctor(database_url).stdout
    checks = json.loads(doctor(database_url, "--json").stdout)["checks"]
    assert [line[:19].split() for line in shown.splitlines() if not line.startswith(" ")] == [
        [check["status"], *check["check"].split()] for check in checks
    ]
    assert len([line for line in shown.splitlines() if line.startswith("ok    schema")]) == 1
    assert all(character.isprintable() or character == "\n" for character in some(shown))
    assert "x\\nok" in shown
    assert all(text.isprintable() for _, text in some(says(client.get("/").text)))
    found = samples(CliRunner().invoke(main, ["metrics"], env={"JOBQ_DATABASE_URL": database_url}).stdout)
    assert any(name.startswith("jobq_queue_due{queue=") for name in found)
