"""Whether this program works with the database's schema.

In a rolling deployment the schema is migrated first, so old workers meet a newer schema. Running
workers continue, except beside the bridge from 0008 to 0009, which renames what they use: stop them
first. A worker that starts asks the schema (migrations/functions/oldest_program.sql), and continues
if the schema supports it. Otherwise it waits to be replaced, because an exit would only cause
another start.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from types import FrameType

import psycopg

from jobq import queries
from jobq._postgres import connecting
from jobq._postgres.sql import REVISION
from jobq._worker.health.systemd import Notifier
from jobq.errors import DatabaseUnavailable, SchemaError

logger = logging.getLogger("jobq.worker")

LOOK_EVERY = 2.0
SAY_EVERY = 60.0


def stopping_signals() -> list[signal.Signals]:
    """Return the signals that stop a worker in an orderly way; not SIGHUP if `nohup` ignores it."""
    signals = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    return [
        number for number in signals if signal.getsignal(number) is not signal.SIG_IGN or number is not signal.SIGHUP
    ]


def await_schema(url: str, schema: str, notifier: Notifier, *, wait: bool) -> bool:
    """Return True if the schema fits; False if this process was asked to stop before it did.

    `wait`: whether to wait while the schema is newer and does not support this program; if False,
    SchemaError is raised. Also raises SchemaError if the schema is missing or older, and
    DatabaseUnavailable at the first check.
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
    """Whether a stop signal has come. Unlike an Event's, its handler takes no lock."""

    def __init__(self) -> None:
        self.told = False
        self._bell, self._ring = os.pipe()
        os.set_blocking(self._ring, False)
        self._before = {number: signal.signal(number, self._tell) for number in stopping_signals()}

    def _tell(self, signum: int, frame: FrameType | None) -> None:
        self.told = True
        os.write(self._ring, b".")

    def wait(self, seconds: float) -> None:
        """Wait for a signal for at most `seconds`."""
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
    """Return the schema's revision if it is newer and does not support this program.

    The result is None if it fits.

    `known`: the result of an earlier check. It is returned if this check fails, because the
    database may be away for a while.
    """
    try:
        with connecting.connect(url, "schema check", within=5) as connection:
            revision = queries.schema_revision(connection, schema)
            if revision is not None and revision > REVISION:
                return None if _says_that_it_works(connection, schema, revision) else revision
            if revision == REVISION:
                return None
    except (psycopg.Error, DatabaseUnavailable):
        if known is not None:
            return known
    # The import takes 0.25 s. A worker that starts in place of a dead one should not wait for it.
    from jobq import migrate

    migrate.check(url, schema)
    return None


def _says_that_it_works(connection: psycopg.Connection[tuple[object, ...]], schema: str, revision: str) -> bool:
    try:
        if not queries.supports_this_version(connection, schema, revision):
            return False
    except psycopg.Error:
        return False
    logger.info(
        "the schema is newer than this worker, and works with it: upgrade it at your convenience",
        extra={"schema": schema, "revision": revision, "revision_known": REVISION},
    )
    return True
