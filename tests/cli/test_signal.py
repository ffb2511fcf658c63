"""`jobq signal`, `jobq workflows signal`, and the steps of a job by `jobq jobs show --steps`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobq.cli import main
from jobq.testing import JobqTester
from tests.apps import approvals as apps
from tests.support.jobs import Jobs

q = apps.q
Run = Callable[..., Result]


@pytest.fixture
def tester(jobs: Jobs, database_url: str) -> Iterator[JobqTester]:
    q.configure(database_url=database_url)
    with JobqTester(q, database_url) as made:
        yield made
    q.close()


@pytest.fixture
def run(database_url: str) -> Run:
    def call(*arguments: object, answer: str | None = None, code: int = 0) -> Result:
        environment = {"JOBQ_DATABASE_URL": database_url, "JOBQ_ACTOR": "ann"}
        result = CliRunner().invoke(main, list(map(str, arguments)), input=answer, env=environment)
        assert result.exit_code == code, result.output
        return result

    return call


def read(result: Result) -> Any:
    return json.loads(result.stdout)


def test_a_signal_to_a_job(run: Run, jobs: Jobs, tester: JobqTester) -> None:
    job = apps.order.enqueue(jobs.connection, 7)
    tester.drain()
    said = run("signal", job.id, "approval", '{"by": "ada"}', "--reason", "agreed").stdout
    [signal] = jobs.all("SELECT id, name, payload, sent_by FROM jobq.job_signal")
    assert said == f"signal {signal['id']}, 'approval', is sent to job {job.id}\n"
    assert (signal["name"], signal["payload"], signal["sent_by"]) == ("approval", {"by": "ada"}, "ann")
    [audit] = jobs.all("SELECT actor, action, reason, target, after FROM jobq.audit")
    assert audit == {
        "actor": "ann", "action": "send_signal", "reason": "agreed", "target": {"ids": [job.id]},
        "after": {"signal": signal["id"], "name": "approval"},
    }  # fmt: skip
    tester.drain()
    assert job.result(timeout=5) == "ada"
    # Finished: not done, and in words.
    refused = run("signal", job.id, "approval", code=1)
    assert refused.stderr == f"signal 'approval': job {job.id} has finished: no signal was sent\n"
    assert read(run("signal", job.id, "approval", "--json", code=1)) == {"job": job.id, "signal": None, "done": False}
    assert len(jobs.all("SELECT FROM jobq.audit")) == 1


def test_payloads(run: Run, jobs: Jobs, tester: JobqTester) -> None:
    job = apps.order.enqueue(jobs.connection, 7).id
    assert read(run("signal", job, "a", "--json"))["done"] is True
    run("signal", job, "b", "-", answer='["from", "stdin"]')
    run("signal", job, "c", "3")
    found = jobs.all("SELECT name, payload FROM jobq.job_signal ORDER BY id")
    assert [(row["name"], row["payload"]) for row in found] == [("a", None), ("b", ["from", "stdin"]), ("c", 3)]
    wrong = run("signal", job, "d", "yes", code=64).stderr
    assert "not valid JSON" in wrong
    assert "quotation marks" in wrong
    assert "cannot be stored" in run("signal", job, "d", "NaN", code=64).stderr
    assert "there is no job 4711" in run("signal", 4711, "d", code=64).stderr
    assert "name" in run("signal", job, "x" * 201, code=64).stderr
    assert len(jobs.all("SELECT FROM jobq.job_signal")) == 3


def test_a_signal_to_a_run(run: Run, jobs: Jobs, tester: JobqTester) -> None:
    with q.workflow("orders") as wf:
        end = apps.order.node(1).named("one")
    id = wf.enqueue(jobs.connection, end).id
    tester.drain()
    assert "one: It waits for the signal 'approval', without a time limit." in run("workflows", "why", id).stdout
    assert read(run("workflows", "signal", id, "approval", '{"by": "ada"}', "--json"))["workflow"] == id
    tester.drain()
    refused = run("workflows", "signal", id, "approval", code=1).stderr
    assert refused == f"signal 'approval': workflow run {id} has finished: no signal was sent\n"
    assert "there is no workflow run 4711" in run("workflows", "signal", 4711, "approval", code=64).stderr
    assert jobs.one("SELECT target FROM jobq.audit") == {"workflow": id}


def test_the_steps_of_a_job(run: Run, jobs: Jobs, tester: JobqTester) -> None:
    job = apps.order.enqueue(jobs.connection, 7, 3600.0).id
    tester.drain()
    run("signal", job, "remark", '{"text": "urgent"}')
    plain = run("jobs", "show", job).stdout
    assert "It waits for the signal 'approval', for at most" in plain
    assert "reserve" not in plain
    assert "steps" not in read(run("jobs", "show", job, "--json"))
    shown = run("jobs", "show", job, "--steps").stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["1", "reserve", "run", "done", "1"] in [line[:5] for line in lines]
    assert ["3", "approval", "signal", "waiting", "1", "until"] in [line[:6] for line in lines]
    assert '{"items": 3, "order": 7}' in shown
    assert '{"text": "urgent"}' in shown
    assert "unread" in shown
    found = read(run("jobs", "show", job, "--steps", "--json"))
    assert found["id"] == job
    assert [(step["name"], step["state"]) for step in found["steps"]] == [
        ("reserve", "done"), ("pay", "done"), ("approval", "waiting")
    ]  # fmt: skip
    assert [wait["name"] for wait in found["waits"]] == ["approval"]
    assert found["signals"][0]["payload"] == {"text": "urgent"}
    cut = run("jobs", "show", job, "--steps", "--limit", 1)
    assert "2 earlier steps: --limit 3" in cut.stderr
    none = run("jobs", "show", apps.double.enqueue(jobs.connection, 1).id, "--steps")
    assert "no steps" in none.stderr
    assert "no signals" in none.stderr


def test_a_child_names_its_parent(run: Run, jobs: Jobs, tester: JobqTester) -> None:
    job = apps.parent.enqueue(jobs.connection, 4)
    tester.run(job)
    [step] = read(run("jobs", "show", job.id, "--steps", "--json"))["steps"]
    assert f"job {step['child_job']} is " in run("jobs", "show", job.id, "--steps").stdout
    assert f"parent     job {job.id}\n" in run("jobs", "show", step["child_job"]).stdout
    assert f"job {job.id}\n" in run("workflows", "show", step["child_run"]).stdout
