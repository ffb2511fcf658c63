"""The database below: what slows claims down, what fills up, and who holds dead rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from psycopg import Connection

from jobq.queries.rest import chores, schema_revision, workers
from jobq.queries.rows import fetch
from jobq.queries.values_system import IndexInfo, System, TableInfo, XminHolder
from jobq.sql import REVISION


def system(conn: Connection[Any], schema: str) -> System:
    """Return the state of the server and of jobq's tables, from catalogues: as cheap on large tables as on small ones.

    For any role that may read jobq's tables. Other users' sessions show their transactions to a role with pg_read_all_stats
    only; `hidden_sessions` counts the others.
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
        chores=chores(conn, schema),
        versions=sorted({worker.version for worker in workers(conn, schema) if worker.health != "silent"}),
    )
