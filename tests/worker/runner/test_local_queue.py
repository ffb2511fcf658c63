"""A runner's local queue: who comes for a job, driven step by step, and by many threads at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest

from jobq._worker.ipc.messages import Job
from jobq._worker.runner.local_queue import LocalQueue, QueuedJob
from tests.support.waiting import wait_until

WORKER = uuid4()
PATIENCE = 30.0


def given(number: int, task: str = "sync") -> QueuedJob:
    return number, WORKER, Job(number, 1, task, "default", b"{}", 1, 1, 0, None, b"{}")


class Queue:
    """A local queue, what it had the event loop begin, and how often it flushed."""

    def __init__(self, slots: int) -> None:
        self.driven: list[tuple[int, QueuedJob]] = []
        self.flushes = 0
        self.stock = LocalQueue(slots, on_loop={"async"}, drive=self.driven.extend, flush=self._flush)

    def _flush(self) -> None:
        self.flushes += 1


class Taker:
    """The thread of a slot: takes one job after the other, each when it is told to."""

    def __init__(self, stock: LocalQueue, slot: int) -> None:
        self.taken: list[int] = []
        self._go = threading.Semaphore(0)
        self._stock, self._slot = stock, slot
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            self._go.acquire()
            serial, _, _ = self._stock.take(self._slot)
            self.taken.append(serial)

    def take(self) -> None:
        self._go.release()


def test_jobs_are_taken_in_order() -> None:
    queue = Queue(1)
    queue.stock.put([given(1), given(2), given(3)])
    assert len(queue.stock) == 3
    assert [queue.stock.take(0)[0] for _ in range(3)] == [1, 2, 3]
    assert (len(queue.stock), queue.flushes) == (0, 0)


def test_a_slot_that_finds_nothing_flushes_and_is_called_for_the_next_job() -> None:
    queue = Queue(1)
    taker = Taker(queue.stock, 0)
    taker.take()
    wait_until(lambda: queue.flushes == 1, what="the flush before it sleeps")
    queue.stock.put([given(1)])
    wait_until(lambda: taker.taken == [1], what="the job")
    # Others leave their outcomes to the one that is on its way.
    assert queue.flushes == 2
    assert not queue.stock.called


def test_jobs_that_wait_bring_all_slots_to_work() -> None:
    """Each thread that takes one while others wait calls the next."""
    queue = Queue(3)
    takers = [Taker(queue.stock, slot) for slot in range(3)]
    for taker in takers:
        taker.take()
    wait_until(lambda: queue.flushes == 3, what="all asleep")
    queue.stock.put([given(1)])
    wait_until(lambda: sum(len(taker.taken) for taker in takers) == 1, what="the first")
    queue.stock.put([given(2), given(3)])
    wait_until(
        lambda: sorted(serial for taker in takers for serial in taker.taken) == [1, 2, 3], what="all slots at work"
    )


def test_jobs_of_async_tasks_begin_on_the_loop_each_in_an_idle_slot() -> None:
    queue = Queue(2)
    takers = [Taker(queue.stock, slot) for slot in range(2)]
    for taker in takers:
        taker.take()
    wait_until(lambda: queue.flushes == 2, what="all asleep")
    queue.stock.put([given(1, "async"), given(2, "async"), given(3, "async")])
    assert [serial for _, (serial, _, _) in queue.driven] == [1, 2]
    assert {slot for slot, _ in queue.driven} == {0, 1}
    assert len(queue.stock) == 1
    # The loop goes on in a slot that is its own, with the next job of its kind.
    following = queue.stock.after(queue.driven[0][0])
    assert following is not None
    assert following[0] == 3
    assert queue.stock.after(queue.driven[0][0]) is None


def test_the_loop_hands_a_slot_back_to_its_thread_for_a_plain_job() -> None:
    queue = Queue(1)
    taker = Taker(queue.stock, 0)
    taker.take()
    wait_until(lambda: queue.flushes == 1, what="it sleeps")
    queue.stock.put([given(1, "async"), given(2)])
    assert [serial for _, (serial, _, _) in queue.driven] == [1]
    assert queue.stock.after(0) is None
    wait_until(lambda: taker.taken == [2], what="the thread's job")


def test_a_thread_that_takes_an_async_job_leaves_it_to_the_loop_and_waits() -> None:
    queue = Queue(1)
    queue.stock.put([given(1, "async")])
    taker = Taker(queue.stock, 0)
    taker.take()
    wait_until(lambda: queue.driven, what="the loop's turn")
    assert queue.driven == [(0, given(1, "async"))]
    queue.stock.put([given(2)])
    # The slot is the loop's until it has nothing more for it.
    assert taker.taken == []
    assert queue.stock.after(0) is None
    wait_until(lambda: taker.taken == [2], what="its own job")


@pytest.mark.parametrize("slots", [1, 4])
def test_each_job_is_taken_once_whoever_comes_for_it(slots: int) -> None:
    """Threads take plain jobs; a loop of its own drives async ones. None is lost, and none is taken twice."""
    most = 4000
    taken: list[int] = []
    begun: list[tuple[int, QueuedJob]] = []
    wake = threading.Semaphore(0)

    def drive(driven: list[tuple[int, QueuedJob]]) -> None:
        begun.extend(driven)
        for _ in driven:
            wake.release()

    stock = LocalQueue(slots, on_loop={"async"}, drive=drive, flush=lambda: None)

    def slot_thread(slot: int) -> None:
        while True:
            taken.append(stock.take(slot)[0])

    def loop() -> None:
        while True:
            wake.acquire()
            slot, job = begun.pop(0)
            following: QueuedJob | None = job
            while following is not None:
                taken.append(following[0])
                following = stock.after(slot)

    targets: list[tuple[Callable[..., None], tuple[int, ...]]] = [(slot_thread, (slot,)) for slot in range(slots)]
    for target, args in [*targets, (loop, ())]:
        threading.Thread(target=target, args=args, daemon=True).start()
    for first in range(0, most, 40):
        stock.put([given(n, "async" if n % 3 == 0 else "sync") for n in range(first, first + 40)])
    wait_until(lambda: len(taken) >= most, timeout=PATIENCE, what="every job")
    assert Counter(taken) == Counter(range(most))
    assert len(stock) == 0


def test_a_forked_process_does_not_get_its_parents_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []

    def end(status: int) -> None:
        ended.append(status)
        raise SystemExit(status)

    monkeypatch.setattr("os._exit", end)
    queue = Queue(1)
    queue.stock.put([given(1)])
    queue.stock.abandon()
    with pytest.raises(SystemExit):
        queue.stock.take(0)
    assert ended == [1]


def test_the_claim_a_job_came_with_stays_with_it() -> None:
    queue, other = Queue(1), UUID(int=7)
    queue.stock.put([(5, other, given(5)[2])])
    assert queue.stock.take(0)[:2] == (5, other)
