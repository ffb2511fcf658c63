"""The page of schedules: what it shows, and what it changes."""

from __future__ import annotations

import html
import json
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from jobq import operations, queries
from jobq.cron import Cron, Every
from jobq.schedule import Schedule
from tests.support.rows import add_worker
from tests.support.web import Conn, audit, token, words


def add(db: Conn, name: str = "nightly", **options: Any) -> None:
    made = Schedule(**{"name": name, "task": "t", "when": Cron("30 2 * * *", "Europe/Berlin"), **options})
    operations.set_schedule(db, "jobq", made, actor="ann")


def post(client: FlaskClient, what: str, **form: Any) -> Any:
    return client.post(f"/schedules/{what}", data={"csrf": token(client, "/schedules"), **form})


def test_the_list_and_one(client: FlaskClient, db: Conn) -> None:
    assert "No schedules yet." in words(client.get("/schedules").text)
    add(db, args={"token": "tok_secret", "n": 1}, tick_argument="night")
    add(db, "a/b c?d", when=Every(timedelta(minutes=5)))
    text = words(client.get("/schedules").text)
    assert "at 02:30 every day, Europe/Berlin" in text
    assert "every 5 minutes" in text
    shown = client.get("/schedules/nightly").text
    assert "tok_secret" not in shown
    assert "02:30 (+0" in shown
    assert 'href="/schedule?name=a/b+c?d"' in client.get("/schedules").text
    assert client.get("/schedules/a/b%20c%3Fd").status_code == 200
    assert client.get("/schedules/nosuch").status_code == 404


def test_more_than_a_page(client: FlaskClient, db: Conn) -> None:
    db.execute(
        "INSERT INTO jobq.schedule (name, task, cron) SELECT to_char(n, 'FM0000'), 't', '@daily'"
        " FROM generate_series(1, 130) AS n"
    )
    first = client.get("/schedules").text
    assert ">0050<" in first
    assert ">0051<" not in first
    third = client.get("/schedules?page=3").text
    assert ">0101<" in third
    assert ">0130<" in third


def test_pause_resume_run_and_remove(client: FlaskClient, db: Conn) -> None:
    add(db)
    answer = post(client, "pause", schedule="nightly", reason="the disk is full")
    text = words(client.get(answer.location).text)
    assert "Schedule nightly is paused." in text
    assert "by web: the disk is full" in text
    assert "was already paused" in client.get(post(client, "pause", schedule="nightly").location).text
    assert "is resumed" in client.get(post(client, "resume", schedule="nightly").location).text
    answer = post(client, "run", schedule="nightly")
    text = client.get(answer.location).text
    assert "This job of schedule nightly is inserted" in text
    assert '<dt>Schedule</dt><dd><a href="/schedule?name=nightly">' in text
    assert "is removed" in client.get(post(client, "remove", schedule="nightly").location).text
    assert post(client, "remove", schedule="nightly").status_code == 404
    assert audit(db) == [
        ("ann", "schedule_set"),
        ("web", "schedule_pause"),
        ("web", "schedule_resume"),
        ("web", "schedule_run"),
        ("web", "schedule_remove"),
    ]
    assert 'href="/schedule?name=nightly"' in client.get("/audit").text


def test_one_that_is_declared_cannot_be_removed(client: FlaskClient, db: Conn) -> None:
    add(db)
    worker = add_worker(db, app="shop:q")
    db.execute("UPDATE jobq.worker SET schedules = '{nightly}' WHERE id = %s", (worker,))
    db.execute("UPDATE jobq.schedule SET source = 'code', app = 'shop:q'")
    assert "Remove" not in client.get("/schedules/nightly").text
    answer = post(client, "remove", schedule="nightly")
    assert answer.status_code == 400
    assert "would come back" in html.unescape(answer.text)


def test_adding(client: FlaskClient, db: Conn) -> None:
    answer = post(
        client, "add", schedule="digest", task="mail.send", cron="0 7 * * mon-fri", timezone="Europe/Berlin", missed="all",
        args='{"to": "ann"}', tick_argument="at", queue="mail", priority="8", reason="asked for",
    )  # fmt: skip
    assert "Schedule digest is added: at 07:00 on Monday through Friday, Europe/Berlin." in words(
        client.get(answer.location).text
    )
    [info] = queries.schedules(db, "jobq")
    assert (info.task, info.args, info.queue, info.priority, info.missed) == (
        "mail.send",
        {"to": "ann"},
        "mail",
        8,
        "all",
    )
    post(client, "add", schedule="often", task="t", every="15m")
    assert queries.schedules(db, "jobq")[1].every == timedelta(minutes=15)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"cron": "61 * * * *"}, "its minute '61' is invalid"),
        ({"cron": "@daily", "timezone": "Berlin"}, "did you mean Europe/Berlin"),
        ({}, "expected either a cron expression"),
        ({"every": "0"}, "every=0 seconds"),
        ({"every": "99999999w"}, "at most 100 years"),
        ({"every": "soon"}, "every='soon'"),
        ({"cron": "@daily", "args": "[1]"}, "expected a JSON object"),
        ({"cron": "@daily", "args": "{"}, "expected a JSON object"),
        ({"cron": "@daily", "missed": "x"}, "missed='x'"),
        ({"cron": "@daily", "schedule": ""}, "name=''"),
        ({"cron": "@daily", "task": ""}, "task=''"),
        ({"cron": "@daily", "priority": "12"}, "priority=12"),
        ({"cron": "@daily", "schedule": "taken"}, "is taken by a schedule of task t"),
    ],
)
def test_what_cannot_be_added(client: FlaskClient, db: Conn, form: dict[str, str], said: str) -> None:
    add(db, "taken")
    answer = post(client, "add", **{"schedule": "s", "task": "t", **form})
    assert answer.status_code == 400
    assert said.lower() in html.unescape(answer.text).lower()
    assert [info.name for info in queries.schedules(db, "jobq")] == ["taken"]


def test_as_json(client: FlaskClient, db: Conn) -> None:
    add(db, args={"token": "tok_secret"})
    add(db, "often", when=Every(timedelta(minutes=5)))
    found = json.loads(client.get("/api/schedules").text)["schedules"]
    assert [(one["name"], one["every"], one["status"]) for one in found] == [
        ("nightly", None, "ticking"),
        ("often", 300.0, "ticking"),
    ]
    assert "tok_secret" not in str(found)
