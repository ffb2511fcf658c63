"""Parking jobs that this worker's code cannot run, for workers whose code can; see `parked.py` for who claims them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from jobq.worker.database import fetch
from jobq.worker.frames import Ending, Setback


async def park(
    connection: AsyncConnection[Any], schema: str, worker: UUID, refused: Sequence[Setback], patience: float
) -> tuple[list[Setback], frozenset[int], int]:
    """Park what this worker's code has refused. Raises psycopg.Error.

    Returns the setbacks to settle instead (those that no live worker's code fits, or that were to be cancelled), the ids of
    those whose rows are locked, and how many were parked.
    """
    rows = await fetch(connection, schema, "park", **park_parameters(worker, refused, patience, schema))
    return judged(refused, rows)


def park_parameters(worker: UUID, refused: Sequence[Setback], patience: float, channel: str) -> dict[str, Any]:
    """Return the parameters of park.sql."""
    ordered = sorted(refused, key=lambda setback: setback.id)
    return {
        "worker": worker,
        "ids": [s.id for s in ordered],
        "claims": [s.claims for s in ordered],
        "kinds": [s.refused for s in ordered],
        "signatures": [s.signature for s in ordered],
        "reasons": [s.message for s in ordered],
        "patience": patience,
        "channel": channel,
    }


def judged(refused: Sequence[Setback], rows: Sequence[tuple[Any, ...]]) -> tuple[list[Setback], frozenset[int], int]:
    """Return what the rows of park.sql tell, as `park` does."""
    by_id = {setback.id: setback for setback in refused}
    settled = []
    for id_, verdict in rows:
        if verdict == "fails":
            settled.append(msgspec.structs.replace(by_id[id_], ending=Ending.FAIL, recorded="failed"))
        elif verdict == "cancelled":
            settled.append(msgspec.structs.replace(by_id[id_], ending=Ending.RELEASE))
    busy = frozenset(id_ for id_, verdict in rows if verdict == "busy")
    return settled, busy, sum(verdict == "parked" for _, verdict in rows)
