"""The units that we ship: as systemd-analyze judges them, and under a real systemd in a container of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from jobq import migrate
from tests.apps import plain as apps
from tests.support.jobs import Jobs
from tests.support.notified import NotifySocket
from tests.support.servers import postgres
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
UNITS = ROOT / "deploy" / "systemd"
WORST_EXPOSURE = 2.0

needs_analyze = pytest.mark.needs("systemd-analyze")


@needs_analyze
@pytest.mark.parametrize("unit", ["jobq-worker@.service", "jobq-web.service"])
def test_systemd_has_nothing_to_say_against_a_unit(unit: str, tmp_path: Path) -> None:
    """verify ends with 0 at unknown keys, so it must also be silent."""
    text = (UNITS / unit).read_text()
    program = str(Path(sys.executable).with_name("jobq"))
    assert "/opt/jobq/bin/jobq" in text
    place = tmp_path / unit.replace("@.", "@mail.")
    place.write_text(text.replace("/opt/jobq/bin/jobq", program))
    verified = subprocess.run(
        ["systemd-analyze", "verify", place], check=False, capture_output=True, text=True, timeout=60
    )
    said = [line for line in (verified.stdout + verified.stderr).splitlines() if str(tmp_path) in line or unit in line]
    assert (said, verified.returncode) == ([], 0), verified.stderr


@needs_analyze
@pytest.mark.parametrize("unit", ["jobq-worker@.service", "jobq-web.service"])
def test_a_unit_is_hardened(unit: str) -> None:
    command = ["systemd-analyze", "security", "--offline=true", str(UNITS / unit)]
    judged = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if "unrecognized option" in judged.stderr:
        pytest.skip("this systemd-analyze cannot judge a file (--offline)")
    found = re.search(r"exposure level for \S+: (\d+\.\d)", judged.stdout)
    assert found is not None, judged.stdout + judged.stderr
    assert float(found[1]) <= WORST_EXPOSURE


def test_the_page_tells_too(database_url: str, tmp_path: Path) -> None:
    manager = NotifySocket(tmp_path / "notify")
    environ = {**os.environ, "JOBQ_DATABASE_URL": database_url, "NOTIFY_SOCKET": manager.address}
    page = subprocess.Popen([sys.executable, "-m", "jobq", "web", "--port", "0"], env=environ, cwd=ROOT)
    try:
        assert "serving http://127.0.0.1:" in manager.wait("STATUS").value
        assert manager.values("READY") == ["1"]
        page.terminate()
        assert page.wait(30) == 0
        manager.wait("STOPPING")
    finally:
        page.kill()
        page.wait()
        manager.close()


# --- under a real systemd --------------------


def reason_to_skip() -> str | None:
    if os.geteuid() != 0:
        return "only root can start a container"
    if not Path("/lib/systemd/systemd").exists():
        return "there is no systemd to start"
    # The root's home is closed to the unit's user, so the interpreter must be the system's.
    version = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys, venv; print(*sys.version_info[:2])"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if version.stdout.split() != [str(part) for part in sys.version_info[:2]]:
        return "/usr/bin/python3 is of another version than the one that runs the tests, or missing"
    return None


def probe() -> str | None:
    """Why a container cannot be started here: systemd-nspawn is asked to run `true` in one; None: it can."""
    tried = subprocess.run(
        ["systemd-nspawn", "-q", "-D", "/", "--volatile=yes", f"--machine=probe{os.getpid()}", "--register=no",
         "--keep-unit", "--private-network", "--console=pipe", "--", "/bin/true"],
        check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    if tried.returncode == 0:
        return None
    return f"no container can be started here: {(tried.stdout + tried.stderr).strip()[-300:]}"


class Container:
    """A systemd on this machine's own /usr, with a root of its own that is gone afterwards."""

    def __init__(self, directory: Path, url: str, sockets: str) -> None:
        directory.chmod(0o755)
        self._log = directory / "console"
        venv = directory / "venv"
        subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", venv], check=True)
        site = next(venv.glob("lib/python3*/site-packages"))
        (site / "tree.pth").write_text("/opt/tree\n/opt/site\n")
        program = venv / "bin" / "jobq"
        program.write_text("#!/opt/jobq/bin/python\nimport sys\nfrom jobq.cli import main\nsys.exit(main())\n")
        program.chmod(0o755)
        settings = directory / "etc"
        settings.mkdir()
        inside = f"JOBQ_DATABASE_URL={url}\nJOBQ_WORKER_PROCESSES=1\nPYTHONDONTWRITEBYTECODE=1\n"
        (settings / "test.env").write_text(
            f"{inside}JOBQ_APP=tests.apps.plain:q\nJOBQ_HEALTH_ADDRESS=unix:/run/jobq/test/health\n"
        )
        (settings / "wrong.env").write_text(f"{inside}JOBQ_APP=tests.apps.plain:nothing\n")
        (directory / "short.conf").write_text("[Service]\nWatchdogSec=4\nTimeoutStopSec=4\n")
        (directory / "jobq-test.target").write_text(
            "[Unit]\nRequires=basic.target dbus.service\nAfter=basic.target dbus.service\nAllowIsolate=yes\n"
        )
        system = "/etc/systemd/system"
        bound = {
            directory / "jobq-test.target": f"{system}/jobq-test.target",
            UNITS / "jobq-worker@.service": f"{system}/jobq-worker@.service",
            directory / "short.conf": f"{system}/jobq-worker@.service.d/short.conf",
            # There is no network to wait for.
            Path("/dev/null"): f"{system}/systemd-networkd-wait-online.service",
            settings: "/etc/jobq",
            venv: "/opt/jobq",
            ROOT: "/opt/tree",
            Path(psycopg.__file__).parents[1]: "/opt/site",
        }
        self.process = subprocess.Popen(
            ["systemd-nspawn", "-q", "-D", "/", "--volatile=yes", f"--machine=jobq{os.getpid()}", "--register=no",
             "--keep-unit", "--private-network", *(f"--bind-ro={here}:{there}" for here, there in bound.items()),
             f"--bind={sockets}:/run/pg", "--boot", "--console=pipe", "--", "--unit=jobq-test.target"],
            stdin=subprocess.DEVNULL, stdout=self._log.open("wb"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self._leader = ""

    def wait_up(self) -> None:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")

        def up() -> bool:
            assert self.process.poll() is None, self.log
            leader = children.read_text().split()
            if not leader:
                return False
            self._leader = leader[0]
            return self.run("systemctl", "is-active", "jobq-test.target").stdout.strip() == "active"

        wait_until(up, timeout=60, what="the container's start")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        inside = ["nsenter", "-t", self._leader, "-m", "-u", "-i", "-n", "-p", "-C", *command]
        return subprocess.run(inside, check=False, capture_output=True, text=True, timeout=110)

    def show(self, unit: str) -> dict[str, str]:
        """What systemd knows of the unit."""
        lines = self.run("systemctl", "show", unit).stdout.splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    @property
    def log(self) -> str:
        # A worker that is aborted prints the stacks of all its threads: more than a hundred lines.
        journal = self.run("journalctl", "--no-pager", "-n", "1000").stdout if self._leader else ""
        return self._log.read_text(errors="replace")[-3000:] + journal

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def own_jobs(container: Container, own_server: postgres.OwnServer) -> Iterator[Jobs]:
    jobs = Jobs(own_server.url)
    apps.create_traces(jobs.connection)
    yield jobs
    jobs.close()


@pytest.fixture
def container(own_server: postgres.OwnServer, tmp_path: Path) -> Iterator[Container]:
    if (why := reason_to_skip() or probe()) is not None:
        pytest.skip(why)
    migrate.upgrade(own_server.url)
    sockets = os.path.join(own_server.server.base_dir, "tmp")
    os.chmod(sockets, 0o755)  # for the unit's user
    port = psycopg.conninfo.conninfo_to_dict(own_server.url)["port"]
    made = Container(tmp_path, f"postgresql://postgres@/test?host=/run/pg&port={port}", sockets)
    try:
        made.wait_up()
        yield made
    finally:
        made.close()


@pytest.mark.slow
@pytest.mark.needs("systemd-nspawn", "nsenter")
def test_a_worker_under_a_real_systemd(container: Container, own_jobs: Jobs) -> None:
    jobs = own_jobs
    unit = "jobq-worker@test"

    begin(container, unit, "active")
    first = jobs.wait(apps.record.enqueue(jobs.connection, "under systemd").id)
    assert first["state"] == "succeeded"
    shown = container.show(unit)
    assert (shown["ActiveState"], shown["NRestarts"], shown["DynamicUser"]) == ("active", "0", "yes")
    wait_until(lambda: "jobs/s" in container.show(unit)["StatusText"], what="the status line")
    ask = "import socket; s = socket.socket(1); s.connect('/run/jobq/test/health'); s.send(b'GET /livez HTTP/1.1\\r\\n\\r\\n')"
    assert "200 OK" in container.run("/usr/bin/python3", "-c", f"{ask}; print(s.recv(999).decode())").stdout
    time_out = time.monotonic() + 9
    # Longer than its watchdog allows: it is fed.
    wait_until(lambda: time.monotonic() > time_out, what="two watchdogs' time")
    assert container.show(unit)["NRestarts"] == "0"

    # It hangs: the watchdog ends it, and another begins.
    main = container.show(unit)["MainPID"]
    container.run("kill", "-STOP", main)
    wait_until(lambda: container.show(unit)["NRestarts"] == "1", timeout=40, what="the watchdog")
    wait_until(lambda: container.show(unit)["ActiveState"] == "active", what="the next worker")
    assert container.show(unit)["MainPID"] != main
    assert "atchdog timeout" in container.log

    # It is told to stop, and its job takes longer than TimeoutStopSec and less than --shutdown-timeout.
    job = apps.stubborn.enqueue(jobs.connection, 9.0).id
    wait_until(lambda: jobs.traces(job), what="the start of the job")
    assert container.run("systemctl", "stop", unit).returncode == 0
    assert jobs.wait(job)["state"] == "succeeded", container.log
    shown = container.show(unit)
    assert (shown["ActiveState"], shown["Result"], shown["ExecMainStatus"]) == ("inactive", "success", "0")

    # What cannot work is not tried again and again.
    begin(container, "jobq-worker@wrong", "failed")
    shown = container.show("jobq-worker@wrong")
    assert (shown["ActiveState"], shown["ExecMainStatus"], shown["NRestarts"]) == ("failed", "78", "0")


def begin(container: Container, unit: str, state: str) -> None:
    """Start the unit; a `start` that waits would wait for as long as systemd goes on trying."""
    container.run("systemctl", "start", "--no-block", unit)
    try:
        wait_until(lambda: container.show(unit)["ActiveState"] == state, timeout=30, what=f"{unit} to be {state}")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{container.log}") from None
