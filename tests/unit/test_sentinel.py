"""What the sentinel makes of what it hears and of how long its looks take, without a database."""

from __future__ import annotations

from typing import Any, cast

import pytest

from jobq.config import Settings
from jobq.worker.advance import Advance
from jobq.worker.brisk import LATEST, LastClaim, Mode
from jobq.worker.database import Database
from jobq.worker.options import WorkerOptions
from jobq.worker.sentinel import Sentinel

TOOK = 0.2


class Loop:
    """Stands in for the claiming loop."""

    def __init__(self) -> None:
        self.claims = LastClaim()
        self.heard: list[str] = []

    def notified(self, payload: str) -> None:
        self.heard.append(payload)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def sentinel(loop: Loop) -> Sentinel:
    options = WorkerOptions(app="-", settings=Settings(database_url="postgresql://nowhere"))
    return Sentinel(options, Database(options.settings), cast("Advance", cast("Any", loop)), list)


def test_what_no_sentinel_says_is_not_heeded(sentinel: Sentinel, loop: Loop) -> None:
    """Every role that may connect to the database may notify: that must end no worker."""
    sentinel.told("brisk")
    for said in ("", "up", "brisk quiet", "__class__"):
        sentinel.told(said)
    assert sentinel.mode is Mode.BRISK
    assert loop.heard == [""]


@pytest.mark.parametrize("claims", ["none", "full", "going on"])
def test_looks_that_take_long_leave_the_database_half_its_time(sentinel: Sentinel, loop: Loop, claims: str) -> None:
    begun = sentinel._looked = 1000.0
    sentinel._rhythm.looked(found=True, took=TOOK)
    if claims != "none":
        loop.claims.made(begun + 0.001, want=5, got=5 if claims == "full" else 1)
    assert sentinel._next_look() >= begun + 2 * TOOK


def test_looks_that_take_no_time_follow_one_another_soon(sentinel: Sentinel) -> None:
    sentinel._looked = 1000.0
    sentinel._rhythm.looked(found=True, took=0.0005)
    assert 1000.0 < sentinel._next_look() < 1000.0 + LATEST
