"""Middleware, the application's functions for start and end, and resources, in a real worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobq._worker.inline import drain
from jobq.testing import JobqTester, on, override_resource
from tests.apps import extended
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
APP = "tests.apps.extended:q"
OPENS = ["runner starts", "database opens", "mailer opens"]
CLOSES = ["mailer closes", "database closes", "runner stops"]


class Log:
    """What the application has written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    @property
    def by_process(self) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for line in self.path.read_text().splitlines():
            pid, _, what = line.partition(" ")
            found.setdefault(int(pid), []).append(what)
        return found


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "extended.log")


@pytest.fixture
def start(worker: StartWorker, log: Log) -> StartWorker:
    def start(*args: str, **env: str) -> WorkerProcess:
        return worker(*args, app=APP, env={"EXTENDED_LOG": str(log.path), **env})

    return start


def pid_of(result: str) -> int:
    return int(result.partition(" by ")[2].partition(",")[0])


def test_a_runner_from_its_start_to_its_end(jobs: Jobs, start: StartWorker, log: Log) -> None:
    running = start("--processes", "2")
    one = jobs.wait(extended.send.enqueue(jobs.connection, "ann").id, timeout=60)
    other = jobs.wait(extended.send_async.enqueue(jobs.connection, "bob").id, timeout=60)
    exactly = jobs.wait(extended.send_exactly.enqueue(jobs.connection, "cid").id, timeout=60)
    assert one["result"].startswith("sent to ann by ")
    assert one["result"].endswith(", watched")
    assert other["result"].endswith(", True, watched")
    assert (exactly["result"], exactly["headers"]) == ("sent to cid, watched", {"trace": "t1"})
    # A runner that has not started yet when the worker stops is ended at once.
    wait_until(lambda: sum(OPENS[-1] in life for life in log.by_process.values()) == 2, what="both runners")
    running.terminate()
    assert running.wait() == 0
    lives = sorted(log.by_process.values())
    assert lives == [[*OPENS, *CLOSES], ["worker starts", *OPENS, *CLOSES]]


def test_a_recycled_runner_closes_its_resources(jobs: Jobs, start: StartWorker, log: Log) -> None:
    start("--processes", "1", "--concurrency", "1", "--max-jobs-per-runner", "2")
    refs = extended.q.enqueue_many(jobs.connection, [extended.send.job(str(n)) for n in range(5)])
    pids = {pid_of(jobs.wait(ref.id, timeout=60)["result"]) for ref in refs}
    assert len(pids) >= 3
    ended = wait_until(
        lambda: [life for life in log.by_process.values() if life[-1] == "runner stops"],
        timeout=60,
        what="the end of a runner",
    )
    assert {tuple(life[-6:]) for life in ended} == {(*OPENS, *CLOSES)}
    # Those that replace it do not start the worker.
    assert sum(life[0] == "worker starts" for life in log.by_process.values()) == 1


def test_a_runner_killed_for_a_timeout_has_no_end(jobs: Jobs, start: StartWorker, log: Log) -> None:
    """As the docstring of `on_runner_stop` says."""
    running = start("--processes", "1", "--timeout-grace", "0.2", "--bystander-grace", "0")
    hung = jobs.wait(extended.hang.enqueue(jobs.connection, 600.0).id, timeout=60)
    assert "its runner was killed" in hung["error"]
    after = jobs.wait(extended.send.enqueue(jobs.connection, "ann").id, timeout=60)
    [killed] = [life for pid, life in log.by_process.items() if pid != pid_of(after["result"])]
    assert killed == ["worker starts", *OPENS]
    running.terminate()
    assert running.wait() == 0
    assert log.by_process[pid_of(after["result"])] == [*OPENS, *CLOSES]


def test_a_process_of_its_own_has_its_own(jobs: Jobs, start: StartWorker, log: Log) -> None:
    running = start("--processes", "1")
    beside = pid_of(jobs.wait(extended.send.enqueue(jobs.connection, "ann").id, timeout=60)["result"])
    alone = pid_of(jobs.wait(extended.send_alone.enqueue(jobs.connection, "bob").id, timeout=60)["result"])
    assert alone != beside
    running.terminate()
    assert running.wait() == 0
    assert log.by_process == {beside: ["worker starts", *OPENS, *CLOSES], alone: [*OPENS, *CLOSES]}


def test_an_error_in_middleware_costs_an_attempt(jobs: Jobs, start: StartWorker) -> None:
    running = start("--processes", "1")
    tasks = (extended.send, extended.send_async, extended.send_exactly)
    ids = [task.enqueue(jobs.connection, "broken").id for task in tasks]
    for job in ids:
        ended = jobs.wait(job, timeout=60)
        assert (ended["state"], ended["attempt"], ended["crashes"]) == ("succeeded", 3, 0)
        attempts = jobs.attempts(job)
        assert [(row["error_type"], row["message"]) for row in attempts] == [
            ("LookupError", "the watcher is broken")
        ] * 2
        lines = attempts[0]["traceback"].splitlines()
        # The first frame is the middleware's.
        assert "tests/apps/extended.py" in lines[1]
        assert ", in run" in lines[1]
    assert running.is_running()
    assert "a runner " not in running.log


@pytest.mark.parametrize(
    ("switch", "says", "raised"),
    [
        ("EXTENDED_DOWN", "the mail server is away", "raised while resource mailer was being made"),
        ("EXTENDED_UNREADY", "the licence server is away", "raised by runner_starts"),
    ],
)
def test_a_start_that_fails_shows_its_traceback_and_is_tried_again(
    jobs: Jobs, start: StartWorker, log: Log, tmp_path: Path, switch: str, says: str, raised: str
) -> None:
    down = tmp_path / "down"
    down.touch()
    job = extended.send.enqueue(jobs.connection, "ann").id
    running = start("--processes", "1", **{switch: str(down)})
    wait_until(lambda: "waiting before the next runner is started" in running.log, timeout=60, what="the back-off")
    assert f"a runner of 'tests.apps.extended:q' cannot start: {says}" in running.log
    shown = next(line for line in running.log.splitlines() if "cannot start" in line and '"traceback"' in line)
    trace = json.loads(shown)["traceback"].splitlines()
    # From the application's own frame on.
    assert "tests/apps/extended.py" in trace[1]
    assert trace[-1].startswith(raised)
    assert running.is_running()
    down.unlink()
    done = jobs.wait(job, timeout=60)
    assert (done["state"], done["attempt"]) == ("succeeded", 1)
    first, *_ = log.by_process.values()
    # What had been made was closed.
    expected = {
        "EXTENDED_DOWN": ["worker starts", "runner starts", "database opens", "database closes", "runner stops"],
        "EXTENDED_UNREADY": ["worker starts", "runner stops"],
    }
    assert first == expected[switch]
    # The worker has started once: the runner that replaces the failed one does not start it again.
    assert log.by_process[pid_of(done["result"])][0] == "runner starts"


def test_a_worker_that_drains_does_not_wait_for_better_times(start: StartWorker, tmp_path: Path) -> None:
    (tmp_path / "down").touch()
    running = start("--drain", "--processes", "1", EXTENDED_DOWN=str(tmp_path / "down"))
    assert running.wait() == 78
    assert "cannot start: the mail server is away" in running.log


def test_drain_in_this_process(jobs: Jobs, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTENDED_LOG", str(log.path))
    ids = [
        extended.send.enqueue(jobs.connection, "ann").id,
        extended.send_async.enqueue(jobs.connection, "bob").id,
    ]
    assert drain(extended.q, jobs.connection).succeeded == 2
    assert [jobs.wait(job, timeout=60)["result"].endswith("watched") for job in ids] == [True, True]
    assert list(log.by_process.values()) == [[*OPENS[1:], *CLOSES[:2]]]


def test_the_tester_overrides_resources(jobs: Jobs, database_url: str) -> None:
    class Fake(extended.Mailer):
        def send(self, address: str) -> str:
            return "nothing sent"

    with JobqTester(extended.q, database_url) as tester, override_resource(extended.q, extended.mailer, Fake()):
        ref = extended.send.enqueue(tester.connection, "ann")
        assert tester.run(ref).state == "succeeded"
        assert str(jobs.wait(ref.id or 0)["result"]).startswith("nothing sent")


def test_enqueue_middleware_in_the_callers_transaction(jobs: Jobs, database_url: str) -> None:
    """What it changes is stored; what it refuses is not there; and the transaction is still the caller's."""
    import psycopg

    with psycopg.connect(database_url) as connection:
        extended.send.enqueue(connection, "ann")
        with on(extended.q, connection) as tester:
            [row] = tester.enqueued(extended.send)
        connection.rollback()
    assert jobs.live(row.id) is None
    refs = extended.q.enqueue_many(jobs.connection, [extended.send.job("bob"), extended.hang.job(1.0)])
    assert [(jobs.live(ref.id or 0) or {})["headers"] for ref in refs] == [{"trace": "t1"}, {}]


def test_the_command_line_passes_middleware_by_without_the_application(jobs: Jobs, worker: StartWorker) -> None:
    with_app = worker("--app", APP, "address=ann", app="send", command=("enqueue",))
    without = worker("--force", "address=ann", app="send", command=("enqueue",))
    assert (with_app.wait(), without.wait()) == (0, 0), with_app.log + without.log
    found = jobs.all("SELECT headers FROM jobq.job ORDER BY headers = '{}'")
    assert [row["headers"] for row in found] == [{"trace": "t1"}, {}]
