"""Logging that never waits for an application's handler: a thread handles records.

If too many records wait, new ones are dropped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from queue import SimpleQueue

from jobq._core.output_stream import Output

MAX_RECORDS = 1_000  # log records that may wait for handlers that are not ours


class DeferredRecords:
    """Passes log records in a thread to handlers that may wait."""

    def __init__(self) -> None:
        self._records: SimpleQueue[tuple[logging.Logger, logging.LogRecord]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._untold = 0
        self._pid = os.getpid()
        self.dropped = 0

    def handle(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        """Call the handlers for `record`: at once if all of them are ours, else in the thread."""
        if _never_waits(logger) or os.getpid() != self._pid:
            type(logger).callHandlers(logger, record)
            return
        if self._records.qsize() >= MAX_RECORDS:
            self.dropped += 1
            self._untold += 1
            return
        self._records.put((logger, record))
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="jobq-log", daemon=True)
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def _serve(self) -> None:
        while True:
            logger, record = self._records.get()
            self._busy = True
            # If a handler raises, this costs one record and is left to the application.
            with contextlib.suppress(BaseException):
                type(logger).callHandlers(logger, record)
                if self._untold and self._records.empty():
                    number, self._untold = self._untold, 0
                    type(logger).callHandlers(logger, dropped_record(number))
            self._busy = False

    def finish(self, seconds: float) -> None:
        """Wait up to `seconds` until no record is waiting."""
        deadline = time.monotonic() + seconds
        while (not self._records.empty() or self._busy) and time.monotonic() < deadline and self._pid == os.getpid():
            time.sleep(0.005)


deferred = DeferredRecords()
"""The instance of this process."""


def defer_logging(*names: str) -> None:
    """Make the loggers with these names never wait for a handler of the application.

    This changes the loggers and adds no handler: an application that configures logging replaces
    handlers.
    """
    for name in names:
        logger = logging.getLogger(name)

        def call_handlers(record: logging.LogRecord, logger: logging.Logger = logger) -> None:
            deferred.handle(logger, record)

        logger.callHandlers = call_handlers  # type: ignore[method-assign]  # that is the point


def _never_waits(logger: logging.Logger) -> bool:
    current: logging.Logger | None = logger
    while current is not None:
        for handler in current.handlers:
            if not (isinstance(getattr(handler, "stream", None), Output) or getattr(handler, "never_waits", False)):
                return False
        current = current.parent if current.propagate else None
    return True


def dropped_record(number: int) -> logging.LogRecord:
    """Return the log record that reports how many records were dropped."""
    record = logging.LogRecord(
        "jobq.logs",
        logging.WARNING,
        __file__,
        0,
        "log records were dropped: their reader did not read them",
        None,
        None,
    )
    record.dropped = number
    return record
