"""The operators' reads: what they say of rows put straight into the tables."""

from __future__ import annotations

from typing import Any

import psycopg
import psycopg.rows
import pytest
from psycopg import sql

from jobq import migrate, queries
from jobq.errors import InvalidOption, JobNotFound
from jobq.filters import JobFilter
from jobq.queries import search
from tests.support.checks import some
from tests.support.rows import add_attempt, add_finished, add_job, add_worker

Conn = psycopg.Connection[Any]


def test_an_empty_database(conn: Conn) -> None:
    seen = queries.overview(conn, "jobq")
    seen = queries.overview(conn, "jobq")
    assert set(seen.counts) == set(queries.STATES)
    assert set(seen.counts.values()) == {0}
    assert (seen.queues, seen.workers, seen.failures, seen.oldest_ready_seconds) == ([], [], [], None)
    assert seen.throughput is not None
    assert (seen.throughput.total, seen.throughput.since, len(seen.throughput.minutes)) == (0, None, 60)
    assert seen.revision == migrate.head()
    assert queries.list_jobs(conn, "jobq") == []
    assert queries.audit_log(conn, "jobq") == []
    assert queries.search_jobs(conn, "jobq", JobFilter(task="x")) == queries.JobPage(
        rows=[], before_id=None, complete=True
    )


def test_queues(conn: Conn) -> None:
    for priority in (0, 5, 9):
        add_job(conn, queue="mail", priority=priority, run_in=-10 * priority - 1)
    add_job(conn, queue="mail", run_in=60)
    add_job(conn, queue="pdf", state="running")
    add_finished(conn, "failed", queue="dead")
    add_finished(conn, "succeeded", queue="gone")
    add_worker(conn, queues=["served"])
    conn.execute("INSERT INTO jobq.queue VALUES ('quiet', now(), now(), 'ann', 'why')")
    found = {queue.name: queue for queue in queries.queues(conn, "jobq")}
    assert list(found) == ["dead", "mail", "pdf", "quiet", "served"]
    assert queries.queue_names(conn, "jobq") == ["mail", "quiet", "served"]
    mail = found["mail"]
    assert (mail.ready, mail.scheduled, mail.running, mail.failed) == (3, 1, 0, 0)
    assert mail.oldest_ready_seconds is not None
    assert 90 < mail.oldest_ready_seconds < 120
    assert (found["pdf"].running, found["pdf"].oldest_ready_seconds) == (1, None)
    assert found["dead"].failed == 1
    assert (found["quiet"].paused_by, found["quiet"].pause_reason) == ("ann", "why")


def test_counts_stop(conn: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobq.queries.summary.COUNT_LIMIT", 3)
    for _ in range(6):
        add_job(conn)
        add_job(conn, queue="b", priority=1)
        add_finished(conn, "succeeded")
    seen = queries.overview(conn, "jobq")
    assert (seen.counts["ready"], seen.counts["succeeded"]) == (4, 4)
    assert [queue.ready for queue in seen.queues] == [4, 4]
    assert not seen.aside_complete


def test_overview_and_stats(conn: Conn) -> None:
    add_job(conn, run_in=-30)
    for state in ("running", "parked", "waiting"):
        add_job(conn, state=state)
    for state in queries.FINISHED_STATES:
        add_finished(conn, state, ago=130)
    add_finished(conn, "succeeded", ago=7200)
    add_worker(conn, slots=8)
    add_worker(conn, ago=10, slots=4)
    add_worker(conn, ago=3600)
    seen = queries.overview(conn, "jobq")
    assert seen.counts == dict.fromkeys(queries.STATES, 1) | {"scheduled": 0, "succeeded": 2}
    assert sorted(worker.health for worker in seen.workers) == ["alive", "late", "silent"]
    assert seen.workers_alive == 2
    assert seen.throughput is not None
    assert seen.throughput.total == 4
    (minute,) = [minute for minute in seen.throughput.minutes if minute.total]
    assert (minute.minutes_ago, minute.failed, minute.cancelled, minute.expired) == (2, 1, 1, 1)
    assert [job.state for job in seen.failures] == ["failed"]
    stats = queries.stats(conn, "jobq")
    assert (stats.counts, stats.workers_alive, stats.slots) == (seen.counts, 2, 12)
    assert (stats.finished_last_hour, stats.failed_last_hour) == (4, 1)


def test_a_busy_hour_says_from_when_it_was_read(conn: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobq.queries.recent_history._TAIL_PAGES", 1)
    for n in range(200):
        add_finished(conn, "succeeded", ago=600 - n)
    add_finished(conn, "failed", ago=1200)
    seen = queries.throughput(conn, "jobq")
    assert 0 < seen.total < 200
    assert seen.since is not None


@pytest.mark.parametrize(("queue", "count"), [(None, 5), ("default", 4)])
def test_the_last_minutes_of_a_large_history_are_told(
    conn: Conn, monkeypatch: pytest.MonkeyPatch, queue: str | None, count: int
) -> None:
    monkeypatch.setattr("jobq.queries.rollups._TAIL_PAGES", 1)
    for _ in range(200):
        add_finished(conn, "succeeded", ago=1800)
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    now = row[0]
    conn.execute(
        "INSERT INTO jobq.rollup_queue (span, at, queue)"
        " SELECT 60, date_trunc('minute', %s) - interval '1 minute', unnest(ARRAY['', 'default'])",
        (now,),
    )
    for n in range(5):
        add_finished(conn, "succeeded", queue="default" if n else "other", finished_at=now)
    # The page that is read goes back to before the minutes that are not counted yet.
    assert sum(number or 0 for number in queries.series(conn, "jobq", hours=1, queue=queue).succeeded[-2:]) == count
    # Where it does not, nothing is said of them.
    for _ in range(200):
        add_finished(conn, "succeeded", finished_at=now)
    assert not any(some(queries.series(conn, "jobq", hours=1, queue=queue).succeeded[-2:]))


def test_lists_see_live_and_finished_as_one_and_go_by_id(conn: Conn) -> None:
    ids = [add_job(conn) if n % 2 else add_finished(conn, "succeeded") for n in range(25)]
    pages, before = [], None
    while True:
        rows = queries.list_jobs(conn, "jobq", limit=10, before_id=before)
        if not rows:
            break
        pages.append([row.id for row in rows])
        before = rows[-1].id
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [id for page in pages for id in page] == ids[::-1]


def test_every_state_filter(conn: Conn) -> None:
    made = {state: add_job(conn, state=state) for state in ("ready", "running", "parked", "waiting")}
    made["scheduled"] = add_job(conn, run_in=60)
    made |= {state: add_finished(conn, state) for state in queries.FINISHED_STATES}
    for state in queries.STATES:
        (row,) = queries.list_jobs(conn, "jobq", JobFilter(states=(state,)))
        assert (row.id, row.state) == (made[state], state)
        assert queries.get_job(conn, "jobq", row.id).state == state
    assert {row.state for row in queries.list_jobs(conn, "jobq")} == set(queries.STATES)


def test_queue_and_task_filters(conn: Conn) -> None:
    wanted = [add_job(conn, queue="a", task="t"), add_finished(conn, "failed", queue="a", task="t")]
    add_job(conn, queue="a", task="u")
    add_finished(conn, "failed", queue="b", task="t")
    assert [row.id for row in queries.list_jobs(conn, "jobq", JobFilter(queue="a", task="t"))] == wanted[::-1]
    assert [row.id for row in queries.list_jobs(conn, "jobq", JobFilter(states=("failed",), queue="a"))] == [wanted[1]]


def test_a_search_stops_says_so_and_goes_on(conn: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    rare = add_job(conn, task="rare")
    for _ in range(100):
        add_job(conn)
    monkeypatch.setattr(search, "_FIRST_WINDOW", 10)
    page = queries.search_jobs(conn, "jobq", JobFilter(task="rare"), reach=30)
    assert page == queries.JobPage(rows=[], before_id=rare + 71, complete=False, searched=30, floor_id=rare + 71)
    seen = 0
    while page.before_id is not None:
        page = queries.search_jobs(conn, "jobq", JobFilter(task="rare"), before_id=page.before_id, reach=30)
        seen += len(page.rows)
    assert seen == 1
    assert [row.id for row in queries.list_jobs(conn, "jobq", JobFilter(task="rare"))] == [rare]


def test_a_search_jumps_over_gaps(conn: Conn) -> None:
    low = add_job(conn, task="rare", id=5)
    add_job(conn, id=10**15)
    assert [row.id for row in queries.search_jobs(conn, "jobq", JobFilter(task="rare")).rows] == [low]


def test_a_full_page_says_whether_more_is_left(conn: Conn) -> None:
    ids = [add_job(conn, queue="a") for _ in range(4)]
    page = queries.search_jobs(conn, "jobq", JobFilter(queue="a"), limit=3)
    assert ([row.id for row in page.rows], page.before_id) == (ids[:0:-1], ids[1])
    page = queries.search_jobs(conn, "jobq", JobFilter(queue="a"), limit=3, before_id=page.before_id)
    assert ([row.id for row in page.rows], page.before_id) == (ids[:1], None)
    assert queries.search_jobs(conn, "jobq", limit=4).before_id is None


def test_large_arguments_are_left_out_of_lists(conn: Conn) -> None:
    # Not compressible: the size that counts is the stored one.
    conn.execute("SELECT setseed(0.5)")
    row = conn.execute("SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 500)").fetchone()
    assert row is not None
    small, large = add_job(conn, args={"a": 1}), add_job(conn, args={"a": row[0]})
    found = {job.id: job.args for job in queries.list_jobs(conn, "jobq")}
    assert found == {small: {"a": 1}, large: None}
    assert queries.get_job(conn, "jobq", large).args == {"a": row[0]}


def test_one_job_with_its_attempts(conn: Conn) -> None:
    id = add_finished(conn, "failed", args={"a": 1}, headers={"h": 2}, result={"r": 3}, error="boom")
    for n in range(1, 121):
        add_attempt(conn, id, claims=n, attempt=n, traceback=f"Traceback {n}", message="boom")
    job = queries.get_job(conn, "jobq", id)
    assert (job.args, job.headers, job.result, job.error) == ({"a": 1}, {"h": 2}, {"r": 3}, "boom")
    assert [attempt.claims for attempt in job.attempts] == list(range(21, 121))
    assert job.attempts[-1].traceback == "Traceback 120"


@pytest.mark.parametrize("id", [404, -1, 2**63, 2**80])
def test_an_unknown_job(conn: Conn, id: int) -> None:
    with pytest.raises(JobNotFound, match=str(id)):
        queries.get_job(conn, "jobq", id)


def test_json_that_python_cannot_read_is_told(conn: Conn) -> None:
    depth = 3000
    conn.execute("SET max_stack_depth = '6MB'")
    nested = '{"a":' + "[" * depth + "]" * depth + "}"
    conn.execute("INSERT INTO jobq.job (task, args) VALUES ('t', %s::jsonb)", (nested,))
    conn.execute("INSERT INTO jobq.job (task, args) VALUES ('t', %s::jsonb)", ('{"a":' + "9" * 5000 + "}",))
    rows = queries.list_jobs(conn, "jobq")
    assert len(rows) == 2
    for row in rows:
        args = queries.get_job(conn, "jobq", row.id).args
        assert "cannot be shown" in args


def test_wrong_filters_are_named(conn: Conn) -> None:
    with pytest.raises(InvalidOption, match="reach=0"):
        queries.search_jobs(conn, "jobq", reach=0)
    for limit in (0, 1001):
        with pytest.raises(InvalidOption, match=f"limit={limit}"):
            queries.list_jobs(conn, "jobq", limit=limit)


def test_maintenance_tasks_and_audit(conn: Conn) -> None:
    conn.execute("DELETE FROM jobq.maintenance_task")
    conn.execute(
        "INSERT INTO jobq.maintenance_task (name, due_at, last_error) VALUES ('rescue', now() - interval '1 min', 'no')"
    )
    (maintenance_task,) = queries.maintenance_tasks(conn, "jobq")
    assert (maintenance_task.name, maintenance_task.last_error) == ("rescue", "no")
    assert maintenance_task.overdue_seconds >= 60
    for n in range(3):
        conn.execute("INSERT INTO jobq.audit (actor, action, target) VALUES ('ann', %s, '{}')", (f"a{n}",))
    first = queries.audit_log(conn, "jobq", limit=2)
    assert [entry.action for entry in first] == ["a2", "a1"]
    rest = queries.audit_log(conn, "jobq", before_id=first[-1].id)
    assert [entry.action for entry in rest] == ["a0"]


def test_another_schema_and_another_row_factory(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url, "Other_1")
    with psycopg.connect(empty_database_url, row_factory=psycopg.rows.dict_row) as conn:
        assert queries.overview(conn, "Other_1").revision == migrate.head()
        conn.execute(sql.SQL("INSERT INTO {} (task) VALUES ('t')").format(sql.Identifier("Other_1", "job")))
        (row,) = queries.list_jobs(conn, "Other_1")
        assert row.task == "t"


def test_without_tables_the_error_is_the_databases(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as conn, pytest.raises(psycopg.errors.UndefinedTable):
        queries.schema_revision(conn, "jobq")
