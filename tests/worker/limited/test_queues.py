"""When a worker claims from its limited queues: what is heard, what has ended, and a lock that another session holds."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from jobq._worker.limited.queues import LimitedQueues
from tests.support.checks import some


@dataclass
class End:
    id: int


SEEN = "1000000 5 5 2|0|0 0 0 0 0 0 0 0 0 0|"


def last(seconds: float | None = None, *, word: str | None = None) -> tuple[Any, ...]:
    """The last row of a claim."""
    return (None, None, word, "a", None if word else SEEN, None, None, None, seconds, None, False)


def limited_queues(*names: str, caps: dict[str, int] | None = None) -> LimitedQueues:
    """These queues, looked at a moment ago and found empty."""
    limited = LimitedQueues("jobq", 60.0, caps)
    limited.refresh(names)
    limited._poll_at = math.inf
    return limited


def test_a_queue_is_due_when_something_is_heard_of_it() -> None:
    limited = limited_queues("a", "b")
    assert limited.due() == []
    assert limited.hear("a")
    assert not limited.hear("c")
    assert limited.due() == ["a"]
    limited.took(limited.begin(uuid4(), "a", 5), [last()])
    assert limited.due() == []
    assert limited.due_at == math.inf
    limited.hear("a")
    limited.hear("b")
    assert sorted(limited.due()) == ["a", "b"]
    # Claimed from, and heard of again: once.
    limited.took(limited.begin(uuid4(), "a", 5), [last(0.0)])
    assert sorted(limited.due()) == ["a", "b"]
    limited.refresh(["b"])
    assert limited.due() == ["b"]


def test_new_queues_are_looked_at_together() -> None:
    limited = LimitedQueues("jobq", 60.0)

    def polls() -> bool:
        return limited.poll_due

    assert not polls()
    limited.refresh(["a", "b"])
    assert polls()
    assert limited.due() == []
    limited._poll_at = math.inf
    limited.refresh(["b", "a"])
    assert not polls()
    limited.hear_all()
    assert polls()


def test_a_claim_says_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    limited = limited_queues("a")
    limited.hear("a")
    limited.took(limited.begin(uuid4(), "a", 5), [last(2.5)])
    assert limited.due_at == 102.5
    # Heard of while the claim was under way: it may not have seen that.
    claim = limited.begin(uuid4(), "a", 5)
    limited.hear("a")
    limited.took(claim, [last(2.5)])
    assert limited.due() == ["a"]


def test_a_lock_that_is_held_is_let_alone_for_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limited = limited_queues("a")
    limited.hear("a")
    pauses = []
    for _ in range(40):
        assert limited.took(limited.begin(uuid4(), "a", 5), [last(word="locked")]).rows == ()
        # Whatever is heard meanwhile.
        limited.hear("a")
        assert limited.due() == []
        pauses.append(limited.due_at - now)
        now = limited.due_at
        assert limited.due() == ["a"]
    assert all(pause <= 0.01 for pause in some(pauses[:5]))
    assert all(0.45 < pause <= 1.0 for pause in some(pauses[-5:]))
    limited.took(limited.begin(uuid4(), "a", 5), [last()])
    limited.locked("a")
    assert limited.due_at - now <= 0.01


def test_a_claim_goes_beside_an_end_but_not_into_a_held_lock() -> None:
    limited = limited_queues("a")
    limited.held.adopt([(1, "a"), (2, "gone")])
    assert limited.queue_of([End(3), End(2)]) is None
    assert limited.queue_of([End(3), End(1)]) == "a"
    limited.locked("a")
    assert limited.queue_of([End(1)]) is None


def test_nothing_goes_through_all_queues() -> None:
    """10,000 queues, of which few have something to do: what a round asks for touches those few."""
    names = [f"q{n}" for n in range(10_000)]
    limited = limited_queues(*names)
    for name in names[:3]:
        limited.hear(name)
    looked: list[str] = []
    room = limited.held.room
    limited._schedule._room = lambda queue: looked.append(queue) or room(queue)  # type: ignore[func-returns-value]
    for _ in range(10):
        assert limited.due_at <= time.monotonic()
        assert sorted(limited.due()) == names[:3]
    assert len(looked) <= 10 * 10
    assert set(looked) <= set(names[:3])


def test_a_cap_is_room_for_what_this_worker_does_not_hold() -> None:
    limited = limited_queues("a", caps={"a": 2})
    limited.hear("a")
    limited.held.adopt([(1, "a"), (2, "a")])
    assert limited.due() == []
    assert limited.begin(uuid4(), "a", 5, ending=[End(1)])["want"] == 1
    limited.ended([End(1)])
    assert limited.due() == ["a"]
