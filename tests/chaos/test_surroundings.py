"""A worker's surroundings: the reader of its log, others that get its signals, and a killed worker beside a backlog."""

from __future__ import annotations

from tests.chaos.scene.harness import Arena
from tests.chaos.scene.history import Limits
from tests.support.waiting import wait_until


def test_the_log_is_not_read(arena: Arena) -> None:
    """A log collector that hangs: the pipe is full soon, and the worker works on, and ends when it is told to."""
    silent = arena.start_worker("--log-level", "debug", unread=True)
    arena.produce(arena.size(100), 30 if arena.long else 4)
    rounds = 0

    def strike() -> None:
        nonlocal rounds
        rounds += 1
        arena.place(f"noisy-{rounds}", [["log:100000", "ok"], ["log:2000000", "ok"], ["error", "ok"]])

    arena.torment(strike, every=(0.2, 0.5))
    arena.finish(timeout=60, limits=Limits(blameless=True))
    assert silent.wait() == 0


def test_tasks_signal_their_process_group(arena: Arena) -> None:
    """That reaches their own runner and no other process: the worker goes on, and each job ends in the end."""
    working = [arena.start_worker() for _ in range(2)]
    arena.produce(arena.size(100), 30 if arena.long else 5)
    rounds = 0

    def strike() -> None:
        nonlocal rounds
        rounds += 1
        number = arena.random.choice((1, 2, 9, 15))
        arena.fault("killpg", number=number)
        arena.place(f"group-{rounds}", [[f"group:{number}", "ok"]])

    arena.torment(strike, every=(0.4, 1.0))
    assert all(worker.is_running() for worker in working), [worker.log[-500:] for worker in working]
    arena.finish(timeout=60, limits=Limits(max_losses=0))


def test_what_a_killed_worker_held_is_first_in_line(arena: Arena) -> None:
    """kill -9 with a backlog: what the worker held runs again before what was enqueued behind it."""
    options = ("--concurrency", "4", "--processes", "1")
    working = [arena.start_worker(*options) for _ in range(2)]
    for number in range(5 if arena.long else 1):
        # More than can be done until the dead worker's jobs are taken back.
        jobs = arena.place(f"line-{number}", [["sleep:0.15"]] * 300, line=True)
        wait_until(lambda jobs=jobs: len(arena.started(jobs)) > 30, what="the first of the line")  # type: ignore[misc]
        arena.kill_dispatcher(working[0])
        wait_until(lambda: not arena.waiting(), timeout=60, what="the end of the line")
        working[0] = arena.start_worker(*options)
    # The other has four at work, and has claimed the next.
    arena.finish(limits=Limits(ahead=12))
