"""When a worker claims from its managed queues: what is heard, what has ended, and a lock that another session holds."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from jobq.worker.managed import Managed


@dataclass
class End:
    id: int


SEEN = "1000000 5 5 2|0|0 0 0 0 0 0 0 0 0 0|"


def last(seconds: float | None = None, *, word: str | None = None) -> tuple[Any, ...]:
    """The last row of a claim."""
    return (None, None, word, "a", None if word else SEEN, None, None, None, seconds, None, False)


def managed_queues(*names: str, caps: dict[str, int] | None = None) -> Managed:
    """These queues, looked at a moment ago and found empty."""
    managed = Managed("jobq", 60.0, caps)
    managed.refresh(names)
    managed._poll_at = math.inf
    return managed


def test_a_queue_is_due_when_something_is_heard_of_it() -> None:
    managed = managed_queues("a", "b")
    assert managed.due() == []
    assert managed.hear("a")
    assert not managed.hear("c")
    assert managed.due() == ["a"]
    managed.took(managed.begin(uuid4(), "a", 5), [last()])
    assert managed.due() == []
    assert managed.due_at == math.inf
    managed.hear("a")
    managed.hear("b")
    assert sorted(managed.due()) == ["a", "b"]
    # Claimed from, and heard of again: once.
    managed.took(managed.begin(uuid4(), "a", 5), [last(0.0)])
    assert sorted(managed.due()) == ["a", "b"]
    managed.refresh(["b"])
    assert managed.due() == ["b"]


def test_new_queues_are_looked_at_together() -> None:
    managed = Managed("jobq", 60.0)

    def polls() -> bool:
        return managed.poll_due

    assert not polls()
    managed.refresh(["a", "b"])
    assert polls()
    assert managed.due() == []
    managed._poll_at = math.inf
    managed.refresh(["b", "a"])
    assert not polls()
    managed.hear_all()
    assert polls()


def test_a_claim_says_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    managed = managed_queues("a")
    managed.hear("a")
    managed.took(managed.begin(uuid4(), "a", 5), [last(2.5)])
    assert managed.due_at == 102.5
    # Heard of while the claim was under way: it may not have seen that.
    claim = managed.begin(uuid4(), "a", 5)
    managed.hear("a")
    managed.took(claim, [last(2.5)])
    assert managed.due() == ["a"]


def test_a_lock_that_is_held_is_let_alone_for_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    managed = managed_queues("a")
    managed.hear("a")
    pauses = []
    for _ in range(40):
        assert managed.took(managed.begin(uuid4(), "a", 5), [last(word="locked")]).rows == ()
        # Whatever is heard meanwhile.
        managed.hear("a")
        assert managed.due() == []
        pauses.append(managed.due_at - now)
        now = managed.due_at
        assert managed.due() == ["a"]
    assert all(pause <= 0.01 for pause in pauses[:5])
    assert all(0.45 < pause <= 1.0 for pause in pauses[-5:])
    managed.took(managed.begin(uuid4(), "a", 5), [last()])
    managed.locked("a")
    assert managed.due_at - now <= 0.01


def test_a_claim_goes_beside_an_end_but_not_into_a_held_lock() -> None:
    managed = managed_queues("a")
    managed.adopt([(1, "a"), (2, "gone")])
    assert managed.queue_of([End(3), End(2)]) is None
    assert managed.queue_of([End(3), End(1)]) == "a"
    managed.locked("a")
    assert managed.queue_of([End(1)]) is None


def test_nothing_goes_through_all_queues() -> None:
    """10,000 queues, of which few have something to do: what a round asks for touches those few."""
    names = [f"q{n}" for n in range(10_000)]
    managed = managed_queues(*names)
    for name in names[:3]:
        managed.hear(name)
    looked: list[str] = []
    room = managed.room
    managed.room = lambda queue: looked.append(queue) or room(queue)  # type: ignore[method-assign,func-returns-value]
    for _ in range(10):
        assert managed.due_at <= time.monotonic()
        assert sorted(managed.due()) == names[:3]
    assert len(looked) <= 10 * 10
    assert set(looked) <= set(names[:3])


def test_a_cap_is_room_for_what_this_worker_does_not_hold() -> None:
    managed = managed_queues("a", caps={"a": 2})
    managed.hear("a")
    managed.adopt([(1, "a"), (2, "a")])
    assert managed.due() == []
    assert managed.begin(uuid4(), "a", 5, ending=[End(1)])["want"] == 1
    managed.ended([End(1)])
    assert managed.due() == ["a"]
