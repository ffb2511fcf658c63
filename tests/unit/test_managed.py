"""When a worker claims from its managed queues: what is heard, what has ended, and a lock that somebody holds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from uuid import uuid4

import pytest

from jobq.worker.managed import Managed


@dataclass
class End:
    id: int


def test_a_queue_is_due_when_something_is_heard_of_it() -> None:
    managed = Managed("jobq", 60.0)
    managed.refresh(["a", "b"])
    assert sorted(managed.due()) == ["a", "b"]
    claim = managed.begin(uuid4(), "a", 5)
    managed.took(claim, [(None,) * 11])
    assert managed.due() == ["b"]
    assert managed.hear("a")
    assert not managed.hear("c")
    assert sorted(managed.due()) == ["a", "b"]


def test_a_lock_that_is_held_is_let_alone_for_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    managed = Managed("jobq", 60.0)
    managed.refresh(["a"])
    pauses = []
    for _ in range(8):
        managed.begin(uuid4(), "a", 5)
        managed.locked("a")
        # Whatever is heard meanwhile.
        managed.hear("a")
        managed.hear_all()
        assert managed.due() == []
        pauses.append(round(managed.due_at - now, 3))
        now = managed.due_at
        assert managed.due() == ["a"]
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    managed.took(managed.begin(uuid4(), "a", 5), [(None,) * 11])
    managed.locked("a")
    assert round(managed.due_at - now, 3) == 0.05


def test_a_claim_goes_beside_an_end_but_not_into_a_held_lock() -> None:
    managed = Managed("jobq", 60.0)
    managed.refresh(["a"])
    managed.adopt([(1, "a"), (2, "gone")])
    assert managed.queue_of([End(3), End(2)]) is None
    assert managed.queue_of([End(3), End(1)]) == "a"
    managed.locked("a")
    assert managed.queue_of([End(1)]) is None


def test_a_cap_is_room_for_what_this_worker_does_not_hold() -> None:
    managed = Managed("jobq", 60.0, {"a": 2})
    managed.refresh(["a"])
    managed.adopt([(1, "a"), (2, "a")])
    assert managed.due() == []
    assert managed.begin(uuid4(), "a", 5, ending=[End(1)])["want"] == 1
    managed.ended([End(1)])
    assert managed.due() == ["a"]
