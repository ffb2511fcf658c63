"""What the page tells of the database below. None stands for what the reading role may not see."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jobq.queries.values import ChoreInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class XminHolder:
    """What keeps vacuum from removing dead rows. `kind`: session, prepared transaction, or replication slot.

    `age` is how many transactions back; `seconds` since its transaction began, where there is one; `query` at most 200
    characters; `fix` the statement that ends it, for a person to judge.
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
    """One table, or all partitions of history of one state, or of attempts. Sizes in bytes; rows by the server's estimate."""

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
        """All of it, in bytes."""
        return self.heap + self.indexes + self.toast


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexInfo:
    """The index that claims read. `entries` are live and dead ones by the server's estimate."""

    name: str
    size: int
    entries: int

    @property
    def bytes_per_entry(self) -> float | None:
        """Some 60 with names of ten letters when tight; several times as much: bloated, or emptied a moment ago."""
        return self.size / self.entries if self.entries > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """The server, the schema and what goes on in them. `clock_ahead_seconds`: of the server's, compared with this process's.

    `oldest_xmin_age` is that of the first of `holders`, which are oldest first, at most 20. `notify_usage` is a share (0 to 1).
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
    chores: list[ChoreInfo]
    versions: list[str]
    read_at: datetime

    @property
    def versions_mixed(self) -> bool:
        """Whether workers of more than one version of jobq are alive."""
        return len(self.versions) > 1

    @property
    def revision_fits(self) -> bool:
        """Whether the schema is that for which this jobq is written."""
        return self.revision == self.revision_wanted
