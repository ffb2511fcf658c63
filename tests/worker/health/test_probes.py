"""The health address of a real worker, with faults made on purpose."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobq import migrate
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.servers import postgres
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

StartWorker = Callable[..., WorkerProcess]


class Probe:
    """Asks the Unix socket of a worker started with ``--health-address unix:…``."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "health")
        self.option = ("--health-address", f"unix:{self.path}")

    def get(self, target: str, method: str = "GET") -> tuple[int, str]:
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        connection.sock.connect(self.path)
        try:
            connection.request(method, target)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def status(self, target: str) -> int | None:
        try:
            return self.get(target)[0]
        except OSError:
            return None

    def failing(self) -> set[str]:
        """The names of the checks that are not good."""
        status, body = self.get("/readyz")
        checks = json.loads(body)["checks"]
        failing = {name for name, check in checks.items() if not check["ok"]}
        assert (status == 200) is not bool(failing)
        return failing

    def wait_ready(self, timeout: float = 30) -> None:
        wait_until(lambda: self.status("/readyz") == 200, timeout=timeout, what="readiness")

    def metrics(self) -> dict[tuple[str, ...], float]:
        _, text = self.get("/metrics")
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    return Probe(tmp_path)


def test_alive_before_it_is_ready(probe: Probe, worker: StartWorker) -> None:
    worker(*probe.option, app="tests.apps.trouble:q", env={"TROUBLE_IMPORT": "3"})
    wait_until(lambda: probe.status("/livez") == 200, what="life")
    assert probe.failing() >= {"runners", "phase", "claims"}
    probe.wait_ready()
    assert probe.failing() == set()


def test_draining_is_not_ready_and_alive(probe: Probe, jobs: Jobs, worker: StartWorker) -> None:
    job = apps.wait.enqueue(jobs.connection, 60.0).id
    running = worker(*probe.option)
    wait_until(lambda: jobs.traces(job), what="the start of the job")
    running.terminate()
    wait_until(lambda: "phase" in probe.failing(), what="the drain")
    assert json.loads(probe.get("/readyz")[1])["checks"]["phase"]["detail"] == "stopping"
    assert probe.get("/livez") == (200, "ok\n")
    running.terminate()
    assert running.wait() == 0
    assert not Path(probe.path).exists()


@pytest.mark.parametrize("options", [(), ("--poll-interval", "600")])
def test_an_idle_worker_stays_ready(
    probe: Probe, database_url: str, worker: StartWorker, options: tuple[str, ...]
) -> None:
    """However seldom it polls, the proof that claims would work is renewed."""
    worker(*probe.option, *options)
    probe.wait_ready()
    ages = set()
    until = time.monotonic() + 13

    def idle_for_long() -> bool:
        checks = json.loads(probe.get("/readyz")[1])["checks"]
        assert checks["claims"]["ok"], checks
        ages.add(checks["claims"]["age"])
        return time.monotonic() > until

    wait_until(idle_for_long, what="13 s of idleness")
    assert max(ages) < 10


def test_the_database_goes_and_comes_back(probe: Probe, own_server: postgres.OwnServer, worker: StartWorker) -> None:
    migrate.upgrade(own_server.url)
    running = worker(*probe.option, database_url=own_server.url)
    probe.wait_ready()
    own_server.kill()
    wait_until(lambda: probe.failing() >= {"claims", "listener"}, timeout=15, what="unreadiness")

    # It says what is wrong, and that is no reason to restart it.
    def summary() -> str:
        body = json.loads(probe.get("/readyz")[1])
        assert body["status"] == "not ready"
        return str(body["summary"])

    # One connection notices before the other.
    wait_until(lambda: "the database does not answer" in summary(), what="both to have failed")
    assert probe.status("/livez") == 200
    own_server.restart()
    probe.wait_ready(60)
    assert running.is_running()
    assert probe.metrics()["jobq_database_errors_total", "claims"] >= 1


def test_a_server_that_hangs_makes_unready(probe: Probe, own_server: postgres.OwnServer, worker: StartWorker) -> None:
    """No error comes, only silence: the age of the last answer tells."""
    migrate.upgrade(own_server.url)
    worker(*probe.option, database_url=own_server.url)
    probe.wait_ready()
    with own_server.server.admin() as admin:
        backends = [
            pid
            for (pid,) in admin.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'jobq worker claims'"
            )
        ]
    assert len(backends) == 1
    os.kill(backends[0], signal.SIGSTOP)
    try:
        wait_until(lambda: probe.failing() == {"claims"}, timeout=30, what="unreadiness")
        assert json.loads(probe.get("/readyz")[1])["checks"]["claims"]["age"] >= 10
    finally:
        os.kill(backends[0], signal.SIGCONT)
    probe.wait_ready()


def test_a_read_only_server_is_not_ready(probe: Probe, jobs: Jobs, database_url: str, worker: StartWorker) -> None:
    """It answers every question and takes no claim. While there is no job there is none to take: the heartbeat tells."""
    worker(*probe.option)
    probe.wait_ready()
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    jobs.connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'.encode())
    cut(jobs)
    wait_until(lambda: "heartbeats" in probe.failing(), timeout=15, what="unreadiness")
    red_until = time.monotonic() + 3

    def still_red() -> bool:
        assert "heartbeats" in probe.failing()
        return time.monotonic() > red_until

    wait_until(still_red, what="three seconds of steady unreadiness")
    jobs.connection.execute("SET default_transaction_read_only = off")
    jobs.connection.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only'.encode())
    cut(jobs)
    probe.wait_ready()


def test_the_listener_alone(probe: Probe, server: postgres.Server, jobs: Jobs, worker: StartWorker) -> None:
    running = worker(*probe.option)
    probe.wait_ready()
    name = psycopg.conninfo.conninfo_to_dict(jobs.connection.info.dsn)["dbname"]
    with server.admin() as admin:
        # No new connection gets in, and the connections that there are stay.
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        cut(jobs, "notifications")
        wait_until(lambda: probe.failing() == {"listener"}, what="a deaf worker")
        job = apps.record.enqueue(jobs.connection, "found by polling").id
        wait_until(lambda: jobs.live(job) is None or jobs.live(job)["state"] == "running", what="the poll")  # type: ignore[index]
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
    probe.wait_ready()
    assert probe.metrics()["jobq_database_errors_total", "notifications"] >= 1
    assert running.is_running()


def test_no_runner_no_readiness(probe: Probe, tmp_path: Path, worker: StartWorker) -> None:
    """The application has become impossible to import: the runner that dies is not replaced by one that works."""
    (tmp_path / "frail.py").write_text("from tests.apps.plain import q\n")
    running = worker(*probe.option, "--processes", "1", app="frail:q", env={"PYTHONPATH": f"{tmp_path}:{os.getcwd()}"})
    probe.wait_ready()
    (tmp_path / "frail.py").write_text("raise RuntimeError('broken')\n")
    (runner,) = children(running.pid)
    os.kill(runner, signal.SIGKILL)
    wait_until(lambda: probe.failing() == {"runners"}, what="unreadiness")
    assert probe.metrics()["jobq_runner_deaths_total", "crashed"] >= 1
    (tmp_path / "frail.py").write_text("from tests.apps.plain import q\n")
    probe.wait_ready()


def test_metrics_count_what_happened(probe: Probe, jobs: Jobs, worker: StartWorker) -> None:
    for n in range(5):
        apps.record.options(queue="mail").enqueue(jobs.connection, str(n))
    apps.always_fail.enqueue(jobs.connection)
    jobs.one("INSERT INTO jobq.job (task) VALUES ('no \"such\" task') RETURNING id")
    worker(*probe.option, "--processes", "1", "--concurrency", "3")
    wait_until(lambda: jobs.one("SELECT count(*) FROM jobq.job_history") == 6, what="every end")

    def counted() -> dict[tuple[str, ...], float] | None:
        found = probe.metrics()
        return found if found.get(("jobq_outcomes_recorded_total",), 0) >= 9 else None

    found = wait_until(counted, what="the count") or {}
    # Labels in the order of their names: outcome, queue, task.
    assert found["jobq_executions_total", "succeeded", "mail", "record"] == 5
    assert found["jobq_executions_total", "retried", "default", "always_fail"] == 2
    assert found["jobq_executions_total", "failed", "default", "always_fail"] == 1
    assert found["jobq_executions_total", "parked", "default", "(unknown)"] == 1
    assert found["jobq_execution_seconds_count", "record"] == 5
    assert found["jobq_claim_round_trip_seconds_count",] >= 1
    assert found["jobq_slots",] == 3
    assert (found["jobq_running",], found["jobq_outcomes_unrecorded",]) == (0, 0)
    assert (found["jobq_runners_ready",], found["jobq_listener_connected",], found["jobq_claiming",]) == (1, 1, 1)
    assert found["jobq_heartbeat_age_seconds",] < 30
    assert found["process_resident_memory_bytes",] > 1e6


@pytest.mark.parametrize("target", ["/", "/readyz/", "/../livez", "/livez%00", "//livez"])
def test_nothing_else_is_served(probe: Probe, worker: StartWorker, target: str) -> None:
    worker(*probe.option)
    wait_until(lambda: probe.status("/livez") == 200, what="life")
    assert probe.get(target)[0] == 404


@pytest.mark.parametrize(
    "address",
    ["9642", "localhost", ":9642", "localhost:", "localhost:99999", "::1:9642", "[::1]", "host:-1", "unix:", "unix:a/b",
     "unix:/" + "x" * 200, "a b:1", "127.0.0.1:٣"],
)  # fmt: skip
def test_a_malformed_address(worker: StartWorker, address: str) -> None:
    running = worker("--health-address", address)
    assert running.wait() == 78
    assert f"health_address={address!r}: expected" in running.log


def test_an_address_that_is_taken(tmp_path: Path, worker: StartWorker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        running = worker(env={"JOBQ_HEALTH_ADDRESS": f"127.0.0.1:{port}"})
        assert running.wait() == 78
    assert f"health_address='127.0.0.1:{port}': cannot listen: another process listens there" in running.log
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(tmp_path / "s"))
        living.listen()
        assert worker("--health-address", f"unix:{tmp_path}/s").wait() == 78
    (tmp_path / "file").write_text("precious")
    assert worker("--health-address", f"unix:{tmp_path}/file").wait() == 78
    assert (tmp_path / "file").read_text() == "precious"


def test_the_socket_of_a_killed_worker_is_no_obstacle(probe: Probe, worker: StartWorker) -> None:
    first = worker(*probe.option)
    wait_until(lambda: probe.status("/livez") == 200, what="life")
    first.kill()
    worker(*probe.option)
    wait_until(lambda: probe.status("/livez") == 200, what="life again")


def test_tcp(worker: StartWorker) -> None:
    running = worker("--health-address", "127.0.0.1:0")
    line = wait_until(
        lambda: next((line for line in running.log.splitlines() if "health is served" in line), None), what="the port"
    )
    port = int(json.loads(line or "{}")["address"].rsplit(":", 1)[1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("HEAD", "/livez")
    response = connection.getresponse()
    assert (response.status, response.headers["Content-Length"], response.read()) == (200, "3", b"")
    connection.close()


def cut(jobs: Jobs, purpose: str = "%") -> None:
    jobs.all(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name LIKE %s AND datname = current_database()",
        f"jobq worker {purpose}",
    )


def children(pid: int) -> list[int]:
    found: list[Any] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]
