"""Real workers on queues with groups, limits, rates and caps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from tests.apps import plain as apps
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
FAST = ("--heartbeat-interval", "0.5", "--suspicion", "2", "--lease", "4")
# Too seldom for a poll to be what made a job start.
NO_POLL = ("--poll-interval", "100")


def rule(jobs: Jobs, queue: str, **columns: Any) -> None:
    """Set what a queue has, and tell the workers, as `configure` does."""
    names = ", ".join(columns)
    jobs.connection.execute(
        f"INSERT INTO jobq.queue (name, changed_at, {names}) VALUES (%s, clock_timestamp(){', %s' * len(columns)}) "
        "ON CONFLICT (name) DO UPDATE SET changed_at = excluded.changed_at, "
        + ", ".join(f"{name} = excluded.{name}" for name in columns),
        (queue, *columns.values()),
    )
    jobs.connection.execute("SELECT pg_notify('jobq', 'queues')")


def spans(jobs: Jobs) -> list[tuple[float, float]]:
    """When each execution of `wait` began and ended, by its traces."""
    rows = jobs.all("SELECT job, array_agg(extract(epoch FROM at)::float8 ORDER BY at) AS at FROM ran GROUP BY job")
    return sorted((row["at"][0], row["at"][-1]) for row in rows)


def at_once(found: list[tuple[float, float]]) -> int:
    steps = sorted([(start, 1) for start, _ in found] + [(end, -1) for _, end in found])
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


def test_ordered_groups_over_two_workers_and_a_kill(jobs: Jobs, worker: StartWorker) -> None:
    rule(jobs, "mail", group_mode="ordered")
    first = [worker(*FAST, "--processes", "1") for _ in range(2)]
    refs = {
        group: [
            apps.wait.options(queue="mail", group=group).enqueue(jobs.connection, 0.02, f"{group}{n}").id
            for n in range(10)
        ]
        for group in "abcdef"
    }
    wait_until(lambda: jobs.one("SELECT count(*) > 10 FROM ran"), what="some jobs")
    first[0].kill()
    for ids in refs.values():
        for one in ids:
            assert jobs.wait(one, timeout=60)["state"] == "succeeded"
        # In their order, and none began before the one before it had ended. One whose worker died before its end was written
        # down may have run twice, but before the next.
        rows = jobs.all(
            "SELECT job, note, extract(epoch FROM at)::float8 AS at FROM ran WHERE job = ANY(%s) ORDER BY at, job", ids
        )
        assert list(dict.fromkeys(row["job"] for row in rows if row["note"].startswith("end"))) == ids
        ends = {row["job"]: row["at"] for row in rows if row["note"].startswith("end")}
        starts = {row["job"]: row["at"] for row in reversed(rows) if row["note"].startswith("start")}
        assert all(ends[before] <= starts[after] for before, after in some(pairwise(ids)))


@pytest.mark.essential
def test_a_limit_over_two_workers(jobs: Jobs, worker: StartWorker) -> None:
    rule(jobs, "mail", max_running=3)
    for _ in range(2):
        worker("--processes", "1")
    ids = [apps.wait.options(queue="mail").enqueue(jobs.connection, 0.1).id for _ in range(24)]
    assert {jobs.wait(one)["claims"] for one in ids} == {1}
    assert at_once(spans(jobs)) == 3


def test_a_limit_set_while_workers_run_is_followed(jobs: Jobs, worker: StartWorker) -> None:
    running = worker("--processes", "1", *NO_POLL)
    wait_until(lambda: "working" in running.log, what="the worker")
    rule(jobs, "mail", max_running=1)
    probe = apps.wait.options(queue="mail").enqueue(jobs.connection, 0.0).id
    wait_until(lambda: jobs.finished(probe), what="a job of the queue")
    ids = [apps.wait.options(queue="mail").enqueue(jobs.connection, 0.05).id for _ in range(10)]
    for one in ids:
        jobs.wait(one)
    assert at_once(spans(jobs)) == 1
    rule(jobs, "mail", max_running=None)
    jobs.connection.execute("TRUNCATE ran")
    ids = [apps.wait.options(queue="mail").enqueue(jobs.connection, 0.5).id for _ in range(8)]
    for one in ids:
        jobs.wait(one)
    assert at_once(spans(jobs)) > 1


def test_what_one_worker_makes_room_for_another_takes(jobs: Jobs, worker: StartWorker) -> None:
    """No worker polls: one that has no slot for what it could claim calls the others."""
    rule(jobs, "mail", max_running=2)
    busy = worker("--processes", "1", "--concurrency", "1", *NO_POLL)
    wait_until(lambda: "working" in busy.log, what="the first worker")
    other = worker("--processes", "1", "--concurrency", "4", *NO_POLL)
    wait_until(lambda: "working" in other.log, what="the second worker")
    ids = [apps.wait.options(queue="mail").enqueue(jobs.connection, 0.05).id for _ in range(20)]
    for one in ids:
        jobs.wait(one)
    assert at_once(spans(jobs)) == 2


def test_a_retry_that_holds_its_group_starts_at_its_time(jobs: Jobs, worker: StartWorker) -> None:
    rule(jobs, "mail", group_mode="ordered")
    worker("--processes", "1", *NO_POLL)
    failing = apps.fail_until.options(queue="mail", group="a").enqueue(jobs.connection, 4).id
    behind = apps.record.options(queue="mail", group="a").enqueue(jobs.connection, "x").id
    first, second = jobs.wait(failing), jobs.wait(behind)
    assert (first["attempt"], second["attempt"]) == (4, 1)
    assert second["started_at"] >= first["finished_at"]


def test_a_delayed_job_of_a_group_starts_at_its_time(jobs: Jobs, worker: StartWorker) -> None:
    rule(jobs, "mail", group_mode="fair")
    running = worker("--processes", "1", *NO_POLL)
    wait_until(lambda: "working" in running.log, what="the worker")
    later = apps.noop.options(queue="mail", group="a", delay=1.0).enqueue(jobs.connection).id
    ended = jobs.wait(later)
    assert ended["started_at"] >= ended["created_at"]


def test_a_rate_over_two_workers(jobs: Jobs, worker: StartWorker) -> None:
    """All start, and not sooner than the rate lets them: five at once, the others one each 50 ms."""
    rule(jobs, "mail", rate_jobs=20, rate_seconds=1.0, rate_burst=5)
    for _ in range(2):
        worker("--processes", "1", *NO_POLL)
    ids = [apps.noop.options(queue="mail").enqueue(jobs.connection).id for _ in range(45)]
    ended = [jobs.wait(one) for one in ids]
    taken = max(one["started_at"] for one in ended) - min(one["created_at"] for one in ended)
    assert taken.total_seconds() >= (45 - 5) / 20


def test_a_cap_is_kept_by_each_worker(jobs: Jobs, worker: StartWorker) -> None:
    worker("--processes", "1", "--queues", "reports:max=2,default")
    ids = [apps.wait.options(queue="reports").enqueue(jobs.connection, 0.1).id for _ in range(12)]
    others = [apps.noop.enqueue(jobs.connection).id for _ in range(20)]
    for one in [*ids, *others]:
        assert jobs.wait(one)["state"] == "succeeded"
    assert at_once(spans(jobs)) == 2


@pytest.mark.parametrize("task", ["transactional", "crash"])
def test_every_end_of_a_job_makes_room(jobs: Jobs, worker: StartWorker, task: str) -> None:
    rule(jobs, "mail", group_mode="ordered", max_running=1)
    app = "tests.apps.transfers:q" if task == "transactional" else "tests.apps.plain:q"
    if task == "transactional":
        from tests.apps import transfers

        transfers.create(jobs.connection)
        ends = [transfers.act.options(queue="mail", group="a").enqueue(jobs.connection, f"t{n}").id for n in range(5)]
    else:
        crash = apps.crash.options(queue="mail", group="a")
        ends = [
            crash.enqueue(jobs.connection, "exit").id,
            apps.record.options(queue="mail", group="a").enqueue(jobs.connection, "x").id,
        ]
    worker("--processes", "1", "--max-crashes", "2", *NO_POLL, app=app)
    found = [jobs.wait(one) for one in ends]
    assert [one["state"] for one in found] == (
        ["succeeded"] * 5 if task == "transactional" else ["failed", "succeeded"]
    )
    assert all(before["finished_at"] <= after["started_at"] for before, after in some(pairwise(found)))


def test_plain_and_limited_queues_share_a_worker(jobs: Jobs, worker: StartWorker) -> None:
    """Neither starves: while both have more than the worker can take, each goes on."""
    rule(jobs, "mail", group_mode="fair")
    many = apps.q.enqueue_many(jobs.connection, [apps.noop.options(queue="mail", group="a").job() for _ in range(3000)])
    plain = apps.q.enqueue_many(jobs.connection, [apps.noop.job() for _ in range(3000)])
    worker("--processes", "1", "--concurrency", "2", *NO_POLL)
    jobs.wait(many[-1].id)
    jobs.wait(plain[-1].id)
    done = jobs.all("SELECT queue FROM jobq.job_history ORDER BY finished_at LIMIT 3000")
    share = Counter(row["queue"] for row in done)
    assert min(share["mail"], share["default"]) > 300, share


def test_a_worker_that_leaves_calls_the_others(jobs: Jobs, worker: StartWorker) -> None:
    rule(jobs, "mail", max_running=1)
    first = worker("--processes", "1", *NO_POLL)
    wait_until(lambda: "working" in first.log, what="the first worker")
    held = apps.wait.options(queue="mail").enqueue(jobs.connection, 1.0).id
    wait_until(lambda: jobs.traces(held), what="the first job")
    second = worker("--processes", "1", *NO_POLL)
    wait_until(lambda: "working" in second.log, what="the second worker")
    behind = apps.record.options(queue="mail").enqueue(jobs.connection, "x").id
    first.terminate()
    assert jobs.wait(held)["claims"] == 1
    assert jobs.wait(behind)["state"] == "succeeded"
    assert first.wait() == 0


def test_a_rule_that_the_application_declares(jobs: Jobs, worker: StartWorker) -> None:
    """Set by the worker that starts, before it claims; left alone once an operator has configured the queue."""
    early = [apps.in_order.options(group="a").enqueue(jobs.connection, str(n)).id for n in range(6)]
    first = worker("--processes", "1", "--concurrency", "4")
    found = [jobs.wait(one) for one in early]
    assert all(before["finished_at"] <= after["started_at"] for before, after in some(pairwise(found)))
    assert jobs.one("SELECT group_mode FROM jobq.queue WHERE name = 'in-order'") == "ordered"
    first.terminate()
    assert first.wait() == 0
    rule(jobs, "in-order", group_mode="fair")
    second = worker("--processes", "1")
    wait_until(lambda: "working" in second.log, what="the second worker")
    assert jobs.one("SELECT group_mode FROM jobq.queue WHERE name = 'in-order'") == "fair"


def test_what_runs_when_a_limit_is_set_counts_against_it(jobs: Jobs, worker: StartWorker) -> None:
    """By the worker itself: the session that sets it need not find the jobs that are claimed just then."""
    running = worker("--processes", "1", *NO_POLL)
    first = [apps.wait.options(queue="mail").enqueue(jobs.connection, 1.5).id for _ in range(3)]
    wait_until(lambda: all(jobs.traces(one) for one in first), what="three jobs")
    rule(jobs, "mail", max_running=3)
    wait_until(lambda: jobs.one("SELECT count(*) = 3 FROM jobq.job WHERE limited"), what="the worker's look")
    behind = apps.record.options(queue="mail").enqueue(jobs.connection, "x").id
    ended = [jobs.wait(one) for one in first]
    assert jobs.wait(behind)["started_at"] >= min(one["finished_at"] for one in ended)
    assert running.is_running()


def test_a_lock_that_somebody_holds_keeps_other_queues_from_nothing(jobs: Jobs, worker: StartWorker) -> None:
    """As an operator does who configures a queue and does not commit."""
    rule(jobs, "mail", max_running=5)
    running = worker("--processes", "1", *NO_POLL)
    before = apps.noop.options(queue="mail").enqueue(jobs.connection).id
    jobs.wait(before)
    with psycopg.connect(jobs.connection.info.dsn) as holder:
        holder.execute("SELECT pg_advisory_xact_lock('jobq.group_ready'::regclass::oid::integer, hashtext('mail'))")
        held = [apps.noop.options(queue="mail").enqueue(jobs.connection).id for _ in range(5)]
        for _ in range(30):
            jobs.wait(apps.noop.enqueue(jobs.connection).id)
        assert [(jobs.live(one) or {})["state"] for one in held] == ["ready"] * 5
    for one in held:
        assert jobs.wait(one)["claims"] == 1
    assert running.is_running()
