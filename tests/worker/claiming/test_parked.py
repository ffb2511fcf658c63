"""Jobs whose task, or whose arguments, a worker's code does not know: left to the workers whose code does, at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from jobq import operations, queries
from jobq._postgres.sql import statement
from jobq._worker.inline import drain
from jobq.diagnostics import Snapshot, Status
from jobq.diagnostics.queues import QUEUE_CHECKS
from jobq.diagnostics.workers import WORKER_CHECKS
from jobq.filters import JobFilter
from tests.support import rolling
from tests.support.checks import some
from tests.support.jobs import Jobs
from tests.support.rows import add_job, add_worker
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
Conn = psycopg.Connection[Any]
APP = "tests.support.rolling:q"


def started(jobs: Jobs, number: int) -> None:
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.worker") == number, what=f"{number} workers")


def start(worker: StartWorker, version: str, *args: str) -> WorkerProcess:
    return worker("--processes", "1", *args, app=APP, env={"ROLLING": version})


def delays(jobs: Jobs, ids: list[int]) -> list[float]:
    rows = jobs.all(
        "SELECT extract(epoch FROM started_at - created_at)::float8 AS delay FROM jobq.job_history WHERE id = ANY (%s)",
        ids,
    )
    return sorted(row["delay"] for row in rows)


@pytest.mark.essential
def test_a_new_task_in_a_rolling_deployment(jobs: Jobs, worker: StartWorker) -> None:
    """Two versions beside each other: each job of the new task begins within a second, whichever worker claims it first."""
    start(worker, "old")
    start(worker, "new")
    started(jobs, 2)
    ids = []
    for _ in range(16):
        ids.append(rolling.fresh.enqueue(jobs.connection).id)
        jobs.wait(ids[-1])
    assert max(delays(jobs, ids)) < 1.0, delays(jobs, ids)
    ids = [ref.id for ref in rolling.NEW.enqueue_many(jobs.connection, [rolling.fresh.job() for _ in range(300)])]
    wait_until(lambda: len(delays(jobs, ids)) == 300, timeout=30, what="all of them")
    rows = jobs.all("SELECT attempt, crashes, state FROM jobq.job_history WHERE task = 'fresh'")
    assert {(row["attempt"], row["crashes"], row["state"]) for row in rows} == {(1, 0, "succeeded")}


def test_a_new_parameter_in_a_rolling_deployment(jobs: Jobs, worker: StartWorker) -> None:
    start(worker, "old")
    start(worker, "new")
    started(jobs, 2)
    ids = []
    for number in range(10):
        ids += [rolling.send_new.enqueue(jobs.connection, number, copy_to="a@b").id]
        ids += [rolling.send_old.enqueue(jobs.connection, number).id]
        for job in some(ids[-2:]):
            assert jobs.wait(job)["state"] == "succeeded"
    assert max(delays(jobs, ids)) < 1.0
    assert {jobs.wait(job)["result"] for job in ids[::2]} == {"new"}, "only the new code takes copy_to"


@pytest.mark.parametrize("first", ["old", "new"])
def test_a_type_that_has_grown_under_its_name_in_a_rolling_deployment(
    jobs: Jobs, worker: StartWorker, first: str
) -> None:
    """An enum has one more member, a model one more field: the parameters' annotations are the same text."""
    start(worker, first)
    start(worker, "new" if first == "old" else "old")
    started(jobs, 2)
    for _ in range(8):
        grown = [
            rolling.paint_new.enqueue(jobs.connection, rolling.GREEN).id,
            rolling.pack_new.enqueue(jobs.connection, rolling.GIFT).id,
        ]
        assert [jobs.wait(job)["result"] for job in grown] == ["new", "new"]


def test_a_value_that_only_other_code_takes(jobs: Jobs, worker: StartWorker) -> None:
    """While another signature is live the job is left to it; where all are alike it fails at once."""
    old = start(worker, "old")
    started(jobs, 1)
    bad = jobs.one("""SELECT jobq.enqueue('count', '{"number": "seven"}')""")
    ended = jobs.wait(bad)
    assert (ended["state"], ended["attempt"]) == ("failed", 1)
    assert "number='seven'" in ended["error"]
    start(worker, "new")
    started(jobs, 2)
    for _ in range(6):
        good = jobs.one("""SELECT jobq.enqueue('count', '{"number": "seven"}')""")
        assert jobs.wait(good)["state"] == "succeeded"
    assert old.is_running()


def test_it_waits_for_a_worker_that_is_still_to_come(jobs: Jobs, worker: StartWorker) -> None:
    """Nothing loops: it is claimed once, and stands visibly until a worker comes whose code has it."""
    old = start(worker, "old")
    started(jobs, 1)
    task = rolling.fresh.options(priority=3).enqueue(jobs.connection).id
    parameter = rolling.send_new.enqueue(jobs.connection, 1, copy_to="a@b").id
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'parked'") == 2, what="both parked")
    before = jobs.all("SELECT id, claims, attempt, run_at = created_at AS kept FROM jobq.job ORDER BY id")
    assert [(row["claims"], row["attempt"]) for row in before] == [(1, 0), (1, 0)]
    # Others run meanwhile, several reconciliations and heartbeats long.
    beats = jobs.one("SELECT max(beats) FROM jobq.worker")
    jobs.wait(rolling.send_old.enqueue(jobs.connection, 1).id)
    wait_until(lambda: jobs.one("SELECT max(beats) FROM jobq.worker") > beats + 2, what="heartbeats")
    assert jobs.all("SELECT id, claims, attempt, run_at = created_at AS kept FROM jobq.job ORDER BY id") == before

    def why(job: int) -> str:
        return queries.why_waiting(jobs.connection, "jobq", queries.get_job(jobs.connection, "jobq", job)) or ""

    assert why(task).startswith("No live worker knows task fresh since ")
    assert why(parameter).startswith("No live worker's task send takes parameter 'copy_to' since ")
    assert jobs.attempts(task) == jobs.attempts(parameter) == []
    start(worker, "new")
    assert jobs.wait(task)["state"] == jobs.wait(parameter)["state"] == "succeeded"
    assert old.is_running()


def test_two_versions_that_both_refuse_do_not_pass_it_to_and_fro(jobs: Jobs, worker: StartWorker) -> None:
    start(worker, "old")
    start(worker, "other")
    started(jobs, 2)
    job = rolling.send_new.enqueue(jobs.connection, 1, copy_to="a@b").id
    wait_until(lambda: " " in (jobs.live(job)["parked_signature"] or ""), what="both refusals")  # type: ignore[index]
    beats = jobs.one("SELECT min(beats) FROM jobq.worker")
    wait_until(lambda: jobs.one("SELECT min(beats) FROM jobq.worker") > beats + 3, what="heartbeats")
    row = jobs.live(job)
    assert row is not None
    assert (row["state"], row["claims"], row["attempt"]) == ("parked", 2, 0)
    start(worker, "new")
    assert jobs.wait(job)["result"] == "new"


def test_patience_ends(jobs: Jobs, worker: StartWorker) -> None:
    """What no live worker's parameters fit fails in the end; a task that no worker has is waited for."""
    start(worker, "old", "--park-patience", "0.5")
    job = rolling.send_new.enqueue(jobs.connection, 1, copy_to="a@b").id
    unknown = rolling.fresh.enqueue(jobs.connection).id
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'parked'") == 2, what="both parked")
    jobs.connection.execute("UPDATE jobq.maintenance_task SET due_at = now() WHERE name = 'parked'")
    # Another worker's start does the maintenance tasks that are due.
    wait_until(
        lambda: jobs.one("SELECT clock_timestamp() > max(parked_at) + interval '0.6 s' FROM jobq.job"), what="it"
    )
    start(worker, "old", "--park-patience", "0.5")
    ended = jobs.wait(job)
    assert (ended["state"], ended["error"]) == (
        "failed",
        "send: stored arguments do not fit: there is no parameter 'copy_to'",
    )
    assert [row["error_type"] for row in jobs.attempts(job)] == ["jobq.errors.InvalidArguments"]
    assert jobs.live(unknown)["state"] == "parked"  # type: ignore[index]


def test_an_ordered_group_keeps_its_order(jobs: Jobs, worker: StartWorker) -> None:
    """In a queue with a rule a refused job goes back to its place, and holds its group as a retry does."""
    start(worker, "new")
    started(jobs, 1)
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.queue WHERE group_mode = 'ordered'") == 1, what="the rule")
    start(worker, "old")
    started(jobs, 2)
    ids = [rolling.fresh_in_order.options(group="a").enqueue(jobs.connection, number).id for number in range(6)]
    ends = [jobs.wait(job) for job in ids]
    assert [end["attempt"] for end in ends] == [1] * 6
    moments = [end["started_at"] for end in ends]
    assert moments == sorted(moments)
    assert all(after["started_at"] >= before["finished_at"] for before, after in some(itertools.pairwise(ends)))


def test_a_refused_head_holds_its_group_and_no_permit(db: Conn) -> None:
    db.execute("INSERT INTO jobq.queue (name, group_mode, changed_at) VALUES ('q', 'ordered', now())")
    first = db.execute("SELECT jobq.enqueue('fresh', '{}', queue => 'q', group_key => 'g')").fetchone()
    second = db.execute("SELECT jobq.enqueue('always', '{}', queue => 'q', group_key => 'g')").fetchone()
    assert first is not None
    assert second is not None
    assert drain(rolling.OLD, db).retried >= 1
    rows = db.execute("SELECT task, state, run_at > now(), attempt FROM jobq.job ORDER BY id").fetchall()
    assert rows == [("fresh", "waiting", True, 0), ("always", "waiting", False, 0)], "no job passes it"
    assert db.execute("SELECT count(*) FROM jobq.job WHERE state = 'running'").fetchone() == (0,)


def test_a_queue_with_a_rule_remembers_who_has_refused(db: Conn) -> None:
    """Workers refuse it again and again: since when, and the signatures, stay until the job runs."""
    db.execute("INSERT INTO jobq.queue (name, max_running, changed_at) VALUES ('ruled', 1, now())")
    rolling.send_new.options(queue="ruled").enqueue(db, 1, copy_to="a@b")
    old, other = rolling.send_old.arguments.fingerprint, rolling.send_other.arguments.fingerprint
    since, refused = None, ""
    for app in (rolling.OLD, rolling.OTHER, rolling.OLD, rolling.OTHER, rolling.OTHER):
        db.execute("UPDATE jobq.job SET run_at = now()")
        assert drain(app, db, max_jobs=1).retried == 1
        row = db.execute("SELECT state, attempt, parked_at, parked_signature FROM jobq.job").fetchone()
        assert row is not None
        since = since or row[2]
        assert row[:3] == ("ready", 0, since)
        refused = row[3]
    assert refused == f"{old} {other}"
    db.execute("UPDATE jobq.job SET run_at = now()")
    assert drain(rolling.NEW, db).succeeded == 1


def test_paused_queues_and_other_queues_are_left(jobs: Jobs, worker: StartWorker) -> None:
    start(worker, "old")
    started(jobs, 1)
    jobs.connection.execute("INSERT INTO jobq.queue (name, paused_at) VALUES ('held', NULL), ('mine', NULL)")
    held, mine, others = (
        rolling.fresh.options(queue=queue).enqueue(jobs.connection).id for queue in ("held", "mine", "others")
    )
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job WHERE state = 'parked'") == 3, what="all parked")
    jobs.connection.execute("UPDATE jobq.queue SET paused_at = now(), changed_at = now() WHERE name = 'held'")
    new = start(worker, "new", "--queues", "mine:max=1,held")
    assert jobs.wait(mine)["state"] == "succeeded"
    beats = jobs.one("SELECT max(beats) FROM jobq.worker WHERE pid = %s", new.pid)
    wait_until(lambda: jobs.one("SELECT beats FROM jobq.worker WHERE pid = %s", new.pid) > beats + 2, what="heartbeats")
    assert {jobs.live(job)["claims"] for job in (held, others)} == {1}  # type: ignore[index]
    operations.resume(jobs.connection, "jobq", "held", actor="ann")
    assert jobs.wait(held)["state"] == "succeeded"


def test_a_worker_that_drains_takes_what_it_knows_and_leaves_the_rest(jobs: Jobs, worker: StartWorker) -> None:
    rolling.NEW.enqueue_many(jobs.connection, [rolling.fresh.job(), rolling.always.job()])
    assert start(worker, "old", "--drain").wait() == 0
    assert jobs.all("SELECT task, state FROM jobq.job") == [{"task": "fresh", "state": "parked"}]
    assert start(worker, "new", "--drain").wait() == 0
    assert jobs.all("SELECT task, state FROM jobq.job") == []


def test_a_worker_without_any_task_says_so(jobs: Jobs, worker: StartWorker) -> None:
    idle = start(worker, "none")
    wait_until(lambda: "has no task" in idle.log, what="the warning")
    assert "import the modules that define them" in idle.log


def test_draining_in_process(db: Conn) -> None:
    """A web server of the new version, a worker that the deployment has not reached yet."""
    rolling.send_new.enqueue(db, 7, copy_to="a@b")
    rolling.fresh.enqueue(db)
    assert drain(rolling.OLD, db).retried == 2
    rows = db.execute("SELECT task, state, attempt FROM jobq.job ORDER BY id").fetchall()
    assert rows == [("send", "parked", 0), ("fresh", "parked", 0)]
    assert db.execute("SELECT count(*) FROM jobq.job_history").fetchone() == (0,)
    assert drain(rolling.NEW, db).succeeded == 2


def test_what_an_operator_can_do_with_a_parked_job(db: Conn) -> None:
    ids = [rolling.fresh.enqueue(db).id for _ in range(5)]
    drain(rolling.OLD, db)
    tried, cancelled, deleted, moved, snoozed = ids
    assert operations.cancel(db, "jobq", [cancelled], actor="ann").done == [cancelled]
    assert operations.delete(db, "jobq", [deleted], actor="ann").done == [deleted]
    assert operations.move(db, "jobq", [moved], queue="other", actor="ann").done == [moved]
    assert operations.retry(db, "jobq", [tried], actor="ann").done == [tried]
    assert operations.snooze(db, "jobq", [snoozed], seconds=60, actor="ann").done == [snoozed]
    rows = {row[0]: row[1:] for row in db.execute("SELECT id, state, queue, run_at > now() FROM jobq.job").fetchall()}
    assert rows == {
        tried: ("ready", "default", False),
        moved: ("parked", "other", False),
        snoozed: ("parked", "default", True),
    }
    page = queries.list_jobs(db, "jobq", JobFilter.parse("state:parked"))
    assert {row.id for row in page} == {moved, snoozed}
    assert queries.overview(db, "jobq").counts["parked"] == 2
    # Tried at once, and refused at once.
    assert drain(rolling.OLD, db).retried == 1
    assert drain(rolling.NEW, db).succeeded == 2, "the snoozed one is for later"


def test_doctor_says_what_no_live_worker_knows(db: Conn) -> None:
    """Whether a worker is alive or not, and whatever the jobs' state: there is a finding that says fail."""
    rolling.fresh.enqueue(db)
    rolling.send_new.enqueue(db, 1, copy_to="a@b")
    drain(rolling.OLD, db)
    add_worker(db, host="box", tasks=["send"])
    db.execute("UPDATE jobq.worker SET signatures = %s", ([rolling.send_old.arguments.fingerprint],))
    check, _ = QUEUE_CHECKS["parked"]
    findings = {finding.message.partition(" since ")[0]: finding for finding in check(Snapshot(db, "jobq"))}
    assert set(findings) == {"no live worker knows task fresh", "no live worker's task send takes parameter 'copy_to'"}
    assert {finding.status for finding in findings.values()} == {Status.FAIL}
    # Once a worker is there whose code may run them they are on their way.
    add_worker(db, host="new", tasks=["fresh", "send"])
    db.execute("UPDATE jobq.worker SET signatures = '{f,s}' WHERE host = 'new'")
    assert list(check(Snapshot(db, "jobq"))) == []
    add_worker(db, host="bare", tasks=[])
    bare = [
        finding.message
        for finding in WORKER_CHECKS["workers"][0](Snapshot(db, "jobq"))
        if "has no task" in finding.message
    ]
    assert len(bare) == 1


def test_queues_count_what_is_parked(db: Conn) -> None:
    rolling.fresh.options(queue="lonely").enqueue(db)
    drain(rolling.OLD, db)
    (found,) = [queue for queue in queries.queues(db, "jobq") if queue.name == "lonely"]
    assert (found.ready, found.parked) == (0, 1)
    assert queries.queue(db, "jobq", "lonely").info.parked == 1


def test_a_parked_job_expires(db: Conn) -> None:
    job = rolling.fresh.enqueue(db).id
    drain(rolling.OLD, db)
    db.execute("UPDATE jobq.job SET expires_at = now() - interval '1 s'")
    assert drain(rolling.NEW, db).succeeded == 0
    assert db.execute("SELECT state FROM jobq.job_history WHERE id = %s", (job,)).fetchone() == ("expired",)


def test_a_worker_that_may_know_hurries_what_was_refused_and_not_what_has_run_since(db: Conn) -> None:
    """In a queue with rules: a refused job becomes due; a retry keeps its time, though the job was refused once."""
    db.execute("INSERT INTO jobq.queue (name, max_running, changed_at) VALUES ('ruled', 5, now())")
    refused, retried, known = (add_job(db, task="always", queue="ruled", claims=2, run_in=3600) for _ in range(3))
    db.execute("UPDATE jobq.job SET parked_at = now(), parked_claims = 2, parked_signature = 'theirs'")
    db.execute("UPDATE jobq.job SET parked_claims = 1 WHERE id = %s", (retried,))
    db.execute("UPDATE jobq.job SET parked_signature = 'theirs ours' WHERE id = %s", (known,))
    parameters = {"tasks": ["always"], "signatures": ["ours"], "queues": None, "channel": "jobq"}
    db.execute(statement("parked_due", "jobq").query, parameters)
    due = db.execute("SELECT id FROM jobq.job WHERE run_at <= now()").fetchall()
    assert due == [(refused,)]


def test_a_key_that_holds_until_the_start_holds_while_the_job_is_parked(db: Conn) -> None:
    """It did not start, so what is sent meanwhile takes its place: once there, and again for any code."""
    send = rolling.send_new.options(key="mail:1", key_holds="until_started", on_conflict="replace")
    first = send.enqueue(db, 1, copy_to="a@b")
    assert drain(rolling.OLD, db).retried == 1
    assert db.execute("SELECT state FROM jobq.job").fetchall() == [("parked",)]
    assert db.execute("SELECT job_id FROM jobq.job_key").fetchall() == [(first.id,)]
    again = rolling.send_old.options(key="mail:1", key_holds="until_started", on_conflict="replace").enqueue(db, 2)
    assert (again.id, again.created, again.replaced) == (first.id, False, True)
    assert db.execute("SELECT state, args->'order' FROM jobq.job").fetchall() == [("ready", 2)]
    assert drain(rolling.OLD, db).succeeded == 1
    assert db.execute("SELECT count(*) FROM jobq.job_key").fetchone() == (0,)
