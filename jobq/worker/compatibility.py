"""Whether the database's schema is one with which this program works.

In a rolling deployment the schema is migrated first, so workers of before meet a newer one. Those that run go on. One that
starts asks the schema (migrations/functions/oldest_program.sql): it goes on where that says so. Else it waits for its
replacement, since an exit would only be followed by the next start.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from types import FrameType

import psycopg

from jobq import queries, sessions
from jobq.errors import SchemaError
from jobq.sql import REVISION
from jobq.worker.notify import Notifier

logger = logging.getLogger("jobq.worker")

LOOK_EVERY = 2.0
SAY_EVERY = 60.0
_STOP = (signal.SIGTERM, signal.SIGINT)


def await_schema(url: str, schema: str, notifier: Notifier, *, wait: bool) -> bool:
    """Return True when the schema fits; False when this process was told to stop before it did.

    `wait`: whether to wait while the schema is newer and does not say that it works with this program; else SchemaError is
    raised. Raises SchemaError for a schema that is missing or older, too, and DatabaseUnavailable.
    """
    newer = _newer(url, schema)
    if newer is None:
        return True
    if not wait:
        raise SchemaError(_told(schema, newer))
    stop = threading.Event()

    def told_to_stop(signum: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, told_to_stop) for number in _STOP}
    try:
        said = -SAY_EVERY
        pause = min(LOOK_EVERY, notifier.watchdog / 3) if notifier.watchdog else LOOK_EVERY
        while newer is not None:
            sentence = f"waits for its replacement, or for a schema that fits: {_told(schema, newer)}"
            notifier.tell(READY=1, STATUS=sentence, **({"WATCHDOG": 1} if notifier.watchdog else {}))
            if time.monotonic() - said >= SAY_EVERY:
                said = time.monotonic()
                logger.warning(sentence, extra={"schema": schema, "revision": newer, "revision_known": REVISION})
            if stop.wait(pause):
                return False
            newer = _newer(url, schema)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return True


def _told(schema: str, revision: str) -> str:
    return (
        f"schema {schema!r} is at revision {revision}, which this jobq does not know (it knows up to {REVISION}): "
        "it was made by a newer jobq; upgrade this one"
    )


def _newer(url: str, schema: str) -> str | None:
    """Return the schema's revision when it is newer and does not say that it works with this program; None when it fits."""
    try:
        with sessions.connect(url, connect_timeout=5) as connection:
            revision = queries.schema_revision(connection, schema)
            if revision == REVISION:
                return None
            if revision is not None and revision > REVISION:
                oldest = queries.oldest_program(connection, schema, revision)
                if oldest is None or oldest > REVISION:
                    return revision
                logger.info(
                    "the schema is newer than this worker, and works with it: upgrade it at your convenience",
                    extra={"schema": schema, "revision": revision, "revision_known": REVISION},
                )
                return None
    except psycopg.Error:
        pass
    # Costs a quarter of a second to import, which a start should not wait for that takes a dead worker's place.
    from jobq import migrate

    migrate.check(url, schema)
    return None
