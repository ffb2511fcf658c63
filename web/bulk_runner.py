"""A thread that runs bulk operations while any are running."""

from __future__ import annotations

import logging
from threading import Event, Lock, Thread
from typing import Any

import psycopg

from jobq import operations
from jobq._postgres import connecting
from jobq.settings import Settings

logger = logging.getLogger("jobq.web")

# Seconds between two attempts while the database is unreachable: at first, and at most.
_AGAIN = (0.5, 30.0)


class BulkRunner:
    """Runs the batches of running operations, from `wake` until none is left, on its own
    connection.

    The thread starts on demand, so that a server may fork before. Several processes may do this at
    once: each batch locks the row of its operation.
    """

    def __init__(self, settings: Settings, *, enabled: bool = True) -> None:
        """`enabled`: False on a read-only page, which runs no operation."""
        self._url = settings.require_database_url()
        self._schema = settings.schema
        self._enabled = enabled
        self._lock = Lock()
        self._stop = Event()
        self._woken = False
        self._thread: Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether the thread is running."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    def wake(self) -> None:
        """Make sure that the running operations are processed."""
        if not self._enabled:
            return
        with self._lock:
            self._woken = True
            # After a fork the thread does not exist in this process.
            if not self.busy:
                self._stop.clear()
                self._thread = Thread(target=self._run, name="jobq operations", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop after the current batch. Another process, or the next `wake`, continues with the
        next batch.
        """
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
                logger.warning("bulk operations are waiting for the database: %s", error)
                self._stop.wait(pause)
                pause = min(pause * 2, _AGAIN[1])
                continue
            except psycopg.Error as error:
                # For example, missing tables. A retry would fail again; the next `wake` tries
                # again.
                logger.warning("bulk operations cannot run: %s", error)
            except Exception:
                # Log a bug instead of letting it end on an unread stream, and keep the next `wake`
                # working.
                logger.exception("bulk operations cannot run")
            with self._lock:
                # A later caller of `wake` finds no thread and starts one.
                if not self._woken:
                    self._thread = None
                    return

    def _connect(self) -> psycopg.Connection[Any]:
        return connecting.connect(
            self._url,
            "operations",
            within=3,
            autocommit=True,
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
                taken = operations.run_batch(connection, self._schema, id)
                if taken.more:
                    waits.append(taken.wait)
            if waits:
                self._stop.wait(min(waits))
