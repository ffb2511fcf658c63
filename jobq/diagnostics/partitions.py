"""What `jobq doctor` looks at in the partitions of history, and in what a publication needs of the tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from jobq.cli.findings import Check, Finding, Status, rows
from jobq.cli.output import plural

_DAYS_AHEAD = 2
_PARENTS = (
    "job_history_succeeded",
    "job_history_failed",
    "job_history_cancelled",
    "job_history_expired",
    "job_attempt",
)


def _partitions(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    mend = (
        f"run a worker, which makes them; or SELECT {schema}.make_partitions(7), whose warnings say what is in the way"
    )
    least = 10_000
    for parent in _PARENTS:
        [(days,)] = rows(
            connection,
            "SELECT max(to_date(right(child.relname, 8), 'YYYYMMDD'))"
            " - (clock_timestamp() AT TIME ZONE 'UTC')::date"
            " FROM pg_inherits JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid"
            " WHERE pg_inherits.inhparent = to_regclass(%s) AND child.relname ~ '_[0-9]{8}$'",
            sql.Identifier(schema, parent).as_string(connection),
        )
        ahead = -1 if days is None else days
        least = min(least, ahead)
        if ahead < _DAYS_AHEAD:
            yield Finding(
                check="partitions",
                status=Status.FAIL if ahead < 0 else Status.WARN,
                message=f"{parent} has none for today"
                if ahead < 0
                else f"{parent} has them for {plural(ahead, 'day')} ahead",
                mend=mend,
            )
        rest = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(schema, f"{parent}_rest"))
        if rows(connection, rest)[0][0]:
            yield Finding(
                check="partitions",
                status=Status.WARN,
                message=f"{parent}_rest holds rows for which no day had been made",
                mend="keep a worker running, so that days are made in time; searches find these rows, and retention "
                "deletes them when they are old enough",
            )
    if least >= _DAYS_AHEAD:
        yield Finding(check="partitions", status=Status.OK, message=f"made for {plural(least, 'day')} ahead")


def _publications(connection: psycopg.Connection[Any], schema: str) -> Iterator[Finding]:
    """Tables whose rows a publication keeps from being changed: without a replica identity."""
    for name, tables in rows(
        connection,
        "SELECT publication.pubname, array_agg(published.tablename::text ORDER BY published.tablename)"
        " FROM pg_publication AS publication JOIN pg_publication_tables AS published USING (pubname)"
        " JOIN pg_class AS class ON class.oid = format('%%I.%%I', published.schemaname, published.tablename)::regclass"
        " WHERE published.schemaname = %s AND (publication.pubupdate OR publication.pubdelete)"
        " AND (class.relreplident = 'n' OR class.relreplident = 'd'"
        " AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = class.oid AND indisprimary))"
        " GROUP BY 1 ORDER BY 1",
        schema,
    ):
        yield Finding(
            check="publications",
            status=Status.FAIL,
            message=f"publication {name} publishes changes of {', '.join(tables[:3])}"
            + (f" and {plural(len(tables) - 3, 'other table')}" if len(tables) > 3 else "")
            + ", which have no replica identity: the server refuses to change their rows",
            mend=f"ALTER TABLE {schema}.{tables[0]} REPLICA IDENTITY FULL, and so for each; or take them out of it",
        )


PARTITION_CHECKS: dict[str, tuple[Check, str]] = {
    "partitions": (_partitions, "fine"),
    "publications": (_publications, "none keeps a table's rows from being changed"),
}
"""Each check by its name, with what to say when it finds nothing."""
