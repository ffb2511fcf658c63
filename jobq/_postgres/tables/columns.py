"""Shared definitions of tables: times, choices, and vacuum settings of tables with many updates."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, text

# Autovacuum of the hot tables: by a fixed number of dead rows, at full speed. A share of the
# table's size would wait longest exactly when the backlog is largest.
HOT = {
    "autovacuum_vacuum_threshold": "5000",
    "autovacuum_vacuum_scale_factor": "0",
    "autovacuum_vacuum_cost_delay": "0",
}


def timestamp(name: str, *, now: bool = False, nullable: bool = False) -> Column[object]:
    """Return a column for a time with zone; `now`: its default is the transaction's time."""
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=text("now()") if now else None)


def one_of(column: str, values: tuple[str, ...]) -> str:
    """Return the condition that `column` has one of `values`."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"
