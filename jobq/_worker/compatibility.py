"""Whether the database's schema is one with which this program works.

In a rolling deployment the schema is migrated first, so workers of before meet a newer one. Those that run go on. One that
starts asks the schema (migrations/functions/oldest_program.sql): it goes on where that says so. Else it waits for its
replacement, since an exit would only be followed by the next start.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from types import FrameType

import psycopg

from jobq import queries, sessions
from jobq.errors import DatabaseUnavailable, SchemaError
from jobq.sql import REVISION
from jobq.worker.notify import Notifier

logger = logging.getLogger("jobq.worker")

LOOK_EVERY = 2.0
SAY_EVERY = 60.0


def stopping_signals() -> list[signal.Signals]:
    """Return the signals that stop a worker in good order; not SIGHUP where it is ignored, as `nohup` has it."""
    signals = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    return [
        number for number in signals if signal.getsignal(number) is not signal.SIG_IGN or number is not signal.SIGHUP
    ]


def await_schema(url: str, schema: str, notifier: Notifier, *, wait: bool) -> bool:
    """Return True when the schema fits; False when this process was told to stop before it did.

    `wait`: whether to wait while the schema is newer and does not say that it works with this program; else SchemaError is
    raised. Raises SchemaError for a schema that is missing or older, too, and DatabaseUnavailable at the first look.
    """
    newer = _newer(url, schema)
    if newer is None:
        return True
    if not wait:
        raise SchemaError(_told(schema, newer))
    with _Stop() as stop:
        said = -SAY_EVERY
        pause = min(LOOK_EVERY, notifier.watchdog / 3) if notifier.watchdog else LOOK_EVERY
        while newer is not None and not stop.told:
            sentence = f"waits for its replacement, or for a schema that fits: {_told(schema, newer)}"
            notifier.tell(READY=1, STATUS=sentence, **({"WATCHDOG": 1} if notifier.watchdog else {}))
            if time.monotonic() - said >= SAY_EVERY:
                said = time.monotonic()
                logger.warning(sentence, extra={"schema": schema, "revision": newer, "revision_known": REVISION})
            stop.wait(pause)
            newer = _newer(url, schema, known=newer)
        if stop.told:
            notifier.tell(STOPPING=1, STATUS="stopped")
        return not stop.told


class _Stop:
    """Whether one of the stopping signals has come. Its handler takes no lock, as that of an Event does."""

    def __init__(self) -> None:
        self.told = False
        self._bell, self._ring = os.pipe()
        os.set_blocking(self._ring, False)
        self._before = {number: signal.signal(number, self._tell) for number in stopping_signals()}

    def _tell(self, signum: int, frame: FrameType | None) -> None:
        self.told = True
        os.write(self._ring, b".")

    def wait(self, seconds: float) -> None:
        """Wait for a signal, for `seconds` at most."""
        select.select([self._bell], [], [], seconds)

    def __enter__(self) -> _Stop:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._bell)
        os.close(self._ring)


def _told(schema: str, revision: str) -> str:
    return (
        f"schema {schema!r} is at revision {revision}, which this jobq does not know (it knows up to {REVISION}): "
        "it was made by a newer jobq; upgrade this one"
    )


def _newer(url: str, schema: str, *, known: str | None = None) -> str | None:
    """Return the schema's revision when it is newer and does not say that it works with this program; None when it fits.

    `known`: what an earlier look has found, which is returned when this look fails: the database may be away for a while.
    """
    try:
        with sessions.connect(url, connect_timeout=5) as connection:
            revision = queries.schema_revision(connection, schema)
            if revision is not None and revision > REVISION:
                return None if _says_that_it_works(connection, schema, revision) else revision
            if revision == REVISION:
                return None
    except (psycopg.Error, DatabaseUnavailable):
        if known is not None:
            return known
    # Costs a quarter of a second to import, which a start should not wait for that takes a dead worker's place.
    from jobq import migrate

    migrate.check(url, schema)
    return None


def _says_that_it_works(connection: psycopg.Connection[tuple[object, ...]], schema: str, revision: str) -> bool:
    try:
        oldest = queries.oldest_program(connection, schema, revision)
    except psycopg.Error:
        return False
    if oldest is None or oldest > REVISION:
        return False
    logger.info(
        "the schema is newer than this worker, and works with it: upgrade it at your convenience",
        extra={"schema": schema, "revision": revision, "revision_known": REVISION},
    )
    return True
