"""What the page tells of the database: for the owner, and for a role that may see little."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from jobq import migrate, queries
from tests.support.checks import some
from tests.support.rows import add_finished, add_job, add_worker
from tests.support.servers.roles import Login, logins
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]


@pytest.fixture
def login(database_url: str) -> Iterator[Login]:
    with logins(database_url) as made:
        yield made


def test_the_whole(db: Conn) -> None:
    add_job(db)
    add_job(db)
    add_finished(db, "succeeded")
    add_finished(db, "succeeded", ago=86_400)
    add_worker(db)
    add_worker(db, version="0.0.9")
    add_worker(db, version="0.0.1", ago=100)
    db.execute("VACUUM ANALYZE jobq.job")
    # Until PostgreSQL 15 another process collects what is counted, half a second later.
    wait_until(
        lambda: (
            next(table for table in queries.system(db, "jobq").tables if table.name == "job").vacuumed_at is not None
        ),
        what="the vacuum to be known",
    )
    found = queries.system(db, "jobq")
    assert found.revision == migrate.head() == found.revision_wanted
    assert int(found.server_version.split(".")[0].split("beta")[0]) >= 14
    assert abs(found.clock_ahead_seconds) < 5
    assert 0 <= found.notify_usage < 0.5
    assert 1 <= found.connections <= found.max_connections
    assert found.versions == ["0.0.9", "0.1.0"]
    tables = {table.name: table for table in found.tables}
    assert {"job", "job_key", "worker", "maintenance_task", "audit", "rollup_queue", "job_attempt"} <= set(tables)
    assert {f"job_history_{state}" for state in ("succeeded", "failed", "cancelled", "expired")} <= set(tables)
    assert not any(name.endswith("rest") or name[-1].isdigit() for name in some(tables))
    job = tables["job"]
    assert (job.rows, job.partitions) == (2, 1)
    assert job.vacuumed_at is not None
    assert job.analyzed_at is not None
    assert job.heap >= 8192
    assert job.size == job.heap + job.indexes + job.toast
    assert tables["job_history_succeeded"].partitions >= 10
    assert found.claim_index is not None
    assert found.claim_index.entries == 2
    assert found.claim_index.bytes_per_entry == found.claim_index.size / 2


def test_who_holds_dead_rows(db: Conn, database_url: str) -> None:
    before = queries.system(db, "jobq")
    with psycopg.connect(database_url, application_name="forgotten") as other:
        other.execute("SELECT txid_current()")
        for _ in range(3):
            add_job(db)
        found = queries.system(db, "jobq")
        (holder,) = [holder for holder in found.holders if "forgotten" in holder.name]
        assert (holder.kind, holder.state) == ("session", "idle in transaction")
        assert holder.age >= 3
        assert found.oldest_xmin_age >= holder.age
        assert holder.seconds is not None
        assert holder.query == "SELECT txid_current()"
        assert holder.fix == f"SELECT pg_terminate_backend({other.info.backend_pid})"
    assert "forgotten" not in " ".join(holder.name for holder in before.holders)


def test_a_replication_slot_without_a_horizon_holds_nothing(db: Conn) -> None:
    slot = f"jobq_{uuid.uuid4().hex[:8]}"
    db.execute("SELECT pg_create_physical_replication_slot(%s, true)", (slot,))
    try:
        assert slot not in {holder.name for holder in queries.system(db, "jobq").holders}
    finally:
        db.execute("SELECT pg_drop_replication_slot(%s)", (slot,))


def test_a_role_that_may_only_view(db: Conn, database_url: str, login: Login) -> None:
    add_job(db)
    with (
        psycopg.connect(database_url, application_name="forgotten") as other,
        psycopg.connect(login("viewer"), autocommit=True) as viewer,
    ):
        other.execute("SELECT txid_current()")
        found = queries.system(viewer, "jobq")
        assert found.revision == migrate.head()
        assert found.hidden_sessions >= 1
        assert {"job", "rollup_queue"} <= {table.name for table in found.tables}
        assert found.claim_index is not None
        job = add_job(db)
        assert queries.why_waiting(viewer, "jobq", queries.get_job(viewer, "jobq", job)) is not None
        assert queries.queue(viewer, "jobq", "default").known
        assert len(queries.series(viewer, "jobq").at) == 60
        assert queries.sparklines(viewer, "jobq") == {}
        assert queries.failures(viewer, "jobq").groups == []
        assert queries.failure(viewer, "jobq", "0" * 12) is None


def test_estimates_stand_for_counts_that_were_given_up(db: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobq.queries.summary.COUNT_LIMIT", 100)
    db.execute("INSERT INTO jobq.job (task) SELECT 't' FROM generate_series(1, 5000)")
    db.execute("INSERT INTO jobq.job (task, run_at) SELECT 't', now() + interval '1 d' FROM generate_series(1, 50)")
    db.execute(
        "INSERT INTO jobq.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at,"
        " created_at, finished_at, args, headers) SELECT n, 1, 1, 1, 5, 0, 'q', 't', 'succeeded', now(), now(),"
        " now() - n %% 2 * interval '1 d', '{}', '{}' FROM generate_series(1, 3000) AS n",
        (),
    )
    db.execute("ANALYZE")
    found = queries.overview(db, "jobq")
    assert (found.counts["ready"], found.counts["succeeded"], found.counts["scheduled"]) == (101, 101, 50)
    assert set(found.estimates) == {"ready", "succeeded"}
    assert found.estimates["ready"] == pytest.approx(5000, rel=0.1)
    assert found.estimates["succeeded"] == pytest.approx(3000, rel=0.1)
    assert queries.stats(db, "jobq").estimates == found.estimates


def test_the_last_hour_is_as_the_maintenance_task_counted_it(db: Conn) -> None:
    add_finished(db, "succeeded", ago=1800)
    add_finished(db, "succeeded", ago=0)
    assert queries.throughput(db, "jobq").total == 2
    # Told apart from what history holds, to see which is read.
    db.execute(
        "INSERT INTO jobq.rollup_queue (span, at, queue, succeeded, failed)"
        " SELECT 60, at, '', 10, 1 FROM generate_series(date_trunc('minute', now()) - interval '70 min',"
        " date_trunc('minute', now()) - interval '1 min', interval '1 min') AS at"
    )
    found = queries.throughput(db, "jobq")
    assert [minute.minutes_ago for minute in found.minutes] == list(reversed(range(60)))
    assert {minute.total for minute in found.minutes[:-2]} == {11}
    assert found.minutes[-1].succeeded + found.minutes[-2].succeeded in (1, 11)
    assert found.since is None
    # No worker has counted for a while: all from history again.
    db.execute("DELETE FROM jobq.rollup_queue WHERE at > now() - interval '6 min'")
    assert queries.throughput(db, "jobq").total == 2
