"""The state of the database for the page. None: the reading role may not see the value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jobq.queries.values import MaintenanceTaskInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class XminHolder:
    """Something that keeps vacuum from removing dead rows.

    `kind`: session, prepared transaction, or replication slot. `age`: its age in transactions.
    `seconds`: time since its transaction began, if it has one. `query`: at most 200 characters.
    `fix`: the statement that ends it; a person should decide whether to run it.
    """

    kind: str
    name: str
    age: int
    seconds: float | None
    state: str | None
    query: str | None
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInfo:
    """One table, or all partitions of one state's history or of attempts.

    Sizes are bytes; rows are the server's estimate.
    """

    name: str
    partitions: int
    rows: int
    dead: int | None
    heap: int
    indexes: int
    toast: int
    vacuumed_at: datetime | None
    analyzed_at: datetime | None

    @property
    def size(self) -> int:
        """Its total size in bytes."""
        return self.heap + self.indexes + self.toast


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo:
    """The index that claims read. `entries`: live and dead entries, estimated by the server."""

    name: str
    size: int
    entries: int

    @property
    def bytes_per_entry(self) -> float | None:
        """About 60 if tight, with names of ten letters.

        Several times as much: bloated, or just emptied.
        """
        return self.size / self.entries if self.entries > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """The server, the schema and their activity.

    `clock_ahead_seconds`: the server's clock minus this process's clock. `holders` are at most 20,
    oldest first; `oldest_xmin_age` is the age of the first. `notify_usage` is a share (0 to 1).
    """

    server_version: str
    revision: str | None
    revision_wanted: str
    started_at: datetime
    clock_ahead_seconds: float
    oldest_xmin_age: int
    holders: list[XminHolder]
    hidden_sessions: int
    tables: list[TableInfo]
    claim_index: IndexInfo | None
    notify_usage: float
    connections: int
    max_connections: int
    maintenance_tasks: list[MaintenanceTaskInfo]
    versions: list[str]
    read_at: datetime
