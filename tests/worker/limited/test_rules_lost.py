"""A queue that loses its rules, or is paused, while a claim from it is under way: a heartbeat tells at any moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from jobq._worker.database import Connection, Database
from jobq._worker.database_errors import ErrorKind
from jobq._worker.limited import claims
from jobq._worker.limited.claims import LimitedClaims
from jobq._worker.limited.queues import LimitedQueues
from jobq._worker.statements.parameters import MAX_BATCH
from jobq.settings import Settings
from tests.worker.limited.test_groups import Conn, put, rule, states

WORKER = uuid4()


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    async with await Database(Settings(database_url=database_url)).connect("test") as connection:
        yield connection


@pytest.fixture
def limited(db: Conn) -> LimitedQueues:
    rule(db, "mail", max_running=5)
    limited = LimitedQueues("jobq", 60.0)
    limited.refresh(["mail"])
    return limited


def during_claims(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Have something happen after the server has answered a claim, before the claim goes on."""
    for name in ("fetch", "fetch_within"):
        genuine = getattr(claims, name)

        async def wrapped(*args: Any, genuine: Any = genuine, **named: Any) -> Any:
            try:
                return await genuine(*args, **named)
            finally:
                happens()

        monkeypatch.setattr(claims, name, wrapped)


def in_trouble(limited: LimitedQueues) -> None:
    """The last claim of the queue was refused, so that the next one claims a job by itself."""
    error = psycopg.errors.RaiseException("the operator's rule")
    limited.failed("mail", error, ErrorKind.REFUSED)
    assert limited.trouble["mail"].most == 1


async def test_after_the_look(db: Conn, connection: Connection, limited: LimitedQueues) -> None:
    """The claim finds nothing that this function may claim; plain claims do."""
    put(db, None)
    await limited.poll(connection)
    assert limited.due() == ["mail"]
    db.execute("DELETE FROM jobq.queue")
    claimed = await LimitedClaims("jobq", limited).claim(connection, WORKER, "mail", 5)
    assert len(claimed) == sum(state == "running" for state in states(db).values())
    limited.refresh([])
    assert limited.due() == []


@pytest.mark.parametrize("careful", [False, True])
async def test_during_a_claim(
    db: Conn, connection: Connection, limited: LimitedQueues, monkeypatch: pytest.MonkeyPatch, careful: bool
) -> None:
    """What was claimed is handed out all the same."""
    ids = put(db, *[None] * 3)
    if careful:
        in_trouble(limited)
        # This claim is the one after which the trouble is over.
        limited.trouble["mail"].most = MAX_BATCH
    during_claims(monkeypatch, lambda: limited.refresh([]))
    claimed = await LimitedClaims("jobq", limited).claim(connection, WORKER, "mail", 5)
    assert [row[0] for row in claimed.rows] == ids
    assert (limited.trouble, limited.due(), limited.problems.rows()) == ({}, [], [])


@pytest.mark.parametrize("careful", [False, True])
async def test_during_a_claim_that_is_refused(
    db: Conn, connection: Connection, limited: LimitedQueues, monkeypatch: pytest.MonkeyPatch, careful: bool
) -> None:
    """A problem noted now would be shown for ever: the queue is not served any more, and so nothing clears it."""
    put(db, None)
    db.execute("ALTER TABLE jobq.job ADD CHECK (state <> 'running')")
    if careful:
        in_trouble(limited)
    during_claims(monkeypatch, lambda: limited.refresh([]))
    claimed = await LimitedClaims("jobq", limited).claim(connection, WORKER, "mail", 5)
    assert len(claimed) == 0
    assert (limited.trouble, limited.due(), limited.problems.rows()) == ({}, [], [])
