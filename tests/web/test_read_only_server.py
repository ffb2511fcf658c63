"""The page of a server that takes no changes: a standby, or a database that is set so."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from psycopg import sql

from jobq.errors import READ_ONLY
from tests.support.rows import add_job, add_worker
from tests.support.web import PAGES, Conn, words


@pytest.fixture
def refusing(make_app: Callable[..., Flask], database_url: str, db: Conn) -> FlaskClient:
    """A browser on the page of a database that has become read-only since its forms were shown."""
    add_job(db, queue="mail")
    add_worker(db)
    db.execute("INSERT INTO jobq.schedule (name, task, cron) VALUES ('nightly', 'mail.send', '0 7 * * *')")
    name = sql.Identifier(db.info.dbname)
    db.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
    app = make_app(database_url)
    return app.test_client()


def test_every_page_says_that_nothing_can_be_changed(refusing: FlaskClient) -> None:
    for path in (*PAGES, "/queue?name=mail", "/schedule?name=nightly", "/jobs/1"):
        response = refusing.get(path)
        assert response.status_code == 200, path
        assert f"Nothing can be changed here: {READ_ONLY}." in words(response.text), path


def test_a_server_that_takes_changes_says_nothing(client: FlaskClient) -> None:
    for path in PAGES:
        assert "Nothing can be changed here" not in client.get(path).text


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/jobs/1/cancel", {}),
        ("/jobs/1/move", {"queue": "other"}),
        ("/jobs/change", {"id": "1", "action": "cancel"}),
        ("/queues/pause", {"queue": "mail"}),
        ("/queues/set", {"queue": "mail", "limit": "3"}),
        ("/schedules/pause", {"schedule": "nightly"}),
        ("/schedules/run", {"schedule": "nightly"}),
        ("/operations/draft", {"action": "retry", "q": "state:failed"}),
        ("/workflows/1/cancel", {}),
        ("/workflows/1/retry", {}),
    ],
)
def test_a_change_is_answered_with_503_and_the_command_lines_sentence(
    refusing: FlaskClient, path: str, form: dict[str, str]
) -> None:
    found = re.search(r'name="csrf" value="([^"]+)"', refusing.get("/queues").text)
    assert found is not None
    response = refusing.post(path, data={"csrf": found[1], **form})
    assert response.status_code == 503
    assert READ_ONLY in words(response.text)
    assert response.headers["Retry-After"] == "5"
