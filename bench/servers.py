"""The Postgres that all are measured on: durable, over TCP loopback, a fresh database for each run."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from bench.brokers import free_port
from bench.cpu import cpu_of_family
from jobq.dev import DevPostgres

# Durability and autovacuum as the server has them by default. The rest: no checkpoint and no read in the midst of a run.
SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "8GB", "max_connections": "300"}


class Server:
    """A Postgres of the bench's own, and what is asked of it. A context manager; `keep` its data for the next one there."""

    def __init__(self, directory: Path, *, keep: bool = False) -> None:
        directory.chmod(0o755)  # for the user that Postgres runs as
        self._home = directory / "pg"
        self._postgres = DevPostgres(self._home, free_port(), keep=keep, **SETTINGS)
        self._made = 0
        self._own: psycopg.Connection[Any] | None = None

    def __enter__(self) -> Server:
        self._postgres.start()
        self._own = psycopg.connect(self._postgres.url("postgres"), autocommit=True)
        (version,) = self.row("SHOW server_version")
        self.version = str(version).split()[0]
        (data,) = self.row("SHOW data_directory")
        self._postmaster = int(Path(data, "postmaster.pid").read_text().split()[0])
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            self._own.close()
        self._postgres.stop()

    @property
    def own(self) -> psycopg.Connection[Any]:
        """A connection to the database `postgres`, in autocommit."""
        assert self._own is not None, "the server is not started"
        return self._own

    def row(self, query: str) -> tuple[Any, ...]:
        """Return the one row of a query on the cluster."""
        row = self.own.execute(query.encode()).fetchone()
        assert row is not None, query
        return tuple(row)

    def fresh(self) -> tuple[str, str]:
        """Make an empty database; return its name and its URL."""
        self._made += 1
        name = f"bench_{self._made}"
        self.own.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name, self._postgres.url(name)

    def database(self, name: str) -> tuple[str, bool]:
        """Return the URL of a database to be kept, and whether it was just made, empty."""
        made = not self.own.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).rowcount
        if made:
            self.own.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self._postgres.url(name), made

    def drop(self, name: str) -> None:
        """Drop a database, even with clients connected."""
        self.own.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def wal_bytes(self) -> int:
        """Return how far the log of changes has come."""
        (bytes_,) = self.row("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")
        return int(bytes_)

    def cpu(self, without: Iterable[int] = ()) -> float:
        """Return the CPU seconds of all the cluster's processes, but for our own backends, those in `without` too."""
        return cpu_of_family(self._postmaster, {self.own.info.backend_pid, *without})


def sizes_mb(connection: psycopg.Connection[Any], tables: Iterable[str]) -> float:
    """Return the size of `tables` with their indexes and overflow, in MB of 2^20 bytes; a missing one counts nothing."""
    row = connection.execute(
        # A partitioned table has no size of its own; the tree of a plain one is empty.
        "SELECT coalesce(sum(pg_total_relation_size(to_regclass(name)) + coalesce((SELECT sum(pg_total_relation_size(relid))"
        " FROM pg_partition_tree(to_regclass(name)) WHERE relid <> to_regclass(name)), 0)), 0)"
        " FROM unnest(%s::text[]) AS name",
        (list(tables),),
    ).fetchone()
    assert row is not None
    return float(row[0]) / 2**20


def machine() -> dict[str, Any]:
    """Return what is known of this machine."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": cpu[1] if cpu else platform.machine(),
        "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else None,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "settings": SETTINGS,
    }
