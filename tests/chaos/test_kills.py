"""kill -9, SIGSTOP and SIGTERM of dispatchers and runners under load."""

from __future__ import annotations

import signal

import pytest

from tests.chaos.scene.harness import Arena, children, signal_all
from tests.chaos.scene.history import Limits
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess


@pytest.mark.parametrize("victim", ["dispatcher", "runner", "both"])
def test_kill_9(arena: Arena, victim: str) -> None:
    """The worker that is left, or the one that is started instead, takes over."""
    working = [arena.start_worker() for _ in range(2)]
    arena.produce(arena.size(150), 40 if arena.long else 5)

    def kill() -> None:
        index = arena.random.randrange(2)
        worker = working[index]
        if victim in ("runner", "both"):
            arena.kill_runner(worker)
        if victim in ("dispatcher", "both"):
            arena.kill_dispatcher(worker)
            working[index] = arena.start_worker()

    arena.torment(kill, every=(1.0, 2.0))
    arena.finish(limits=Limits(max_losses=10 if victim != "runner" else 0))


@pytest.mark.parametrize("what", ["dispatcher", "everything"])
def test_frozen_for_longer_than_its_lease(arena: Arena, what: str) -> None:
    """A process that is stopped believes on waking that no time has passed; the others have taken its jobs meanwhile.

    Everything at once is a machine that is suspended. What it was executing goes on for the moment until its runners have
    looked at the clock, beside the next execution: that cannot be helped. But they must not begin anything more.
    """
    working = [arena.start_worker() for _ in range(2)]
    arena.produce(arena.size(150), 40 if arena.long else 6)
    asleep: set[int] = set()
    frozen: list[WorkerProcess] = []

    def freeze() -> None:
        worker = arena.random.choice(working)
        runners = children(worker.pid) if what == "everything" else []
        asleep.update(runners)
        pids = [worker.pid, *runners]
        # Some last beyond the lease of 4 s: without a dispatcher that vouches for them, their runner must end them.
        arena.place(f"long-{len(frozen)}", [["stubborn:5"]] * 6)
        arena.pause(0.3, 0.5)
        arena.fault("SIGSTOP", pids=pids)
        signal_all(pids, signal.SIGSTOP)
        frozen.append(worker)
        # Longer than the lease, for its lock is held all the while.
        arena.pause(4.5, 6.0)
        signal_all(pids, signal.SIGCONT)
        arena.fault("SIGCONT", pids=pids)

    arena.torment(freeze, every=(0.5, 1.5), most=1)
    arena.finish(limits=Limits(asleep=frozenset(asleep)))
    assert any("the lease is lost" in worker.log for worker in working), "no worker was frozen for long enough"


def test_a_suspended_machine_with_jobs_in_stock(arena: Arena) -> None:
    """Jobs of no length: hundreds lie in the runner when its machine is suspended, all done by others when it wakes."""
    sleeper = arena.start_worker("--concurrency", "64", "--processes", "1")
    runners = children(sleeper.pid)
    pids = [sleeper.pid, *runners]
    first, others = arena.size(4000), arena.size(200)
    arena.place("stock", [["ok"]] * first)
    wait_until(lambda: len(arena.ledger.read()) > 3 * first + 200, timeout=60, what="the first jobs")
    arena.fault("SIGSTOP", pids=pids)
    signal_all(pids, signal.SIGSTOP)
    arena.start_worker()
    wait_until(lambda: not arena.waiting(), timeout=120, what="the other worker's end of the stock")
    arena.place("more", [["ok"]] * others)
    signal_all(pids, signal.SIGCONT)
    arena.fault("SIGCONT", pids=pids)
    arena.finish(limits=Limits(slots=64, asleep=frozenset(runners)))


def test_rolling_restarts(arena: Arena) -> None:
    """SIGTERM in the middle of everything: what cannot end in time goes back unpunished, and no crash is counted."""
    working = [arena.start_worker("--shutdown-timeout", "0.2") for _ in range(2)]
    arena.produce(arena.size(150), 40 if arena.long else 6)
    ended: list[WorkerProcess] = []

    def restart() -> None:
        index = arena.random.randrange(2)
        arena.fault("SIGTERM", pid=working[index].pid)
        working[index].terminate()
        ended.append(working[index])
        working[index] = arena.start_worker("--shutdown-timeout", "0.2")

    arena.torment(restart, every=(0.5, 1.5))
    assert {worker.wait() for worker in ended} == {0}
    # A task that is told to stop raises Cancel, as it should when an operator asks: here none has.
    assert set(arena.finish(limits=Limits(blameless=True))) == {"succeeded"}


def test_a_new_version_is_rolled_out(arena: Arena) -> None:
    """Jobs of a task that the worker does not know wait, unpunished, for the worker that does."""
    old = arena.start_worker(env={"CHAOS_VERSION": "old"})
    arena.produce(arena.size(40), 20 if arena.long else 2, mix="versions")
    wait_until(lambda: not arena.producing, timeout=60, what="the producers")
    wait_until(lambda: set(arena.waiting()) <= {"act_new"}, timeout=60, what="the jobs of the old version")
    arena.fault("SIGTERM", pid=old.pid)
    old.terminate()
    arena.start_worker(env={"CHAOS_VERSION": "new"})
    assert old.wait() == 0
    arena.finish(limits=Limits(blameless=True))


def test_two_versions_side_by_side(arena: Arena) -> None:
    """Which of them claims a job is chance: the wrong one parks it, and the right one takes it at once."""
    for version in ("old", "new"):
        arena.start_worker(env={"CHAOS_VERSION": version})
    arena.produce(arena.size(40), 20 if arena.long else 2, mix="versions")
    arena.finish(timeout=300, limits=Limits(blameless=True))
