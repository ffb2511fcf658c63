"""Parks jobs that this worker's code cannot run.

`parked.py` claims them for workers whose code can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from jobq._worker.database import fetch
from jobq._worker.ipc.messages import Disposition, Failure


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What park.sql has done with each job."""

    parked: list[Failure] = field(default_factory=list)
    instead: list[Failure] = field(default_factory=list)
    """Failures to settle instead: no live worker's code fits, or a cancel was requested."""
    busy: list[Failure] = field(default_factory=list)
    """Their rows are locked: try again."""
    lost: list[Failure] = field(default_factory=list)
    """The fence refused them."""


async def park(
    connection: AsyncConnection[Any], schema: str, worker: UUID, refused: Sequence[Failure], patience: float
) -> Verdicts:
    """Park the jobs that this worker's code has refused. Raises psycopg.Error."""
    rows = await fetch(connection, schema, "park", **park_parameters(worker, refused, patience, schema))
    return park_verdicts(refused, rows)


def park_parameters(worker: UUID, refused: Sequence[Failure], patience: float, channel: str) -> dict[str, Any]:
    """Return the parameters of park.sql."""
    ordered = sorted(refused, key=lambda setback: setback.id)
    return {
        "worker": worker,
        "ids": [s.id for s in ordered],
        "claims": [s.claims for s in ordered],
        "started": [s.started for s in ordered],
        "kinds": [s.refused for s in ordered],
        "signatures": [s.signature for s in ordered],
        "reasons": [s.message for s in ordered],
        "patience": patience,
        "channel": channel,
    }


def park_verdicts(refused: Sequence[Failure], rows: Sequence[tuple[Any, ...]]) -> Verdicts:
    """Parse the rows of park.sql for `refused`."""
    by_id = {setback.id: setback for setback in refused}
    found = Verdicts()
    for id_, verdict in rows:
        setback = by_id.pop(id_)
        match verdict:
            case "parked":
                found.parked.append(setback)
            case "fails":
                found.instead.append(msgspec.structs.replace(setback, ending=Disposition.FAIL, recorded="failed"))
            case "cancelled":
                found.instead.append(msgspec.structs.replace(setback, ending=Disposition.RELEASE))
            case _:
                found.busy.append(setback)
    found.lost.extend(by_id.values())
    return found
