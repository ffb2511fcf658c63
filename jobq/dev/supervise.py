"""The supervisor behind ``jobq dev``: keeps child processes and the embedded Postgres running, and
stops them when it ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobq.dev.programs import die_with_parent
from jobq.dev.reload import Watcher
from jobq.errors import EmbeddedPostgresError

if TYPE_CHECKING:
    from jobq.dev.postgres import DevPostgres

# Seconds. A process that lives for _STABLE counts its next death as the first one.
_TICK = 0.2
_LONGEST_PAUSE = 30.0
_STABLE = 20.0
# Ticks between two polls of the files.
_WATCH_EVERY = 3

Say = Callable[[str], None]


def pause_before_restart(deaths: int) -> float:
    """Return the seconds to wait after `deaths` deaths in a row: 0.5, 1, 2, … 30."""
    return min(_LONGEST_PAUSE, 0.5 * 2.0 ** (min(deaths, 10) - 1))


class Program:
    """One child process. No method blocks: call `tick` a few times per second, and it does what is
    due.
    """

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
        """The id of the running process; None if none runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process."""
        # Its own session, so that Ctrl-C in the terminal reaches only this process, which stops the
        # children in order.
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - only calls prctl
        )
        self._started_at = self._clock()
        self._start_at = self._kill_at = None

    def restart(self) -> None:
        """Stop the process and start it again. If it is waiting for a restart, start it at once."""
        self._deaths = 0
        self._start_at = self._clock()
        if self._process is not None:
            self.terminate()

    def terminate(self) -> None:
        """Send SIGTERM; `tick` kills the process if it does not exit in time."""
        if self._process is not None and self._kill_at is None:
            self._process.terminate()
            self._kill_at = self._clock() + self._patience

    def kill(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.kill()

    def stop(self) -> None:
        """Send SIGTERM, and do not restart the process."""
        self.terminate()
        self._start_at = None

    def tick(self) -> bool:
        """Do what is due; return whether the process runs."""
        now = self._clock()
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                if self._kill_at is not None and now >= self._kill_at:
                    self._say(f"the {self.name} did not exit within {self._patience:.0f} s and is killed")
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
        self._deaths = 1 if now - self._started_at >= _STABLE else self._deaths + 1
        pause = pause_before_restart(self._deaths)
        self._start_at = now + pause
        self._say(f"the {self.name} {how_it_ended(code)}; restarting it in {pause:g} s")


class PostgresSupervisor:
    """Restarts the embedded Postgres if it dies."""

    def __init__(self, postgres: DevPostgres, *, say: Say) -> None:
        self._postgres = postgres
        self._say = say
        self._deaths = 0
        self._start_at: float | None = None
        self._started_at = time.monotonic()

    def tick(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if self._postgres.is_running:
            return
        if self._start_at is None:
            self._deaths = 1 if now - self._started_at >= _STABLE else self._deaths + 1
            pause = pause_before_restart(self._deaths)
            self._start_at = now + pause
            self._say(f"Postgres died; restarting it in {pause:g} s")
        elif now >= self._start_at:
            self._start_at = None
            try:
                self._postgres.stop()
                self._postgres.start()
            except EmbeddedPostgresError as error:
                self._say(f"Postgres could not be started: {error}")
            self._started_at = time.monotonic()


class StopEvent(threading.Event):
    """Set by the first signal; `again`: a second one has come."""

    def __init__(self) -> None:
        super().__init__()
        self.again = False

    def on_signal(self, _number: int, _frame: object) -> None:
        """Handle SIGINT or SIGTERM."""
        self.again = self.is_set()
        self.set()


@contextmanager
def stop_signals() -> Iterator[StopEvent]:
    """Yield an event that SIGINT and SIGTERM set; a second signal sets its flag `again`."""
    stop = StopEvent()
    before = {number: signal.signal(number, stop.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(
    programs: Sequence[Program],
    *,
    postgres: DevPostgres | None,
    watcher: Watcher | None,
    stop: threading.Event,
    say: Say,
) -> None:
    """Start `programs` and keep them and `postgres` running until `stop` is set.

    The first program is restarted when `watcher` reports changed files. Call `end` afterwards, in
    any case.
    """
    server = PostgresSupervisor(postgres, say=say) if postgres is not None else None
    for program in programs:
        program.start()
    ticks = 0
    while not stop.wait(_TICK):
        ticks += 1
        if server is not None:
            server.tick()
        for program in programs:
            program.tick()
        if watcher is not None and ticks % _WATCH_EVERY == 0 and (changed := watcher.poll()):
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            say(f"{changed[0]}{more} changed: restarting the worker")
            programs[0].restart()


def end(programs: Sequence[Program], stop: StopEvent) -> None:
    """Stop the programs and wait for them. A second signal kills them."""
    for program in programs:
        program.stop()
    left = list(programs)
    while left := [program for program in left if program.tick()]:
        if stop.again:
            for program in left:
                program.kill()
        time.sleep(_TICK / 4)


def how_it_ended(code: int) -> str:
    """Return ``exited with 78`` or ``was killed by SIGKILL``."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
