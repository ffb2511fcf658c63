"""The state of the database.

It shows what slows claims, what fills up, and which sessions hold dead rows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from psycopg import Connection

from jobq._postgres.sql import REVISION
from jobq._postgres.statements import fetch
from jobq.queries.fleet import maintenance_tasks, schema_revision, versions_of, workers
from jobq.queries.values.system import IndexInfo, System, TableInfo, XminHolder


def system(conn: Connection[Any], schema: str) -> System:
    """Return the state of the server and of jobq's tables, read from catalogues.

    This is as cheap on large tables as on small ones. Any role that may read jobq's tables may call
    it. Only a role with pg_read_all_stats sees the transactions of other users' sessions;
    `hidden_sessions` counts the sessions that are not visible.
    """
    before = datetime.now(UTC)
    (server,) = fetch(conn, schema, "system_server", {})
    after = datetime.now(UTC)
    holders = [XminHolder(**row) for row in fetch(conn, schema, "system_holders", {})]
    index = fetch(conn, schema, "system_index", {"schema": schema})
    return System(
        **server,
        clock_ahead_seconds=(server["read_at"] - before).total_seconds() - (after - before).total_seconds() / 2,
        revision=schema_revision(conn, schema),
        revision_wanted=REVISION,
        oldest_xmin_age=holders[0].age if holders else 0,
        holders=holders,
        tables=[TableInfo(**row) for row in fetch(conn, schema, "system_tables", {"schema": schema})],
        claim_index=IndexInfo(**index[0]) if index else None,
        maintenance_tasks=maintenance_tasks(conn, schema),
        versions=versions_of(workers(conn, schema)),
    )
