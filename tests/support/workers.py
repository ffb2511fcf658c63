"""A real `python -m jobq worker` for tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import suites

ROOT = Path(__file__).resolve().parents[2]


class WorkerProcess:
    """A worker subprocess; its output goes to a file that `log` reads."""

    def __init__(
        self,
        database_url: str,
        log_path: Path,
        *args: str,
        app: str = "tests.apps.plain:q",
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = ("worker",),
        program: Sequence[str] = (sys.executable, "-m", "jobq"),
    ) -> None:
        suites.expect("process")
        self._log_path = log_path
        environ = {**os.environ, "JOBQ_DATABASE_URL": database_url, "PYTHONUNBUFFERED": "1", **(env or {})}
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*program, *command, app, *args],
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """Everything it has printed so far."""
        return self._log_path.read_text(errors="replace")

    def is_running(self) -> bool:
        return self.process.poll() is None

    def terminate(self) -> None:
        """SIGTERM: drain and leave."""
        self.process.terminate()

    def kill(self) -> None:
        """kill -9, and wait for the process to be gone."""
        self.process.kill()
        self.process.wait()

    def wait(self, timeout: float = 60) -> int:
        """Wait for its end and return its exit code; fail with its log when it goes on."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker still runs after {timeout} s; its log:\n{self.log}") from None

    def close(self) -> None:
        """End it and whatever it started: at once as its user would, with two signals; if that fails, without mercy."""
        with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
            for number in (signal.SIGCONT, signal.SIGTERM):
                self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.3)
            self.process.terminate()
            self.process.wait(3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
