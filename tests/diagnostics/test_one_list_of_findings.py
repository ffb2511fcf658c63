"""The page's bar and the doctor show one list: each sentence of the one is a line of the other, whatever is wrong."""

from __future__ import annotations

import json
import re
from typing import Any

import psycopg
from click.testing import CliRunner
from flask.testing import FlaskClient

from jobq import diagnostics
from jobq.cli import main
from jobq.diagnostics.checks import CHOICES
from jobq.diagnostics.jobs import ROLE_CHECKS
from jobq.diagnostics.workers import HEARTBEAT_CHECKS
from tests.support.rows import add_finished, add_job, add_worker
from tests.worker.faults.test_outages import says

Conn = psycopg.Connection[Any]


def shape(text: str) -> str:
    """`text` without its numbers, which grow between two looks, and without what makes it a sentence."""
    return re.sub(r"[0-9][0-9,.]*", "#", text).lower().rstrip(".")


def test_the_bar_and_the_doctor_agree(db: Conn, database_url: str, client: FlaskClient) -> None:
    add_worker(db, tasks=["mail.send"], lease=10.0, ago=1000)
    add_worker(db, tasks=["mail.send"], queues=["mail"], version="0.0.9")
    add_job(db, task="mail.send", queue="mail", run_in=-600)
    add_job(db, task="mail.new", queue="mail", run_in=-600)
    add_job(db, task="mail.send", queue="other", run_in=-600)
    add_finished(db, "failed", task="mail.send")
    db.execute("UPDATE jobq.maintenance_task SET due_at = now() - interval '3 hours', last_error = 'lock timeout'")
    db.execute("INSERT INTO jobq.queue (name, paused_at, paused_by) VALUES ('paused', now(), 'ann')")
    add_job(db, task="mail.send", queue="paused", run_in=-600)

    result = CliRunner().invoke(main, ["doctor", "--json"], env={"JOBQ_DATABASE_URL": database_url})
    told = [line for line in json.loads(result.stdout)["checks"] if line["status"] != "ok"]
    # Not on the bar: what may be meant so, what needs a right that a page has not, each worker's line, and what is minor.
    minor = {finding.message for finding in diagnostics.examine(db, "jobq") if finding.minor}
    elsewhere = CHOICES | set(ROLE_CHECKS) | set(HEARTBEAT_CHECKS)
    expected = {
        (shape(line["message"]), {"fail": "bad", "warn": "warn"}[line["status"]])
        for line in told
        if line["check"] not in elsewhere and shape(line["message"]) not in {shape(message) for message in minor}
    }
    assert len(expected) >= 5, told
    seen = says(client.get("/").text)
    for message, level in expected:
        assert [shown for shown, text in seen if shape(text).startswith(message)] == [level], (message, seen)
    assert len(seen) == len(expected), (seen, expected)
