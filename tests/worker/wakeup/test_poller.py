"""What the lead poller makes of what it hears and of how long its looks take, without a database."""

from __future__ import annotations

from typing import Any, cast

import pytest

from jobq._worker.claiming.loop import ClaimLoop
from jobq._worker.database import Database
from jobq._worker.loops import MISSED, Topic
from jobq._worker.options import WorkerOptions
from jobq._worker.wakeup.head_poller import HeadPoller
from jobq._worker.wakeup.policy import LATEST, LastClaim, NotifyMode
from jobq._worker.wakeup.poller import LeadPoller
from jobq._worker.wakeup.state import WakeupState
from jobq.settings import Settings

TOOK = 0.2


class Loop:
    """Stands in for the claim loop, its finder and its claimer."""

    def __init__(self) -> None:
        self.claims = LastClaim()
        self.finder = self.claimer = self
        self.heard: list[Topic | None] = []

    def wake(self, topic: Topic | None = None) -> None:
        self.heard.append(topic)

    def found(self, queue: str, priority: int | None = None) -> bool:
        return False


class Code:
    queues: tuple[str, ...] = ()


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def wakeups() -> WakeupState:
    return WakeupState()


@pytest.fixture
def poller(loop: Loop, wakeups: WakeupState) -> LeadPoller:
    options = WorkerOptions(app="-", settings=Settings(database_url="postgresql://nowhere"))
    return LeadPoller(options, Database(options.settings), cast("ClaimLoop", cast("Any", loop)), Code(), wakeups)


@pytest.fixture
def heads(loop: Loop) -> HeadPoller:
    return HeadPoller("jobq", every_queue=True, code=Code(), finder=loop, claims=loop.claims)


def test_what_no_lead_poller_says_is_not_heeded(poller: LeadPoller, loop: Loop, wakeups: WakeupState) -> None:
    """Every role that may connect to the database may notify: that must end no worker."""
    poller.wake(Topic("wake", "poll"))
    for said in ("", "up", "poll notify", "__class__"):
        poller.wake(Topic("wake", said))
    assert wakeups.mode is NotifyMode.POLL
    assert loop.heard == [MISSED]


@pytest.mark.parametrize("claims", ["none", "full", "going on"])
def test_looks_that_take_long_leave_the_database_half_its_time(heads: HeadPoller, loop: Loop, claims: str) -> None:
    begun = heads._looked = 1000.0
    heads._rhythm.looked(found=True, took=TOOK)
    if claims != "none":
        loop.claims.made(begun + 0.001, want=5, got=5 if claims == "full" else 1)
    assert heads.next_look() >= begun + 2 * TOOK


def test_looks_that_take_no_time_follow_one_another_soon(heads: HeadPoller) -> None:
    heads._looked = 1000.0
    heads._rhythm.looked(found=True, took=0.0005)
    assert 1000.0 < heads.next_look() < 1000.0 + LATEST
