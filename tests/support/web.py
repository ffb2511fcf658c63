"""The status page in tests: forms and what was recorded."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import psycopg
from flask.testing import FlaskClient

Conn = psycopg.Connection[Any]
PAGES = (
    "/",
    "/queues",
    "/jobs",
    "/workflows",
    "/failures",
    "/schedules",
    "/workers",
    "/operations",
    "/audit",
    "/system",
)


def token(client: FlaskClient, at: str = "/jobs") -> str:
    """The form token of the page at `at`, which must have a form."""
    found = re.search(r'name="csrf" value="([^"]+)"', client.get(at).text)
    assert found is not None
    return found[1]


def words(html: str) -> str:
    """What a page says, without its markup, in single spaces."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", html)))


def audit(db: Conn) -> list[tuple[str, str]]:
    """Each actor and action, in order."""
    return db.execute("SELECT actor, action FROM jobq.audit ORDER BY id").fetchall()
