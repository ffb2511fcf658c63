"""What operators read of durable jobs: their steps, their signals, and why they wait."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from jobq import InvalidOption, JobRef, operations, queries
from jobq.testing import JobqTester
from tests.apps import approvals as apps
from tests.support.jobs import Jobs

q = apps.q
MOMENT = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"


@pytest.fixture
def tester(jobs: Jobs, database_url: str) -> Iterator[JobqTester]:
    q.configure(database_url=database_url)
    with JobqTester(q, database_url) as made:
        yield made
    q.close()


def why(jobs: Jobs, job: int) -> str:
    return queries.why_waiting(jobs.connection, "jobq", queries.get_job(jobs.connection, "jobq", job)) or ""


def test_steps_have_values_times_and_their_order(tester: JobqTester, jobs: Jobs) -> None:
    job = apps.order.enqueue(jobs.connection, 7)
    assert queries.job_steps(jobs.connection, "jobq", job.id) == queries.JobSteps()
    tester.drain()
    found = queries.job_steps(jobs.connection, "jobq", job.id)
    assert (found.total, found.left_out) == (3, 0)
    first, second, third = found.steps
    assert [each.place for each in found.steps] == [1, 2, 3]
    assert (first.kind, first.name, first.state) == ("run", "reserve", "done")
    assert (first.args, first.result) == ({"order": 7}, {"order": 7, "items": 3})
    assert (first.tries, first.attempt, first.error) == (1, 1, None)
    assert first.finished_at is not None
    assert first.started_at <= first.finished_at
    assert second.args == {"order": 7, "card_token": "tok-4711"}
    assert (third.kind, third.name, third.state) == ("signal", "approval", "waiting")
    assert (third.wake_at, third.finished_at, third.result) == (None, None, None)
    newest = queries.job_steps(jobs.connection, "jobq", job.id, limit=1)
    assert ([each.name for each in newest.steps], newest.total, newest.left_out) == (["approval"], 3, 2)
    with pytest.raises(InvalidOption, match="limit"):
        queries.job_steps(jobs.connection, "jobq", job.id, limit=0)
    assert queries.job_steps(jobs.connection, "jobq", -1) == queries.JobSteps()


def test_signals_are_unread_until_a_step_takes_them(tester: JobqTester, jobs: Jobs) -> None:
    job = apps.order.enqueue(jobs.connection, 7)
    early = operations.send_signal(jobs.connection, "jobq", job.id, "approval", {"by": "ada"}, actor="ann")
    late = operations.send_signal(jobs.connection, "jobq", job.id, "approval", actor="bob")
    assert [each.taken_at for each in queries.job_signals(jobs.connection, "jobq", job.id)] == [None, None]
    tester.drain()
    newest, oldest = queries.job_signals(jobs.connection, "jobq", job.id)
    assert (oldest.id, oldest.name, oldest.payload, oldest.sent_by) == (early, "approval", {"by": "ada"}, "ann")
    assert (oldest.job_id, oldest.workflow_id, oldest.taken_by) == (job.id, None, job.id)
    assert oldest.taken_at is not None
    assert (newest.id, newest.payload, newest.taken_at, newest.taken_by) == (late, None, None, None)
    step = queries.job_steps(jobs.connection, "jobq", job.id).steps[-1]
    assert (step.state, step.args, step.result) == ("done", {"id": early, "by": "ann"}, {"by": "ada"})
    assert [each.id for each in queries.job_signals(jobs.connection, "jobq", job.id, limit=1)] == [late]
    assert queries.job_signals(jobs.connection, "jobq", -1) == []


def test_a_child_has_its_job_and_its_state(tester: JobqTester, jobs: Jobs) -> None:
    job = apps.parent.enqueue(jobs.connection, 20)
    jobs.connection.execute("UPDATE jobq.job SET run_at = now() - interval '1 hour'")
    tester.run(job)
    [step] = queries.job_steps(jobs.connection, "jobq", job.id).steps
    assert (step.kind, step.state, step.args, step.child_state) == ("child", "waiting", {"value": 20}, "ready")
    assert step.child_job is not None
    child = queries.get_job(jobs.connection, "jobq", step.child_job)
    assert child.workflow is not None
    assert (child.workflow.id, child.workflow.parent_job_id) == (step.child_run, job.id)
    assert step.child_run is not None
    run = queries.get_workflow(jobs.connection, "jobq", step.child_run)
    assert run is not None
    assert run.run.parent_job_id == job.id
    assert why(jobs, job.id) == f"It waits for its child, job {step.child_job} of task double (ready)."
    tester.run(step.child_job)
    assert why(jobs, job.id) in (
        f"It is about to be woken: its child, job {step.child_job} of task double, has ended.",
        "No worker is alive: start one with `jobq worker`.",
    )
    tester.drain()
    [step] = queries.job_steps(jobs.connection, "jobq", job.id).steps
    assert (step.state, step.result, step.child_state) == ("done", 40, "succeeded")


def test_a_sleep_that_is_over_is_done(tester: JobqTester, jobs: Jobs) -> None:
    job = apps.nap.enqueue(jobs.connection, 3600.0)
    tester.drain(with_scheduled=True)
    assert jobs.wait(job.id)["state"] == "succeeded"
    [step] = queries.job_steps(jobs.connection, "jobq", job.id).steps
    assert (step.kind, step.state, step.args) == ("sleep", "done", {"seconds": 3600.0})
    assert step.finished_at == step.wake_at


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (apps.nap.job(7200.0), rf"It sleeps for 2 h, until {MOMENT}\."),
        (apps.nap.job(7200.0, "cool down"), rf"It sleeps in 'cool down' for 2 h, until {MOMENT}\."),
        (apps.order.job(1), r"It waits for the signal 'approval', without a time limit\."),
        (apps.order.job(1, 7200.0), rf"It waits for the signal 'approval', for at most 2 h, until {MOMENT}\."),
        (
            apps.persistent.job(3),
            rf"It waits for try 2 of step 'decline' for 1 h, until {MOMENT}; "
            r"the last one failed with ConnectionError: the bank is away, order 3\.",
        ),
        (
            apps.several.job(),
            rf"5 of its steps wait: it sleeps for 2 h, until {MOMENT}; "
            r"it waits for the signal 'approval', without a time limit; "
            r"it waits for its child, job \d+ of task double \(\w+\); and 2 more\.",
        ),
    ],
)
def test_why_a_suspended_job_waits(tester: JobqTester, jobs: Jobs, job: object, expected: str) -> None:
    [ref] = q.enqueue_many(jobs.connection, [job])  # type: ignore[list-item]
    tester.run(ref)
    assert queries.get_job(jobs.connection, "jobq", ref.id).state == "scheduled"
    said = re.sub(r"(1 h 59 min|119 min)", "2 h", re.sub("59 min|60 min", "1 h", why(jobs, ref.id)))
    assert re.fullmatch(expected, said), said


def test_a_signal_that_was_sent_is_said(tester: JobqTester, jobs: Jobs) -> None:
    job = apps.order.enqueue(jobs.connection, 1)
    tester.drain()
    operations.send_signal(jobs.connection, "jobq", job.id, "other", actor="ann")
    assert why(jobs, job.id) == "It waits for the signal 'approval', without a time limit."
    assert queries.job_waits(jobs.connection, "jobq", job.id).signals == ["approval"]
    operations.send_signal(jobs.connection, "jobq", job.id, "approval", {"by": "ada"}, actor="ann")
    assert why(jobs, job.id) == "It is about to be woken: the signal 'approval' has been sent."
    assert queries.job_waits(jobs.connection, "jobq", job.id).signals == []


def test_a_paused_queue_and_a_failed_attempt_are_said(tester: JobqTester, jobs: Jobs) -> None:
    job = apps.order.enqueue(jobs.connection, 1)
    tester.drain()
    operations.pause(jobs.connection, "jobq", "default", actor="ann")
    assert re.fullmatch(
        "It waits for the signal 'approval', without a time limit; but queue default has been paused for .* by ann.",
        why(jobs, job.id),
    )


def test_a_nodes_job_waits_for_a_signal_to_it_or_to_its_run(tester: JobqTester, jobs: Jobs) -> None:
    with q.workflow("orders") as wf:
        for number in range(3):
            apps.order.node(number).named(f"order {number}")
    run = wf.enqueue(jobs.connection).id
    tester.drain()
    waits = queries.run_waits(jobs.connection, "jobq", run)
    assert sorted((wait.name, wait.node, wait.number, wait.is_over) for wait in waits) == [
        ("approval", f"order {number}", number + 1, False) for number in range(3)
    ]
    jobs_of_run = set()
    for explain in (0, 10):
        found = queries.get_workflow(jobs.connection, "jobq", run, explain=explain)
        assert found is not None
        assert {node.why for node in found.nodes} == {"It waits for the signal 'approval', without a time limit."}
        assert {node.state for node in found.nodes} == {"scheduled"}
        jobs_of_run = {node.job_id for node in found.nodes}
    operations.send_workflow_signal(jobs.connection, "jobq", run, "approval", {"by": "ada"}, actor="ann")
    assert {wait.is_over for wait in queries.run_waits(jobs.connection, "jobq", run)} == {True}
    tester.drain()
    [signal] = queries.run_signals(jobs.connection, "jobq", run)
    assert (signal.workflow_id, signal.job_id, signal.payload) == (run, None, {"by": "ada"})
    assert len(queries.run_waits(jobs.connection, "jobq", run)) == 2
    assert signal.taken_by in jobs_of_run
    # A job that ended by force waits for nothing.
    [left, _] = queries.run_waits(jobs.connection, "jobq", run)
    operations.cancel(jobs.connection, "jobq", [left.job_id], actor="ann")
    assert len(queries.run_waits(jobs.connection, "jobq", run)) == 1


def test_a_step_that_undoes_has_the_name_of_its_function(tester: JobqTester, jobs: Jobs) -> None:
    job = apps.refused.enqueue(jobs.connection, 7)
    tester.drain()
    for stored, shown in [("revoke_token", "revoke_token"), ("null", "null")]:
        jobs.connection.execute(
            "UPDATE jobq.job_step SET args = %s WHERE kind = 'undo' AND name = 'reserve'", (stored,)
        )
        steps = queries.job_steps(jobs.connection, "jobq", job.id).steps
        [undo] = [step for step in steps if step.kind == "undo" and step.name]
        assert (undo.args, undo.shortened_args) == (None, shown)


def test_large_values_are_left_out(tester: JobqTester, jobs: Jobs) -> None:
    job: JobRef[int] = apps.wordy.enqueue(jobs.connection, "x" * 2000)
    tester.drain()
    [step] = queries.job_steps(jobs.connection, "jobq", job.id).steps
    assert step.args is None
    assert step.shortened_args is not None
    assert step.shortened_args.startswith("{'text': 'xxx")
    other = apps.order.enqueue(jobs.connection, 1)
    incompressible = [f"{number * 7919 % 100_003:x}" for number in range(20_000)]
    operations.send_signal(jobs.connection, "jobq", other.id, "approval", incompressible, actor="ann")
    [signal] = queries.job_signals(jobs.connection, "jobq", other.id)
    assert signal.payload is None
    assert signal.payload_bytes > 10_000
