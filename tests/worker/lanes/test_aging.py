"""Priorities that grow with waiting: the order of a queue's lanes, without a database."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobq._worker.lanes import aging as module
from jobq._worker.lanes.aging import Aging
from jobq._worker.lanes.cursor import ClaimPlan, ClaimSnapshot, everything
from jobq._worker.lanes.lanes import Lanes
from jobq._worker.queue_spec import QueueOrder
from tests.support.checks import some

SECOND = 1_000_000
NOW = 1_000_000 * SECOND
Ages = dict[tuple[str, int], float]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def look(aging: Aging, monkeypatch: pytest.MonkeyPatch, ages: Ages, queues: list[str]) -> None:
    """Let `aging` see lanes whose first jobs have these ages, in seconds; a negative one is still to come."""

    async def fetch(connection: Any, schema: str, name: str, /, **parameters: Any) -> list[tuple[Any, ...]]:
        assert name == "due_lane_heads"
        lanes = list(zip(scan.queues, scan.priorities, strict=True))
        heads = [
            (lanes.index(lane), 1, NOW - round(age * SECOND), -age, None, None, None) for lane, age in ages.items()
        ]
        return [(None, 7, NOW, None, 1, 1, 1), *heads]

    scan = everything(Lanes(tuple(queues)).arrays())
    monkeypatch.setattr(module, "fetch", fetch)
    asyncio.run(aging.look(None, "jobq", scan))  # type: ignore[arg-type]


def is_due(aging: Aging) -> bool:
    """Ask again: a type checker takes a property for what it was."""
    return aging.due


def cut(scan: ClaimPlan, place: int, age: float, at: int = NOW) -> ClaimSnapshot:
    return ClaimSnapshot(
        at=at, xmin=1, following=1, cut=place, last=(at - round(age * SECOND), 1), counts=((place, 1),)
    )


def test_a_job_goes_before_a_higher_one_when_it_has_waited_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    aging = Aging(10.0)
    look(aging, monkeypatch, {("q", 9): 0, ("q", 0): 89.9}, ["q"])
    assert aging.order(["q"])["q"][:2] == [9, 0]
    look(aging, monkeypatch, {("q", 9): 0, ("q", 0): 90.1}, ["q"])
    assert aging.order(["q"])["q"][:2] == [0, 9]
    look(aging, monkeypatch, {("q", 9): 1, ("q", 0): 90.1}, ["q"])
    assert aging.order(["q"])["q"][:2] == [9, 0]


@given(st.dictionaries(st.integers(0, 9), st.integers(0, 10_000), min_size=1), st.integers(1, 100))
def test_the_order_is_that_of_priority_and_age(ages: dict[int, int], seconds: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        aging = Aging(float(seconds))
        look(aging, monkeypatch, {("q", priority): age for priority, age in ages.items()}, ["q"])
        order = aging.order(["q"])["q"]
    assert sorted(order) == [*range(10)]
    values = [priority * seconds + ages.get(priority, 0) for priority in order]
    assert values == sorted(values, reverse=True)
    # Of equals the higher priority.
    for (first, value), (second, other) in some(
        zip(zip(order, values, strict=True), zip(order[1:], values[1:], strict=True), strict=False)
    ):
        assert value > other or first > second


def test_jobs_that_are_still_to_come_do_not_age(monkeypatch: pytest.MonkeyPatch) -> None:
    aging = Aging(1.0)
    look(aging, monkeypatch, {("q", 0): -100}, ["q"])
    assert aging.order(["q"]) == {}


def test_a_claim_tells_how_far_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """One old job before many young ones must not take all of them along, claim after claim."""
    aging = Aging(10.0)
    look(aging, monkeypatch, {("q", 9): 5, ("q", 0): 200}, ["q"])
    scan = everything((["q"] * 10, aging.order(["q"])["q"]))
    assert scan.priorities[:2] == [0, 9]
    aging.claimed(scan, cut(scan, 0, age=30))
    assert aging.order(["q"])["q"][:2] == [9, 8]
    # What lies before the cut was read to its end.
    aging = Aging(10.0)
    look(aging, monkeypatch, {("q", 9): 5, ("q", 0): 200}, ["q"])
    aging.claimed(scan, cut(scan, 1, age=4))
    assert aging.order(["q"])["q"] == [*range(9, -1, -1)]
    assert 0 not in aging._heads["q"]


def test_it_looks_four_times_in_its_time_and_only_while_claims_leave_something(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    aging = Aging(40.0, clock)
    assert is_due(aging)
    look(aging, monkeypatch, {("q", 0): 5}, ["q"])
    clock.now += 9.9
    assert not is_due(aging)
    clock.now += 0.2
    assert is_due(aging)
    scan = everything(Lanes(("q",)).arrays())
    aging.claimed(scan, cut(scan, 0, age=0))
    assert is_due(aging)
    aging.claimed(scan, ClaimSnapshot(at=NOW, xmin=1, following=1))
    assert not is_due(aging)
    assert aging.order(["q"]) == {}
    # However short: at most four times a second.
    quick = Aging(0.001, clock)
    look(quick, monkeypatch, {}, ["q"])
    clock.now += 0.2
    assert not is_due(quick)
    clock.now += 0.1
    assert is_due(quick)


def test_looks_that_take_long_are_made_seldom(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    aging = Aging(1.0, clock)

    async def slow(connection: Any, schema: str, name: str, /, **parameters: Any) -> list[tuple[Any, ...]]:
        clock.now += 2.0
        return [(None, 7, NOW, None, 1, 1, 1)]

    monkeypatch.setattr(module, "fetch", slow)
    asyncio.run(aging.look(None, "jobq", everything(Lanes(("q",)).arrays())))  # type: ignore[arg-type]
    clock.now += 39.0
    assert not is_due(aging)
    clock.now += 1.1
    assert is_due(aging)


@pytest.mark.parametrize("order", list(QueueOrder))
def test_aging_takes_no_other_queues_turn(monkeypatch: pytest.MonkeyPatch, order: QueueOrder) -> None:
    """One queue's old jobs change places with its own: the lanes of the other stand where they stood."""
    plain, aging = Lanes(("a", "b"), order=order), Aging(1.0)
    aged = Lanes(("a", "b"), order=order, aging=aging)
    look(aging, monkeypatch, {("a", 0): 1_000, ("a", 9): 1}, ["a", "b"])
    before, after = plain.arrays(), aged.arrays()
    assert before[0] == after[0]
    assert [p for q, p in zip(*after, strict=True) if q == "b"] == [*range(9, -1, -1)]
    assert [p for q, p in zip(*after, strict=True) if q == "a"] == [0, *range(9, 0, -1)]
