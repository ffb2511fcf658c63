"""What has ended and is not written down yet: what is written with what, what is kept back, and what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import psycopg
import pytest

from jobq._worker.database import Connection
from jobq._worker.faults.problems import Problems
from jobq._worker.health.stalls import RateLimitedLog
from jobq._worker.ipc.messages import AlreadyCommitted, Disposition, Failure, Success
from jobq._worker.lease import Lease
from jobq._worker.options import WorkerOptions
from jobq._worker.outcomes import locked_outcomes
from jobq._worker.outcomes.deferred_writes import Deferred, Written
from jobq._worker.outcomes.outcome_buffer import OutcomeBuffer
from jobq._worker.outcomes.store import JobStore
from jobq._worker.statements.parameters import MAX_BATCH
from jobq._worker.statements.results import Claimed, Settled
from jobq.settings import Settings
from tests.support.fake_database import FakeDatabase

NOWHERE = cast("Connection", None)


class Store:
    """Stands in for the statements: says which jobs are locked, and settles what is not."""

    def __init__(self) -> None:
        self.locks: set[int] = set()
        self.settled: list[int] = []
        self.fails: psycopg.Error | None = None

    async def locked(self, _: Any, ids: list[int]) -> frozenset[int]:
        return frozenset(self.locks.intersection(ids))

    async def settle(self, _: Any, __: Any, setbacks: list[Failure]) -> Settled:
        if self.fails is not None:
            raise self.fails
        free = tuple(setback for setback in setbacks if setback.id not in self.locks)
        self.settled += [setback.id for setback in free]
        return Settled(free, tuple(setback for setback in setbacks if setback.id in self.locks))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(locked_outcomes, "BUSY_RETRY", 0.0)
    return Store()


@pytest.fixture
async def outcomes(store: Store, monkeypatch: pytest.MonkeyPatch) -> OutcomeBuffer:
    database = FakeDatabase(monkeypatch, {})
    database.refuses = psycopg.OperationalError("not here")
    lease = Lease(WorkerOptions(app="-", settings=Settings(database_url="postgresql://nowhere")), "test")
    ledger, repeats = cast("JobStore", store), RateLimitedLog()
    deferred = Deferred(database, ledger, lease, problems=Problems(), repeats=repeats)
    return OutcomeBuffer(ledger, lease, None, repeats, deferred)


def success(job: int) -> Success:
    return Success(job, 1, 100, b"null", 0.01)


def setback(job: int, ending: Disposition = Disposition.RETRY) -> Failure:
    return Failure(job, 1, 100, ending)


def waits(outcomes: OutcomeBuffer) -> bool:
    return outcomes.waiting_since is not None


def is_wary(outcomes: OutcomeBuffer) -> bool:
    return outcomes.locked.wary


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_success_waits_until_it_is_written(outcomes: OutcomeBuffer) -> None:
    assert (outcomes.writable, len(outcomes), waits(outcomes)) == (False, 0, False)
    outcomes.succeeded([success(1), success(2)])
    assert (outcomes.writable, len(outcomes)) == (True, 2)
    assert waits(outcomes)
    assert outcomes.names() == {(1, 1, 100), (2, 1, 100)}
    batch = outcomes.batch()
    outcomes.succeeded([success(3)])
    assert outcomes.written(batch, Claimed(2), []) == 2
    # What came while the statement was under way is next.
    assert (outcomes.finished, outcomes.batch()) == (2, [success(3)])
    assert outcomes.written(outcomes.batch(), Claimed(1), []) == 1
    assert (outcomes.writable, len(outcomes), waits(outcomes)) == (False, 0, False)


async def test_an_outcome_that_the_fence_refuses_calls_for_a_comparison(outcomes: OutcomeBuffer) -> None:
    outcomes.succeeded([success(1), success(2)])
    outcomes.written(outcomes.batch(), Claimed(1), [])
    assert (outcomes.odd, outcomes.finished, len(outcomes)) == (True, 1, 0)
    outcomes.odd = False
    outcomes.recorded(AlreadyCommitted(3, 1, 100, accepted=False))
    assert outcomes.odd


async def test_what_runners_wrote_themselves_is_known_until_the_next_comparison(outcomes: OutcomeBuffer) -> None:
    outcomes.recorded(AlreadyCommitted(3, 1, 100, accepted=True))
    assert (outcomes.finished, len(outcomes), outcomes.names()) == (1, 0, {(3, 1, 100)})
    assert outcomes.more.is_set()
    # It counts as ended with the next statement, for the prefetch.
    assert outcomes.written([], Claimed(0), []) == 1
    outcomes.recount()
    assert outcomes.names() == set()


async def test_a_locked_success_is_kept_back_and_the_others_are_written(outcomes: OutcomeBuffer, store: Store) -> None:
    store.locks = {2}
    outcomes.succeeded([success(job) for job in (1, 2, 3)])
    assert not is_wary(outcomes)
    assert await outcomes.set_aside(NOWHERE, outcomes.batch())
    assert is_wary(outcomes)
    assert outcomes.batch() == [success(1), success(3)]
    outcomes.written(outcomes.batch(), Claimed(2), [])
    assert (len(outcomes), outcomes.names()) == (1, {(2, 1, 100)})
    # Still locked when it is looked at again: it stays.
    await until(lambda: outcomes.writable)
    await outcomes.take_back(NOWHERE)
    assert outcomes.successes == []
    store.locks.clear()
    await until(lambda: outcomes.writable)
    await outcomes.take_back(NOWHERE)
    assert outcomes.batch() == [success(2)]
    assert not await outcomes.set_aside(NOWHERE, outcomes.batch())


async def test_a_locked_setback_is_tried_again(outcomes: OutcomeBuffer, store: Store) -> None:
    store.locks = {1}
    for job in (1, 2):
        outcomes.set_back(setback(job))
    written, _ = await outcomes.settle(NOWHERE)
    assert ([each.id for each in written], store.settled, len(outcomes)) == ([2], [2], 1)
    store.locks.clear()
    await until(lambda: outcomes.writable)
    await outcomes.settle(NOWHERE)
    assert (store.settled, len(outcomes), outcomes.finished) == ([2, 1], 0, 2)


async def test_setbacks_whose_statement_fails_are_written_apart(outcomes: OutcomeBuffer, store: Store) -> None:
    store.fails = psycopg.errors.LockNotAvailable("locked")
    outcomes.set_back(setback(1))
    written, settled = await outcomes.settle(NOWHERE)
    assert (written, settled.unwritten) == ([], (setback(1),))
    assert (outcomes.writable, len(outcomes), len(outcomes.deferred)) == (False, 1, 1)
    # That is a problem of its own, and no standstill.
    assert not waits(outcomes)
    await outcomes.deferred.close()


async def test_one_of_those_that_lose_their_sessions_again_and_again_may_be_the_reason(
    outcomes: OutcomeBuffer, store: Store
) -> None:
    store.fails = psycopg.OperationalError("the session is gone")
    outcomes.set_back(setback(1))
    for kept in (1, 1, 0):
        with pytest.raises(psycopg.OperationalError):
            await outcomes.settle(NOWHERE)
        assert len(outcomes.setbacks) == kept
    assert len(outcomes.deferred) == 1
    await outcomes.deferred.close()


async def test_a_batch_that_takes_too_long_is_written_apart_and_the_next_are_smaller(outcomes: OutcomeBuffer) -> None:
    outcomes.succeeded([success(job) for job in range(MAX_BATCH + 10)])
    batch = outcomes.batch()
    assert len(batch) == MAX_BATCH
    outcomes.defer(batch, psycopg.errors.QueryCanceled("statement timeout"))
    assert (len(outcomes.deferred), len(outcomes.successes)) == (MAX_BATCH, 10)
    outcomes.succeeded([success(1000 + job) for job in range(MAX_BATCH)])
    assert len(outcomes.batch()) == MAX_BATCH // 2
    outcomes.written(outcomes.batch(), Claimed(MAX_BATCH // 2), [])
    # They grow again.
    assert len(outcomes.batch()) == MAX_BATCH // 2 + 10
    await outcomes.deferred.close()


async def test_what_is_written_apart_counts_and_is_told(outcomes: OutcomeBuffer) -> None:
    told: list[Written] = []
    outcomes.deferred.subscribe(told.append)
    written = Written([success(1)], 1)
    for tell in outcomes.deferred._on_written:
        tell(written)
    outcomes.written_apart(written)
    assert (told, outcomes.finished, outcomes.names()) == ([written], 1, {(1, 1, 100)})


async def test_a_new_identity_begins_with_nothing(outcomes: OutcomeBuffer, store: Store) -> None:
    store.locks = {1, 2}
    outcomes.succeeded([success(1)])
    await outcomes.set_aside(NOWHERE, outcomes.batch())
    outcomes.set_back(setback(2))
    await outcomes.settle(NOWHERE)
    outcomes.succeeded([success(3)])
    outcomes.set_back(setback(4))
    outcomes.forget()
    assert (len(outcomes), outcomes.names(), waits(outcomes)) == (0, set(), False)
    # What was to come back does not.
    await asyncio.sleep(0.01)
    assert not outcomes.writable
