"""A thread that carries out bulk operations, for as long as there are any."""

from __future__ import annotations

import logging
from threading import Event, Lock, Thread
from typing import Any

import psycopg

from jobq import operations, sessions
from jobq.config import Settings

logger = logging.getLogger("jobq.web")

# Seconds between two attempts while the database is away, at first and at most.
_AGAIN = (0.5, 30.0)


class Executor:
    """Steps what runs, from `wake` until nothing is left, on a connection of its own.

    Begun only when it is needed, so that a server may fork before it. Several processes may do so at once: each batch locks
    its operation's row.
    """

    def __init__(self, settings: Settings, *, enabled: bool = True) -> None:
        """`enabled`: False on a read-only page, which steps nothing."""
        self._url = settings.require_database_url()
        self._schema = settings.schema
        self._enabled = enabled
        self._lock = Lock()
        self._stop = Event()
        self._woken = False
        self._thread: Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether the thread is at work."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def wake(self) -> None:
        """See to it that what runs now is stepped."""
        if not self._enabled:
            return
        with self._lock:
            self._woken = True
            # After a fork the thread is the parent's.
            if not self.busy:
                self._stop.clear()
                self._thread = Thread(target=self._run, name="jobq operations", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End after the batch under way; another page, or the next `wake`, goes on with the next one."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(10.0)

    def _run(self) -> None:
        pause = _AGAIN[0]
        while not self._stop.is_set():
            self._woken = False
            try:
                with self._connect() as connection:
                    self._work(connection)
                pause = _AGAIN[0]
            except psycopg.OperationalError as error:
                logger.warning("bulk operations wait for the database: %s", error)
                self._stop.wait(pause)
                pause = min(pause * 2, _AGAIN[1])
                continue
            except psycopg.Error as error:
                # Such as tables that are not there: trying again changes nothing, and the next `wake` will.
                logger.warning("bulk operations cannot be carried out: %s", error)
            except Exception:
                # A fault of ours must be in the log, not on a stream that no one reads, and must not end the next `wake` too.
                logger.exception("bulk operations cannot be carried out")
            with self._lock:
                # A caller of `wake` after this finds no thread and begins another.
                if not self._woken:
                    self._thread = None
                    return

    def _connect(self) -> psycopg.Connection[Any]:
        return sessions.connect(
            self._url,
            autocommit=True,
            connect_timeout=3,
            application_name="jobq operations",
            prepare_threshold=None,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )

    def _work(self, connection: psycopg.Connection[Any]) -> None:
        while not self._stop.is_set():
            ids = operations.running_operations(connection, self._schema)
            if not ids:
                return
            waits = []
            for id in ids:
                if self._stop.is_set():
                    return
                taken = operations.take_step(connection, self._schema, id)
                if taken.more:
                    waits.append(taken.wait)
            if waits:
                self._stop.wait(min(waits))
