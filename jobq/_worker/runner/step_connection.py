"""The connection of `StepThread`: its settings, and when it is lost."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import IsolationLevel
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row

from jobq._postgres import connecting
from jobq._postgres.sql import statement
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.timeouts import Timeouts
from jobq.settings import Settings

# A row of one job that another transaction has locked holds up the steps of all jobs for this long.
TERMS = Timeouts(statement=20.0, lock=0.3)
# SKIP LOCKED needs this isolation, whatever the database's default is.
_SESSION = {"default_transaction_isolation": "read committed", "client_min_messages": "warning"}
# The server has no such prepared statement: a pooler has given another session.
_NOT_PREPARED = frozenset({"26000", "42P05"})


class StepConnection:
    """Connects at the first statement, and again after `drop`. One thread uses it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: psycopg.Connection[Any] | None = None
        self._pooled = settings.pooler == "transaction"
        """Whether a session, with its settings, is lent for one transaction only."""

    def fetch(self, name: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Execute a statement of `sql/steps/` and commit. Raises psycopg.Error."""
        if self._made is None:
            self._made = self._connect()
        query = statement(name, self._settings.schema).query
        with self._made.cursor(row_factory=tuple_row) as cursor:
            if not self._pooled:
                return cursor.execute(query, parameters, prepare=True).fetchall()
            with self._made.transaction():
                for setting, value in TERMS.settings().items():
                    cursor.execute("SELECT set_config(%s, %s, true)", (setting, value))
                return cursor.execute(query, parameters, prepare=False).fetchall()

    def is_lost(self, error: BaseException) -> bool:
        """Whether `error` tells that there is no usable connection: no server, or one that is read-only."""
        if isinstance(error, psycopg.Error) and error.sqlstate in _NOT_PREPARED:
            self._pooled = True
        return self._made is None or classify(error, self._made) is ErrorKind.CONNECTION

    def drop(self) -> None:
        """Close the connection, if there is one."""
        made, self._made = self._made, None
        if made is not None:
            made.close()

    def _connect(self) -> psycopg.Connection[Any]:
        url = self._settings.require_database_url()
        given = conninfo_to_dict(url).get("options")
        mine = {**TERMS.settings(), **_SESSION}
        ours = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in mine.items())
        options = {} if self._pooled else {"options": f"{given} {ours}" if given else ours}
        try:
            made = connecting.connect(
                url, "steps", within=self._settings.connect_timeout, autocommit=True, **options, **connecting.KEEPALIVES
            )
        except psycopg.OperationalError as error:
            # PgBouncer's answer to `options`; no server gives it.
            if self._pooled or "unsupported startup parameter" not in str(error):
                raise
            self._pooled = True
            return self._connect()
        made.isolation_level = IsolationLevel.READ_COMMITTED
        if self._pooled:
            made.prepare_threshold = None
        return made
