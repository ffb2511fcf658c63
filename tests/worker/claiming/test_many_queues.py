"""Ten thousand queues: what is heard, claimed, woken and read costs what has changed, however many lanes there are.

Work is counted in steps of Python (calls and lines), not in time.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

import pytest

from jobq._worker.lanes.cursor import ClaimSnapshot, Cursor
from jobq._worker.lanes.lanes import MOST_HEARD, MOST_LANES, Lanes
from jobq._worker.lanes.live_lanes import STEP, WARM_FOR, WARM_LEAST, LiveLanes
from jobq._worker.queue_spec import QueueOrder
from jobq._worker.wakeup.lane_rotation import LOOK, LaneRotation
from jobq._worker.wakeup.policy import LaneHead, WakeupTargets
from tests.support.checks import some

MANY = 10_000
SECOND = 1_000_000
# Steps that one queue or one lane may cost; a pass over 10,000 is far beyond all that is allowed below.
EACH = 60


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def steps() -> Iterator[Callable[[], int]]:
    """Count the lines of our code that are executed, those of comprehensions each time round."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if "/jobq/" not in frame.f_code.co_filename:
            return None
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lambda: count
    finally:
        sys.settrace(before)


def filled(order: QueueOrder = QueueOrder.PRIORITY) -> Lanes:
    """Return lanes of which 10,000 have due jobs."""
    named = tuple(f"q{n}" for n in range(MANY)) if order is QueueOrder.STRICT else None
    lanes = Lanes(named, order=order)
    for n in range(MANY):
        lanes.found(f"q{n}", n % 10, 0)
    lanes.arrays()
    return lanes


@pytest.mark.parametrize("order", list(QueueOrder))
def test_a_word_of_a_job_costs_the_same_however_many_queues_there_are(order: QueueOrder) -> None:
    lanes = filled(order)
    with steps() as counted:
        for n in range(MANY):
            lanes.hear(f"q{n}")
    assert counted() <= EACH * MANY
    assert lanes.many
    # What is kept of single words is bounded, and so is what the next claim has to do for them.
    with steps() as counted:
        lanes.arrays()
    assert counted() <= EACH * (MOST_HEARD * 10 + 4 * MOST_LANES)


@pytest.mark.parametrize("order", list(QueueOrder))
def test_a_claim_takes_a_bounded_number_of_lanes(order: QueueOrder) -> None:
    lanes, cursor = filled(order), Cursor()
    seen: set[str] = set()
    worst = turn = 0
    while lanes.more:
        with steps() if turn < 4 else nullcontext(lambda: 0) as counted:
            scan = cursor.plan(*lanes.arrays(warm=64))
            # Of a queue that comes last with some of its lanes, all come.
            assert len(scan.queues) <= MOST_LANES + 9 + 64
            turn += 1
            at = turn * SECOND
            sight = ClaimSnapshot(
                at=at,
                xmin=1,
                following=1,
                counts=tuple((place, 1) for place in range(min(MOST_LANES, len(scan.queues)))),
            )
            cursor.read(scan, sight)
            lanes.claimed(scan, sight)
        worst = max(worst, counted())
        seen.update(scan.queues)
    assert worst <= EACH * 4 * MOST_LANES
    assert len(seen) == MANY
    assert turn <= 2 * (MANY + 10 * MOST_HEARD) // MOST_LANES


def test_high_priorities_come_first_over_ten_thousand_queues() -> None:
    lanes = filled()
    assert set(lanes.arrays()[1]) == {9}


def test_queues_beyond_one_claim_have_their_shares() -> None:
    """More queues than a claim looks at, of three weights: all are served, by weight, none before its turn."""
    weights = {f"q{n}": 1 + n % 3 for n in range(60)}
    lanes = Lanes(None, order=QueueOrder.SHARES, weights=weights)
    total = dict.fromkeys(weights, 0)
    for queue in weights:
        lanes.found(queue, 5, 0)
    for turn in range(6 * 120):
        scan = Cursor().plan(*lanes.arrays(8))
        sight = ClaimSnapshot(at=turn + 1, xmin=1, following=1, cut=0, last=(1, 1), counts=((0, 1),))
        lanes.claimed(scan, sight)
        total[scan.queues[0]] += 1
    for queue, weight in weights.items():
        assert abs(total[queue] - 6 * weight) <= weight + 1


def test_aging_reaches_a_lane_that_no_claim_comes_to() -> None:
    """More than a claim looks at have a high priority: one of the lowest has its turn all the same."""
    from jobq._worker.lanes.aging import Aging

    lanes = Lanes(None, aging=Aging(1.0))
    for n in range(2 * MOST_LANES):
        lanes.found(f"q{n}", 9, 0)
    lanes.found("low", 0, 0)
    for turn in range(20):
        scan = Cursor().plan(*lanes.arrays())
        lanes.claimed(scan, ClaimSnapshot(at=turn + 1, xmin=1, following=1, cut=0, last=(1, 1), counts=((0, 1),)))
        if ("low", 0) in set(zip(scan.queues, scan.priorities, strict=True)):
            return
    pytest.fail("no claim has looked at it")


def test_lanes_that_sleep_are_woken_by_and_by() -> None:
    clock = Clock()
    live = LiveLanes(clock)
    for n in range(MANY):
        live.sleep((f"q{n}", 5), 60.0)
    with steps() as counted:
        for n in range(100):
            live.sleep((f"q{n}", 5), 30.0)
            assert live.alarm_at == clock.now + 30.0
    assert counted() <= EACH * 100
    clock.now += 61.0
    with steps() as counted:
        assert len(live.awake()) == STEP
    assert counted() <= EACH * STEP


def test_nothing_is_left_of_queues_that_have_gone() -> None:
    """Each customer's queue has a job now and then, and another name each time."""
    clock = Clock()
    lanes, cursor = Lanes(None, live=LiveLanes(clock)), Cursor(clock)
    sizes = []
    for generation in range(8):
        for n in range(MANY // 10):
            lanes.found(f"g{generation}-{n}", 5, 0)
        while lanes.more or lanes.unread:
            scan = cursor.plan(*lanes.arrays(warm=64))
            counts = tuple((place, 1) for place, queue in enumerate(scan.queues) if lanes.live.hot(queue))
            sight = ClaimSnapshot(at=int(clock.now * SECOND), xmin=1, following=1, counts=counts)
            cursor.read(scan, sight)
            lanes.claimed(scan, sight)
            for lane in lanes.to_look_up():
                lanes.looked_up(lane, None)
        clock.now += WARM_FOR + 1
        lanes.live.cool()
        cursor.keep(lanes.live.__contains__, cursor.floor)
        gc.collect()
        sizes.append((len(lanes.live), len(cursor), len(lanes._line) + len(lanes._shares._advanced)))
    assert max(live for live, *_ in sizes[1:]) <= 2 * WARM_LEAST
    assert max(lanes for _, lanes, _ in sizes[1:]) <= 2 * WARM_LEAST
    assert max(line for *_, line in sizes[1:]) <= 2 * MOST_LANES


def test_the_lead_poller_looks_at_a_bounded_number_of_lanes_and_at_each_in_turn() -> None:
    clock = Clock()
    rota = LaneRotation(clock)
    for n in range(MANY):
        rota.seen((f"q{n}", 5))
    seen: set[tuple[str, int]] = set()
    for _ in some(range(MANY // LOOK + 3)):
        with steps() as counted:
            seen.update(rota.next())
        assert counted() <= EACH * LOOK
    assert {(f"q{n}", 5) for n in range(MANY)} <= seen
    clock.now += 61.0
    for _ in range(MANY // LOOK + 3):
        rota.next()
    assert len(rota) == 0


def test_the_lead_poller_looks_at_all_priorities_of_few_queues() -> None:
    rota = LaneRotation()
    for n in range(LOOK // 10):
        rota.name(f"q{n}")
    assert len(rota.next()) == len(rota) == LOOK // 10 * 10
    assert rota.next() == rota.next()


def test_calls_forget_the_lanes_that_have_no_job_any_more() -> None:
    calls = WakeupTargets()
    for turn in range(20):
        lanes = [(f"t{turn}-{n}", 5) for n in range(LOOK)]
        heads = [LaneHead(lane=lane, id=n, seconds=-1.0) for n, lane in enumerate(lanes)]
        assert len(calls.look(lanes, heads, arrived=True, take=lambda _: False)) == LOOK
        assert len(calls) == LOOK
        # Other lanes were not looked at: what is known of these stays.
        calls.look([("other", 5)], [], arrived=False, take=lambda _: False)
        assert len(calls) == LOOK
        calls.look(lanes, [], arrived=False, take=lambda _: False)
        assert len(calls) == 0


def test_a_locked_head_is_looked_at_ever_more_seldom() -> None:
    clock = Clock()
    live, lane = LiveLanes(clock), ("q", 5)
    pauses = []
    for _ in range(12):
        live.heat(*lane)
        live.ended(lane, live.stamp, brought=False)
        assert live.to_look_up() == [lane]
        assert not live.looked_up(lane, -1.0)
        pauses.append(live.alarm_at - clock.now)
        clock.now = live.alarm_at
        assert live.awake() == [lane]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 0.01
    assert pauses[-1] == 1.0


def test_a_word_that_comes_while_the_lane_is_read_is_not_lost() -> None:
    live, lane = LiveLanes(), ("q", 5)
    live.heat(*lane)
    planned = live.stamp
    live.heat(*lane)
    live.ended(lane, planned, brought=False)
    assert live.is_hot(*lane)
    live.ended(lane, live.stamp, brought=False)
    assert not live.is_hot(*lane)
    # While its first job is being looked up.
    live.heat(*lane)
    assert not live.looked_up(lane, None)
    assert live.is_hot(*lane)
