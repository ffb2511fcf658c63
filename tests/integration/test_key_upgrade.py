"""Revision 0006 and back: keys that are held stay held, and rows that clients cannot read are gone."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from jobq import JobQ, KeyConflict, migrate, operations
from jobq.worker.inprocess import drain

Conn = psycopg.Connection[Any]


@pytest.fixture
def q(database_url: str) -> JobQ:
    app = JobQ(database_url)

    @app.task
    def charge(cents: int) -> None: ...

    @app.task
    def refund(cents: int) -> None: ...

    return app


def test_keys_are_held_by_their_tasks_after_the_upgrade(q: JobQ, db: Conn, database_url: str) -> None:
    enqueue = "SELECT jobq.enqueue('charge', '{\"cents\": 1}', key => %s, key_holds => %s, run_at => %s)"
    migrate.downgrade(database_url, "0005")
    [(live,)] = db.execute(enqueue, ("live", "until_finished", "2030-01-01")).fetchall()
    [(debounced,)] = db.execute(enqueue, ("debounced", "until_started", "2030-01-01")).fetchall()
    [(ended,)] = db.execute(enqueue, ("ended", "period", None)).fetchall()
    [(dead,)] = db.execute(enqueue, ("dead", "until_finished", None)).fetchall()
    db.execute("INSERT INTO jobq.job_key (key, job_id, holds, until) VALUES ('gone', 999, 'period', '2030-01-01')")
    db.execute(
        "WITH gone AS (DELETE FROM jobq.job WHERE id = ANY (%s) RETURNING *) INSERT INTO jobq.job_history"
        " (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at, created_at, finished_at, key,"
        " key_holds, args, headers) SELECT id, 1, 1, 1, 5, 0, queue, task, 'failed', run_at, created_at, now(), key,"
        " key_holds, args, headers FROM gone",
        ([ended, dead],),
    )
    db.execute("DELETE FROM jobq.job_key WHERE key = 'dead'")
    assert migrate.upgrade(database_url) == ["0006", "0007", "0008"]

    assert db.execute("SELECT key, scope, job_id FROM jobq.job_key ORDER BY key").fetchall() == [
        ("debounced", "charge", debounced),
        ("ended", "charge", ended),
        ("gone", "", 999),
        ("live", "charge", live),
    ]
    charge, refund = q.tasks["charge"], q.tasks["refund"]
    for key, holder in (("live", live), ("debounced", debounced), ("ended", ended)):
        assert charge.options(key=key).enqueue(db, 2).id == holder
        assert refund.options(key=key, delay=600).enqueue(db, 2).created
    assert charge.options(key="debounced", key_holds="until_started", on_conflict="replace").enqueue(db, 3).replaced
    with pytest.raises(KeyConflict, match="job 999, of a task that is not known"):
        charge.options(key="gone", key_scope="global").enqueue(db, 2)
    # A dead one takes its key again, for its task.
    assert operations.retry(db, "jobq", [dead], actor="ann").done == [dead]
    assert not charge.options(key="dead").enqueue(db, 2).created
    assert drain(q, db).succeeded == 2
    assert db.execute("SELECT count(*) FROM jobq.job_key WHERE job_id = ANY (%s)", ([debounced, dead],)).fetchone() == (
        0,
    )


def test_a_key_is_one_again_after_the_downgrade(q: JobQ, db: Conn, database_url: str) -> None:
    charge, refund = q.tasks["charge"], q.tasks["refund"]
    first = charge.options(key="k", delay=600).enqueue(db, 1)
    refund.options(key="k", delay=600).enqueue(db, 1)
    charge.options(key="k", key_scope="global", delay=600).enqueue(db, 1)
    other = refund.options(key="other", key_scope="global", key_holds="until_started", delay=600).enqueue(db, 1)
    migrate.downgrade(database_url, "0005")
    assert db.execute("SELECT key, job_id FROM jobq.job_key ORDER BY key").fetchall() == [
        ("k", first.id),
        ("other", other.id),
    ]
    held = db.execute("SELECT jobq.enqueue('charge', '{}', key => 'k'), jobq.enqueue('charge', '{}', key => 'other')")
    assert held.fetchall() == [(first.id, other.id)]
    assert migrate.upgrade(database_url) == ["0006", "0007", "0008"]
    assert db.execute("SELECT key, scope, job_id FROM jobq.job_key ORDER BY key").fetchall() == [
        ("k", "charge", first.id),
        ("other", "refund", other.id),
    ]


def test_values_that_the_constraints_refuse_do_not_stop_the_upgrade(q: JobQ, db: Conn, database_url: str) -> None:
    migrate.downgrade(database_url, "0005")
    for timeout, expires_at in (("Infinity", "infinity"), ("NaN", None), ("1e300", "-infinity"), ("5", "2030-01-01")):
        db.execute("INSERT INTO jobq.job (task, timeout, expires_at) VALUES ('charge', %s, %s)", (timeout, expires_at))
    db.execute("INSERT INTO jobq.job (task, key) VALUES ('charge', %s), ('charge', '')", ("x" * 501,))
    db.execute("INSERT INTO jobq.queue (name, rate_jobs, rate_seconds, rate_burst) VALUES ('odd', 1, 'NaN', 1)")
    assert migrate.upgrade(database_url) == ["0006", "0007", "0008"]
    assert db.execute("SELECT timeout, expires_at IS NOT NULL, length(key) FROM jobq.job ORDER BY id").fetchall() == [
        (None, False, None),
        (None, False, None),
        (None, False, None),
        (5.0, True, None),
        (None, False, 500),
        (None, False, None),
    ]
    assert q.queue("odd").settings().rate is None
