"""Keeping what a job logs, for the record of an attempt that does not succeed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from jobq._core.logs.attempt import AttemptLog
from jobq._core.logs.context import current_execution, fields_of
from jobq._core.logs.formats import TextFormatter
from jobq.errors import TimedOut


def keep(limit: int) -> None:
    """From here on keep, for each execution, the last `limit` bytes of what reaches the root logger; 0: keep nothing.

    Call it after the application's own code for the start: to configure logging replaces the root logger's handlers.
    """
    if limit:
        logging.getLogger().addHandler(KeepingHandler(limit))


class KeepingHandler(logging.Handler):
    """Adds each record to the log of the execution that makes it. It has no lock: slots would wait for one another."""

    never_waits = True

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self.setFormatter(_Formatter())

    def createLock(self) -> None:
        """Make none."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Keep `record` if it is made inside a task and no filter of this handler objects."""
        if (execution := current_execution()) is None or not self.filter(record):
            return False
        try:
            log = execution.log
            if log is None:
                log = execution.log = AttemptLog(self._limit)
            log.add(self.format(record))
        except TimedOut:
            # The task's.
            raise
        except Exception:
            # What cannot be shown is not worth a job.
            return False
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Keep `record`."""
        self.handle(record)


class _Formatter(TextFormatter):
    """In UTC, since workers of several time zones write for one page; without the job, on whose page it stands."""

    def moment(self, record: logging.LogRecord) -> datetime:
        return datetime.fromtimestamp(record.created, UTC)

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        if (execution := current_execution()) is not None:
            record = _without(record, fields_of(execution.job))
        return super().fields(record)


def _without(record: logging.LogRecord, known: Mapping[str, Any]) -> logging.LogRecord:
    """Return a copy of `record` without the attributes in `known`, before they are made fit to show, which costs more.

    An `extra` of the same name may have another value, and stays.
    """
    copied = logging.LogRecord.__new__(logging.LogRecord)
    attributes = vars(copied)
    attributes.update(vars(record))
    for name, value in known.items():
        # A value of the application's own type may compare as it likes, or raise.
        if type(found := attributes.get(name)) is type(value) and found == value:
            del attributes[name]
    return copied
