"""Jobs that wait for their batch: with a clock of the test's own, so nothing here waits."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any, cast
from uuid import uuid4

from jobq._worker.ipc.messages import Job
from jobq._worker.runner.batch_queue import BatchKey, BatchQueue, BatchSettings, BatchTicket, LingerThread, QueuedItem
from jobq._worker.runner.local_queue import QueuedJob
from tests.support.waiting import wait_until

WORKER = uuid4()


def item(number: int, task: str = "index", *, at: float = 100.0, **changes: Any) -> QueuedItem:
    values: dict[str, Any] = {"attempt": 1, "max_attempts": 10, "crashes": 0, "timeout": None, **changes}
    job = Job(number, 1, task, "default", b"{}", headers=b"{}", **values)
    return QueuedItem(number, number, WORKER, job, at)


def queue(size: int = 3, linger: float = 0.5) -> BatchQueue:
    return BatchQueue({"index": BatchSettings(size, linger), "other": BatchSettings(10, 2.0)})


def keys(tickets: list[QueuedJob]) -> list[BatchKey]:
    assert all(serial == 0 for serial, _, _ in tickets)
    return [cast(BatchTicket, ticket).key for _, _, ticket in tickets]


def taken(waiting: BatchQueue, tickets: list[QueuedJob]) -> list[list[int]]:
    return [[each.serial for each in waiting.take(key)] for key in keys(tickets)]


def test_a_full_batch_is_ready_at_once() -> None:
    waiting = queue()
    assert waiting.put([item(1), item(2)]) == []
    tickets = waiting.put([item(3)])
    assert taken(waiting, tickets) == [[1, 2, 3]]
    assert waiting.expire(1e9) == ([], None)


def test_many_jobs_at_once_are_many_batches_and_a_rest_that_waits() -> None:
    waiting = queue()
    tickets = waiting.put([item(number) for number in range(1, 9)])
    assert taken(waiting, tickets) == [[1, 2, 3], [4, 5, 6]]
    assert waiting.expire(100.4) == ([], 100.5)
    late, upcoming = waiting.expire(100.5)
    assert (taken(waiting, late), upcoming) == ([[7, 8]], None)


def test_the_first_job_decides_how_long_they_wait() -> None:
    waiting = queue()
    waiting.put([item(1, at=100.0)])
    waiting.put([item(2, at=100.4)])
    assert waiting.expire(100.49) == ([], 100.5)
    tickets, _ = waiting.expire(100.5)
    assert taken(waiting, tickets) == [[1, 2]]


def test_jobs_that_arrive_before_the_ticket_is_taken_join_the_batch() -> None:
    waiting = queue()
    waiting.put([item(1)])
    tickets, _ = waiting.expire(101.0)
    # All slots are busy. The second ticket is due when there are more than one batch holds.
    assert waiting.put([item(2, at=101.1)]) == []
    assert waiting.expire(200.0) == ([], None)
    assert waiting.put([item(3, at=101.2), item(4, at=101.3)]) == []
    assert waiting.expire(101.3) == ([], 101.8)
    assert taken(waiting, tickets) == [[1, 2, 3]]
    rest, _ = waiting.expire(101.8)
    assert taken(waiting, rest) == [[4]]


def test_without_linger_a_job_starts_at_once_and_takes_what_is_there() -> None:
    waiting = queue(linger=0.0)
    tickets = waiting.put([item(1), item(2), item(3), item(4)])
    assert taken(waiting, tickets) == [[1, 2, 3], [4]]


def test_jobs_share_a_batch_only_if_task_timeout_and_limit_are_the_same() -> None:
    waiting = queue(size=8)
    waiting.put([item(1), item(2, timeout=5.0), item(3, "other"), item(4, attempt=2), item(5)])
    tickets, _ = waiting.expire(1e9)
    assert sorted(taken(waiting, tickets)) == [[1, 5], [2], [3], [4]]
    assert {key.limit for key in keys(tickets)} == {8, 4, 10}


def test_a_job_that_runs_alone_does_not_wait() -> None:
    waiting = queue()
    tickets = waiting.put([item(1, crashes=1), item(2, attempt=10), item(3)])
    assert taken(waiting, tickets) == [[1], [2]]
    assert waiting.expire(100.0)[1] == 100.5


def test_a_job_of_a_task_that_is_no_batch_task_here_runs_alone() -> None:
    """The dispatcher may know newer code than this runner."""
    waiting = queue()
    tickets = waiting.put([item(1, "new"), item(2, "new")])
    assert taken(waiting, tickets) == [[1], [2]]


def test_a_batch_that_grows_after_its_ticket_was_issued_gets_no_second_one() -> None:
    waiting = queue()
    assert waiting.put([item(1)]) == []
    early, _ = waiting.expire(100.5)
    full = waiting.put([item(number, at=101.0) for number in (2, 3, 4)])
    assert full == []
    assert taken(waiting, early) == [[1, 2, 3]]
    late, _ = waiting.expire(101.5)
    assert taken(waiting, late) == [[4]]


def test_the_thread_issues_what_is_due() -> None:
    waiting = queue(size=1000, linger=0.01)
    issued: list[QueuedJob] = []
    thread = LingerThread(waiting, issued.extend)
    threading.Thread(target=thread.serve, daemon=True).start()
    for number in range(1, 4):
        now = monotonic()
        waiting.put([item(number, at=now)])
        thread.added(now)
        wait_until(lambda: issued, what="the ticket")
        assert taken(waiting, [issued.pop()]) == [[number]]


def test_the_thread_is_not_woken_for_jobs_that_follow_others() -> None:
    thread = LingerThread(queue(linger=0.5), lambda tickets: None)
    thread._wakes_at = 100.4
    thread.added(100.0)
    assert not thread._added.is_set()
    thread.added(99.0)
    assert thread._added.is_set()
