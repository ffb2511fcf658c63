"""Child processes that are kept running: `jobq dev` starts them, restarts them when they die, and ends them with itself."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_LONGEST_PAUSE = 30.0
STABLE = 20.0  # seconds after which a death counts as the first again
_PR_SET_PDEATHSIG = 1

Say = Callable[[str], None]


def pause_before_restart(deaths: int) -> float:
    """Return the seconds to wait after the `deaths`-th death in a row: 0.5, 1, 2, … 30."""
    return min(_LONGEST_PAUSE, 0.5 * 2.0 ** (min(deaths, 10) - 1))


class Program:
    """One child process. Nothing here waits: `tick` is to be called a few times a second and does what is due."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        patience: float,
        say: Say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._environment = dict(environment)
        # Seconds between SIGTERM and SIGKILL.
        self._patience = patience
        self._say = say
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._deaths = 0
        self._start_at: float | None = None
        self._kill_at: float | None = None

    @property
    def pid(self) -> int | None:
        """The running process's id."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process."""
        # A session of its own: Ctrl-C in the terminal is for us, and we ask the children to end in order.
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - only calls prctl
        )
        self._started_at = self._clock()
        self._start_at = self._kill_at = None

    def restart(self) -> None:
        """End the process in order and start it again; if it waits for its next try, start it at once."""
        self._deaths = 0
        self._start_at = self._clock()
        if self._process is not None:
            self.terminate()

    def terminate(self) -> None:
        """Ask the process to end; `tick` kills it when it takes longer than its patience."""
        if self._process is not None and self._kill_at is None:
            self._process.terminate()
            self._kill_at = self._clock() + self._patience

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        """Ask the process to end, and do not start it again."""
        self.terminate()
        self._start_at = None

    def tick(self) -> bool:
        """Do what is due; return whether the process runs."""
        now = self._clock()
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                if self._kill_at is not None and now >= self._kill_at:
                    self._say(f"the {self.name} did not end in {self._patience:.0f} s and is killed")
                    self.kill()
                    self._kill_at = now + self._patience
                return True
            self._process = None
            if self._kill_at is None:
                self._died(code, now)
        if self._start_at is not None and now >= self._start_at:
            self.start()
            return True
        return False

    def _died(self, code: int, now: float) -> None:
        self._deaths = 1 if now - self._started_at >= STABLE else self._deaths + 1
        pause = pause_before_restart(self._deaths)
        self._start_at = now + pause
        self._say(f"the {self.name} {how_it_ended(code)}; it is started again in {pause:g} s")


def how_it_ended(code: int) -> str:
    """Return ``exited with 78`` or ``was killed by SIGKILL``."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


_LIBC = _libc()


def _die_with_parent() -> None:
    """In the child: when the parent is killed, get SIGTERM, so that nothing is left behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == 1:  # it died before the call
        os._exit(0)
