"""Parking jobs that this worker's code cannot run, for workers whose code can; see `parked.py` for who claims them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from jobq.worker.database import fetch
from jobq.worker.frames import Ending, Setback


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What park.sql has done with each job."""

    parked: list[Setback] = field(default_factory=list)
    instead: list[Setback] = field(default_factory=list)
    """To be settled instead: no live worker's code fits them, or they were to be cancelled."""
    busy: list[Setback] = field(default_factory=list)
    """Their rows are locked: to be tried again."""
    lost: list[Setback] = field(default_factory=list)
    """The fence refused them."""


async def park(
    connection: AsyncConnection[Any], schema: str, worker: UUID, refused: Sequence[Setback], patience: float
) -> Verdicts:
    """Park what this worker's code has refused. Raises psycopg.Error."""
    rows = await fetch(connection, schema, "park", **park_parameters(worker, refused, patience, schema))
    return park_verdicts(refused, rows)


def park_parameters(worker: UUID, refused: Sequence[Setback], patience: float, channel: str) -> dict[str, Any]:
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


def park_verdicts(refused: Sequence[Setback], rows: Sequence[tuple[Any, ...]]) -> Verdicts:
    """Return what the rows of park.sql tell of `refused`."""
    by_id = {setback.id: setback for setback in refused}
    found = Verdicts()
    for id_, verdict in rows:
        setback = by_id.pop(id_)
        match verdict:
            case "parked":
                found.parked.append(setback)
            case "fails":
                found.instead.append(msgspec.structs.replace(setback, ending=Ending.FAIL, recorded="failed"))
            case "cancelled":
                found.instead.append(msgspec.structs.replace(setback, ending=Ending.RELEASE))
            case _:
                found.busy.append(setback)
    found.lost.extend(by_id.values())
    return found
