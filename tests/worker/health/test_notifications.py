"""A real worker tells a real notify socket what a service manager needs to know."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobq import migrate
from tests.apps import plain as apps
from tests.apps import trouble
from tests.support.jobs import Jobs
from tests.support.notified import NotifySocket
from tests.support.servers import postgres
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

pytestmark = pytest.mark.process

StartWorker = Callable[..., WorkerProcess]
# A worker whose loops count as stuck sooner, so that a test need not wait for more than a minute; and which come round
# sooner than that when they are idle.
IMPATIENT = (
    "import sys, jobq._worker.claiming.periodic_sync as sync, jobq._worker.health.watchdog as watch\n"
    "sync.QUIET_RECONCILE_INTERVAL, watch.STUCK_AFTER, watch.PROBE_EVERY = 0.5, 2.0, 0.2\n"
    "from jobq.cli import main; sys.exit(main())"
)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[NotifySocket]:
    heard = NotifySocket(tmp_path / "notify")
    yield heard
    heard.close()


def env(manager: NotifySocket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.address, **more}


def test_a_life_in_order(manager: NotifySocket, jobs: Jobs, worker: StartWorker) -> None:
    running = worker(env=env(manager, WATCHDOG_USEC="1000000"))
    ready = manager.wait("READY")
    # Registered and with a runner, that is: at once able to work.
    assert jobs.one("SELECT count(*) FROM jobq.worker WHERE 'stubborn' = ANY (tasks)") == 1
    job = apps.stubborn.enqueue(jobs.connection, 4.0).id
    manager.wait("STATUS", what="1 running in ")
    running.terminate()
    stopping = manager.wait("STOPPING")
    manager.wait("STATUS", what="stopping for [2-9] s: 1 running")
    assert running.wait() == 0
    assert jobs.wait(job)["state"] == "succeeded"

    starting = [heard for heard in manager.heard if heard.at < ready.at]
    assert {heard.name for heard in starting} >= {"EXTEND_TIMEOUT_USEC", "STATUS"}
    assert "importing" in next(heard.value for heard in starting if heard.name == "STATUS")
    during = [heard for heard in manager.heard if ready.at < heard.at < stopping.at]
    assert not [heard for heard in during if heard.name == "EXTEND_TIMEOUT_USEC"]
    draining = [heard for heard in manager.heard if heard.at >= stopping.at and heard.name == "EXTEND_TIMEOUT_USEC"]
    assert len(draining) >= 2
    assert all(0 < int(heard.value) <= 15_000_000 for heard in draining)
    assert manager.values("READY") == manager.values("STOPPING") == ["1"]
    # Half a second is asked for, and on a busy machine the whole one must still be kept.
    beats = [heard.at for heard in manager.heard if heard.name == "WATCHDOG"]
    assert len(beats) >= 6
    assert {heard.pid for heard in manager.heard} == {running.pid}


def test_programs_that_tasks_start_cannot_speak_for_the_worker(
    manager: NotifySocket, jobs: Jobs, worker: StartWorker
) -> None:
    worker(app="tests.apps.trouble:q", env=env(manager, WATCHDOG_USEC="1000000"))
    seen = jobs.wait(trouble.environment.enqueue(jobs.connection).id)["result"]
    assert {name for name in seen if "NOTIFY" in name or "WATCHDOG" in name} == set()
    assert "PATH" in seen


def test_no_watchdog_of_another_process_is_fed(manager: NotifySocket, worker: StartWorker) -> None:
    worker(env=env(manager, WATCHDOG_USEC="200000", WATCHDOG_PID="1"))
    manager.wait("READY")
    manager.wait("STATUS", what="jobs/s")
    assert manager.values("WATCHDOG") == []


def test_a_start_that_takes_long_asks_for_time(manager: NotifySocket, worker: StartWorker) -> None:
    worker(app="tests.apps.trouble:q", env=env(manager, TROUBLE_IMPORT="5"))
    manager.wait("READY")
    asked = [heard.at for heard in manager.heard if heard.name == "EXTEND_TIMEOUT_USEC"]
    assert len(asked) >= 2


def test_a_signal_while_importing(manager: NotifySocket, worker: StartWorker) -> None:
    running = worker(app="tests.apps.trouble:q", env=env(manager, TROUBLE_IMPORT="60"))
    manager.wait("STATUS", what="importing")
    running.terminate()
    assert running.wait() == 0
    assert manager.values("STOPPING") == ["1"]
    assert manager.values("READY") == []


def test_an_outage_is_told_and_is_no_reason_for_a_restart(
    manager: NotifySocket, own_server: postgres.OwnServer, worker: StartWorker
) -> None:
    migrate.upgrade(own_server.url)
    running = worker(database_url=own_server.url, env=env(manager, WATCHDOG_USEC="1000000"))
    manager.wait("READY")
    own_server.kill()
    killed_at = time.monotonic()
    manager.wait("STATUS", what=r"the database does not answer for ([6-9]|1\d) s \(")
    own_server.restart()
    wait_until(lambda: "does not" not in manager.values("STATUS")[-1], timeout=60, what="the recovery")
    fed = [heard.at for heard in manager.heard if heard.name == "WATCHDOG" and heard.at > killed_at]
    assert len(fed) >= 6
    assert running.is_running()


def test_a_server_that_hangs_is_an_outage_too(
    manager: NotifySocket, own_server: postgres.OwnServer, tmp_path: Path
) -> None:
    """It keeps its connections and says nothing: the loops do not come round, and still a restart would change nothing."""
    migrate.upgrade(own_server.url)
    running = impatient(own_server.url, manager, tmp_path)
    try:
        manager.wait("READY")
        with own_server.server.admin() as admin:
            count = (
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'jobq worker%' AND state = 'idle'"
            )
            wait_until(lambda: admin.execute(count).fetchone() == (3,), what="three connections that are made")
        frozen = [own_server.server.child_process.pid, *children(own_server.server.child_process.pid)]
        # One of them may be on its way out.
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            said = manager.wait(
                "STATUS", what=r"(does not answer|has not answered a claim) for (1[7-9]|2\d) s", timeout=60
            )
        finally:
            for pid in frozen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        assert not [h for h in manager.heard if h.name == "STATUS" and "hangs" in h.value]
        assert sum(said.at - 5 < h.at <= said.at for h in manager.heard if h.name == "WATCHDOG") >= 3
        wait_until(lambda: "answer" not in manager.values("STATUS")[-1], timeout=60, what="the recovery")
    finally:
        running.close()


def test_a_loop_that_hangs_beside_a_database_that_answers_is_not_fed(
    manager: NotifySocket, own_server: postgres.OwnServer, tmp_path: Path
) -> None:
    migrate.upgrade(own_server.url)
    running = impatient(own_server.url, manager, tmp_path)
    try:
        manager.wait("READY")
        with own_server.server.admin() as admin:
            # Between two statements of work: one that is stopped while it connects is given up sooner than it is doubted, and
            # one within a statement may hold a lock that every new connection needs.
            query = (
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'jobq worker claims' "
                "AND state = 'idle' AND query LIKE '%.job AS %'"
            )

            def stopped_between_statements() -> int:
                (backend,) = admin.execute(query).fetchone() or (0,)
                if backend:
                    os.kill(backend, signal.SIGSTOP)
                    if admin.execute(query).fetchone() == (backend,):
                        return int(backend)
                    os.kill(backend, signal.SIGCONT)
                return 0

            backend = wait_until(stopped_between_statements, what="the claiming backend")
            try:
                told = manager.wait("STATUS", what="hangs though the database answers: claims", timeout=60)
                later = told.at + 3
                wait_until(lambda: manager.heard[-1].at > later, what="three more seconds of words")
                assert not [h for h in manager.heard if h.name == "WATCHDOG" and told.at + 0.5 < h.at <= later]
            finally:
                os.kill(backend, signal.SIGCONT)
        # And when it comes round after all, it is fed again.
        wait_until(lambda: manager.heard[-1].name and manager.values("STATUS")[-1].count("hangs") == 0, what="the end")
        before = len(manager.values("WATCHDOG"))
        wait_until(lambda: len(manager.values("WATCHDOG")) > before, what="the next feeding")
    finally:
        running.close()


def impatient(url: str, manager: NotifySocket, tmp_path: Path) -> WorkerProcess:
    process = WorkerProcess(
        url,
        tmp_path / "impatient.log",
        "--lease", "8",
        program=(sys.executable, "-c", IMPATIENT),
        env=env(manager, WATCHDOG_USEC="1000000", JOBQ_CONNECT_TIMEOUT="2"),
    )  # fmt: skip
    return process


def children(pid: int) -> list[int]:
    found: list[Any] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]
