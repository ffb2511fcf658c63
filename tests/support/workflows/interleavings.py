"""Every interleaving of a few transactions on a real server.

A session is a connection and the calls that it makes, one after the other. The explorer runs one session until its
call has returned, waits for a lock, or comes to a pause; then it chooses which one goes on. It goes through all
choices, depth first, and begins each time with a new scene. So a session may stop within a function of the database,
after a statement has taken its snapshot.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

Conn = psycopg.Connection[Any]
Call = Callable[[Conn], Any]

# Statement triggers fire when the statement has its snapshot. A session waits at its n-th pause for the lock (its pid, n).
_PAUSE = """
CREATE FUNCTION public.pause() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    n integer := coalesce(nullif(current_setting('test.paused', true), ''), '0')::integer;
BEGIN
    IF TG_ARGV[0] = ANY (string_to_array(current_setting('test.pauses', true), ' ')) THEN
        PERFORM set_config('test.paused', (n + 1)::text, false);
        PERFORM pg_advisory_lock(pg_backend_pid(), n);
        PERFORM pg_advisory_unlock(pg_backend_pid(), n);
    END IF;
    -- Of a row: go on with it. Of a statement: NULL.
    RETURN NEW;
END
$body$
"""
MOST_PAUSES = 12


@dataclass(frozen=True, slots=True)
class Session:
    """What one session does. `pauses`: the names of the pauses at which it stops."""

    name: str
    calls: Sequence[Call]
    pauses: str = ""


@dataclass(slots=True, eq=False)
class _Runner:
    """A connection with a thread, which makes one call at a time."""

    connection: Conn
    calls: queue.SimpleQueue[Call | None] = field(default_factory=queue.SimpleQueue)
    idle: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    left: list[Call] = field(default_factory=list)
    paused: int = 0
    """Number of pauses that it was let go from."""

    def run(self) -> None:
        while (call := self.calls.get()) is not None:
            try:
                call(self.connection)
            except BaseException as error:
                self.error = error
            self.idle.set()


class Explorer:
    """Goes through the interleavings of at most `sessions` sessions."""

    def __init__(self, url: str, sessions: int, pauses: dict[str, str]) -> None:
        """`pauses`: by name, the statement at which a session stops: "DELETE ON jobq.workflow_arrival".

        With "FOR EACH ROW" behind it: the row, when the statement has read it and not changed it.
        """
        self.watching = psycopg.connect(url, autocommit=True)
        self.watching.execute(_PAUSE.encode())
        for name, what in pauses.items():
            level = "" if "FOR EACH" in what else "FOR EACH STATEMENT"
            self.watching.execute(
                f"CREATE TRIGGER pause_{name} BEFORE {what} {level} EXECUTE FUNCTION public.pause('{name}')".encode()
            )
        self._runners = [_Runner(psycopg.connect(url, autocommit=True)) for _ in range(sessions)]
        for runner in self._runners:
            runner.idle.set()
            threading.Thread(target=runner.run, daemon=True).start()
        self.replays = 0

    def close(self) -> None:
        self.watching.close()
        for runner in self._runners:
            runner.calls.put(None)
            runner.connection.cancel()
            if runner.idle.wait(10):
                runner.connection.close()

    def explore(self, scene: Callable[[], Sequence[Session]], check: Callable[[list[str]], None]) -> int:
        """Go through all interleavings, each in a new scene, and check each. Return their number."""
        choices: list[int] = []
        count = 0
        while True:
            count += 1
            widths, story = self._replay(scene(), choices)
            check(story)
            choices += [0] * (len(widths) - len(choices))
            while choices and choices[-1] + 1 >= widths[len(choices) - 1]:
                choices.pop()
            if not choices:
                return count
            choices[-1] += 1

    def _replay(self, sessions: Sequence[Session], choices: Sequence[int]) -> tuple[list[int], list[str]]:
        """Make the given choices, then always the first; return how many there were each time, and what was done."""
        self.replays += 1
        active = list(zip(sessions, self._runners, strict=False))
        for session, runner in active:
            runner.left, runner.paused = list(session.calls), 0
            runner.connection.execute(
                "SELECT set_config('test.pauses', %s, false), set_config('test.paused', '', false)", (session.pauses,)
            )
            if session.pauses:
                self._hold(runner)
        widths: list[int] = []
        story: list[str] = []
        try:
            while True:
                able = [pair for pair in active if self._able(pair[1])]
                if not able:
                    if all(not runner.left and runner.idle.is_set() for _, runner in active):
                        return widths, story
                    # All wait for each other, which the server ends.
                    self._settle(active, deadlock=True, story=story)
                    continue
                chosen = choices[len(widths)] if len(widths) < len(choices) else 0
                widths.append(len(able))
                session, runner = able[chosen]
                story.append(session.name)
                self._go(runner)
                # First the one that was let go: its commit may let others go on.
                first = [able[chosen]]
                self._settle(first + [pair for pair in active if pair not in first], deadlock=False, story=story)
        finally:
            for session, runner in active:
                if session.pauses:
                    pid = runner.connection.info.backend_pid
                    for n in range(runner.paused, MOST_PAUSES):
                        self.watching.execute("SELECT pg_advisory_unlock(%s, %s)", (pid, n))

    def _hold(self, runner: _Runner) -> None:
        pid = runner.connection.info.backend_pid
        self.watching.execute("SELECT pg_advisory_lock(%s, n) FROM generate_series(0, %s) AS n", (pid, MOST_PAUSES - 1))

    def _able(self, runner: _Runner) -> bool:
        """Whether it can be told to go on: it makes no call and has one left, or it has come to a pause."""
        return bool(runner.left) if runner.idle.is_set() else self._waits_for(runner) == "pause"

    def _go(self, runner: _Runner) -> None:
        if runner.idle.is_set():
            runner.idle.clear()
            runner.calls.put(runner.left.pop(0))
        else:
            pid, n = runner.connection.info.backend_pid, runner.paused
            runner.paused += 1
            assert runner.paused < MOST_PAUSES
            self.watching.execute("SELECT pg_advisory_unlock(%s, %s)", (pid, n))

    def _settle(self, active: Sequence[tuple[Session, _Runner]], *, deadlock: bool, story: Sequence[str]) -> None:
        """Wait until each session has returned, is at a pause, or waits for a lock."""
        deadline = time.monotonic() + 30
        for session, runner in active:
            while not runner.idle.wait(0.002):
                waits_for = self._waits_for(runner)
                if waits_for == "pause" or (waits_for == "lock" and not deadlock):
                    break
                assert time.monotonic() < deadline, f"{session.name} does not go on: {' → '.join(story)}"
            if runner.error is not None:
                error, runner.error = runner.error, None
                raise AssertionError(
                    f"{session.name} fails: {type(error).__name__}: {error}: {' → '.join(story)}"
                ) from error

    def _waits_for(self, runner: _Runner) -> str | None:
        """What it waits for: a `pause`, a `lock`, or nothing."""
        pid = runner.connection.info.backend_pid
        rows = self.watching.execute(
            "SELECT locktype = 'advisory' AND classid = pid AND objsubid = 2 FROM pg_locks WHERE pid = %s AND NOT granted",
            (pid,),
        ).fetchall()
        if not rows:
            return None
        return "pause" if rows[0][0] else "lock"


def transaction(*calls: Call, isolation: str = "READ COMMITTED") -> Iterator[Call]:
    """The calls of one transaction, the first with its begin."""

    def first(connection: Conn) -> Any:
        connection.execute(f"BEGIN ISOLATION LEVEL {isolation}".encode())
        return calls[0](connection)

    yield first
    yield from calls[1:]
    yield lambda connection: connection.execute("COMMIT")
