"""The partitions of history, and the needs of a publication."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from jobq._core.text import listed, name, plural
from jobq.diagnostics.finding import Check, Finding, Status, rows
from jobq.diagnostics.snapshot import Snapshot

_DAYS_AHEAD = 2
_PARENTS = (
    "job_history_succeeded",
    "job_history_failed",
    "job_history_cancelled",
    "job_history_expired",
    "job_attempt",
)


def _partitions(snapshot: Snapshot) -> Iterator[Finding]:
    connection, schema = snapshot.connection, snapshot.schema
    fix = (
        f"run a worker, which makes them; or SELECT {sql.Identifier(schema).as_string(connection)}.make_partitions(7), whose "
        "warnings say what is in the way"
    )
    ahead: dict[str, int] = {}
    for parent, days in rows(
        connection,
        "SELECT parent.relname,"
        " max(to_date(right(child.relname, 8), 'YYYYMMDD') - (clock_timestamp() AT TIME ZONE 'UTC')::date)"
        " FROM pg_class AS parent LEFT JOIN pg_inherits ON pg_inherits.inhparent = parent.oid"
        " LEFT JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid AND child.relname ~ '_[0-9]{8}$'"
        " WHERE parent.relnamespace = to_regnamespace(quote_ident(%s)) AND parent.relname = ANY (%s) GROUP BY 1 ORDER BY 1",
        schema,
        list(_PARENTS),
    ):
        ahead[parent] = -1 if days is None else days
    for days in sorted({days for days in ahead.values() if days < _DAYS_AHEAD}):
        which = [parent for parent, number in ahead.items() if number == days]
        has = "has" if len(which) == 1 else "have"
        yield Finding(
            check="partitions",
            status=Status.FAIL if days < 0 else Status.WARN,
            message=f"table {listed(which, len(_PARENTS))} {has} no partition for today"
            if days < 0
            else f"table {listed(which, len(_PARENTS))} {has} partitions for {plural(days, 'day')} ahead",
            fix=fix,
            page="system",
        )
    rest = [f"{parent}_rest" for parent in _PARENTS]
    there = [
        table
        for (table,) in rows(
            connection,
            "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(%s)) AND relname = ANY (%s)"
            " ORDER BY relname",
            schema,
            rest,
        )
    ]
    if there:
        one = sql.SQL("SELECT {} WHERE EXISTS (SELECT FROM {})")
        query = sql.SQL(" UNION ALL ").join(
            one.format(sql.Literal(table), sql.Identifier(schema, table)) for table in there
        )
        if filled := [table for (table,) in rows(connection, query)]:
            yield Finding(
                check="partitions",
                status=Status.WARN,
                message=f"table {listed(filled, len(_PARENTS))} {'holds' if len(filled) == 1 else 'hold'} rows for which no "
                "day had been made",
                fix="keep a worker running, so that days are made in time; searches find these rows, and retention "
                "deletes them when they are old enough",
                page="system",
            )
    if ahead and min(ahead.values()) >= _DAYS_AHEAD:
        yield Finding(
            check="partitions", status=Status.OK, message=f"made for {plural(min(ahead.values()), 'day')} ahead"
        )


def _publications(snapshot: Snapshot) -> Iterator[Finding]:
    """Check for tables without a replica identity whose rows a publication keeps from changing."""
    connection, schema = snapshot.connection, snapshot.schema
    for publication, everything, tables in rows(
        connection,
        "SELECT publication.pubname, publication.puballtables,"
        " array_agg(published.tablename::text ORDER BY published.tablename)"
        " FROM pg_publication AS publication JOIN pg_publication_tables AS published USING (pubname)"
        " JOIN pg_class AS class ON class.oid = format('%%I.%%I', published.schemaname, published.tablename)::regclass"
        " WHERE published.schemaname = %s AND (publication.pubupdate OR publication.pubdelete)"
        " AND (class.relreplident = 'n' OR class.relreplident = 'd'"
        " AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = class.oid AND indisprimary))"
        " GROUP BY 1, 2 ORDER BY 1",
        schema,
    ):
        identity = sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(sql.Identifier(schema, tables[0]))
        yield Finding(
            check="publications",
            status=Status.FAIL,
            message=f"publication {name(publication)}{' (for all tables)' if everything else ''} publishes changes of "
            f"{', '.join(tables[:3])}"
            + (f" and {plural(len(tables) - 3, 'other table')}" if len(tables) > 3 else "")
            + ", which have no replica identity: the server refuses to change their rows",
            fix=f"{identity.as_string(connection)}, and so for each; or take them out of it",
            page="system",
        )


PARTITION_CHECKS: dict[str, tuple[Check, str]] = {
    "partitions": (_partitions, "fine"),
    "publications": (_publications, "none keeps a table's rows from being changed"),
}
"""Each check by name, with the text if it finds nothing."""
