"""The protocol by which a lead poller returns to notifications, as a small model of which every interleaving is gone through.

The model's transaction ids and snapshots are PostgreSQL's: a snapshot's xmax is the id after the last that has *ended*, and
its xmin the oldest that runs below that. tests/worker/wakeup/test_wake.py holds both, and the protocol, against a real server.
A lost wake-up is a state in which nothing is left to happen, and a committed job that no worker will look for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.support.checks import some

PRODUCERS, WORKERS = 2, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The protocol, or one that leaves something out."""

    grace: bool = True
    """Poll until who may have read POLL has ended; else poll once."""
    mark: str = "own id"
    """What is waited for: an `own id` taken after the mode was set, or the snapshot's `xmax`."""
    insert_first: bool = True
    """A producer inserts, which gives it its id, and then reads the mode; else the other way round."""
    draining: bool = True
    """The wait has its own mode, DRAINING; else it is spent under NOTIFY."""


@dataclass(frozen=True, slots=True, order=True)
class Producer:
    """`step`: idle, first (of insert and read), both, committed, taken (its job is claimed)."""

    step: str = "idle"
    xid: int = 0
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Worker:
    """`doing`: asleep, polling, setting (it has the id under which it sets the mode), set, draining, over; dead."""

    doing: str = "asleep"
    mark: int = 0
    woken: bool = False


@dataclass(frozen=True, slots=True)
class State:
    mode: str = "notify"
    next_xid: int = 1
    last_ended: int = 0
    bursts: int = 2
    """How often so many jobs may come yet that a worker wants to poll."""
    producers: tuple[Producer, ...] = (Producer(),) * PRODUCERS
    workers: tuple[Worker, ...] = (Worker(),) * WORKERS

    @property
    def running(self) -> set[int]:
        """The ids of those who have one and have not ended."""
        setting = {worker.mark for worker in self.workers if worker.doing == "setting"}
        return setting | {producer.xid for producer in self.producers if producer.xid}

    @property
    def xmax(self) -> int:
        return self.last_ended + 1

    @property
    def xmin(self) -> int:
        return min((xid for xid in self.running if xid < self.xmax), default=self.xmax)

    def producer(self, n: int, producer: Producer) -> State:
        return replace(self, producers=(*self.producers[:n], producer, *self.producers[n + 1 :]))

    def worker(self, n: int, worker: Worker) -> State:
        return replace(self, workers=(*self.workers[:n], worker, *self.workers[n + 1 :]))

    def polled(self) -> State:
        """Everything that is committed is found and claimed."""
        return replace(
            self,
            producers=tuple(replace(p, step="taken") if p.step == "committed" else p for p in self.producers),
        )

    def all_woken(self) -> State:
        """A notification reaches every worker that lives."""
        return replace(self, workers=tuple(replace(w, woken=w.doing != "dead") for w in self.workers))

    def ended(self, xid: int) -> State:
        return replace(self, last_ended=max(self.last_ended, xid))

    def normal(self) -> State:
        """The same with the smallest ids, and the producers in order: so far as the protocol goes, no other state."""
        after = range(self.last_ended, self.next_xid + 1)
        ids = sorted(self.running | {w.mark for w in self.workers} | set(after) | {0})
        rank = {xid: number for number, xid in enumerate(ids)}
        return replace(
            self,
            next_xid=rank[self.next_xid],
            last_ended=rank[self.last_ended],
            producers=tuple(sorted(replace(p, xid=rank[p.xid]) for p in self.producers)),
            workers=tuple(replace(w, mark=rank[w.mark]) for w in self.workers),
        )


def steps(state: State, variant: Variant) -> Iterator[State]:
    """Yield every state that can come next."""
    for n, producer in enumerate(state.producers):
        yield from produce(state, n, producer, variant)
    for n, worker in enumerate(state.workers):
        yield from work(state, n, worker, variant)


def produce(state: State, n: int, producer: Producer, variant: Variant) -> Iterator[State]:
    first, second = ("insert", "read") if variant.insert_first else ("read", "insert")
    match producer.step:
        case "idle":
            yield act(state, n, replace(producer, step="first"), first)
        case "first":
            yield act(state, n, replace(producer, step="both"), second)
        case "both":
            committed = state.producer(n, replace(producer, step="committed", xid=0)).ended(producer.xid)
            yield committed if producer.silent else committed.all_woken()


def act(state: State, n: int, producer: Producer, what: str) -> State:
    if what == "read":
        return state.producer(n, replace(producer, silent=state.mode == "poll"))
    return replace(state.producer(n, replace(producer, xid=state.next_xid)), next_xid=state.next_xid + 1)


def work(state: State, n: int, worker: Worker, variant: Variant) -> Iterator[State]:
    locked = any(other.doing not in ("asleep", "dead") for other in state.workers)
    waiting = "draining" if variant.draining else "notify"

    def now(doing: str, mark: int = 0) -> State:
        return state.worker(n, Worker(doing, mark=mark, woken=worker.woken))

    if worker.doing not in ("asleep", "dead") and all(other.doing != "dead" for other in state.workers):
        # Killed, while the other one lives on. Its lock is free, and its transaction has ended.
        yield now("dead").ended(worker.mark if worker.doing == "setting" else 0)
    match worker.doing:
        case "asleep":
            if worker.woken:
                yield state.polled().worker(n, Worker())
            if not locked and state.mode != "notify":
                # Every heartbeat shows it.
                yield now("polling")
            if not locked and state.mode == "notify" and state.bursts:
                # No transaction is missed by a mode that is set to POLL, so that one step is enough.
                yield replace(now("polling"), mode="poll", bursts=state.bursts - 1)
        case "polling":
            yield state.polled()
            yield replace(now("setting", mark=state.next_xid), next_xid=state.next_xid + 1)
        case "setting":
            # setval has taken its id before it changes the value.
            yield replace(now("set"), mode=waiting).ended(worker.mark)
        case "set":
            if variant.mark == "own id":
                yield replace(now("draining", mark=state.next_xid), next_xid=state.next_xid + 1).ended(state.next_xid)
            else:
                yield now("draining", mark=state.xmax)
        case "draining":
            if state.bursts and state.mode == "draining":
                # Jobs come thick and fast again.
                yield replace(now("polling"), mode="poll", bursts=state.bursts - 1)
            over = not variant.grace or state.xmin > worker.mark
            yield now("over").polled() if over else state.polled()
        case "over":
            yield replace(now("asleep"), mode="notify")


def lost_wake_up(variant: Variant) -> State | None:
    """Go through every state that can be reached. Return one with a lost wake-up, if there is any."""
    seen = {State()}
    to_do = [State()]
    while to_do:
        state = to_do.pop()
        following = {later.normal() for later in steps(state, variant)} - {state}
        if not following and any(producer.step != "taken" for producer in state.producers):
            return state
        new = following - seen
        seen |= new
        to_do += new
    # That it was no matter of a handful.
    assert len(seen) > 1_000
    return None


def test_no_wake_up_is_lost() -> None:
    assert lost_wake_up(Variant()) is None


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(Variant(grace=False), id="without the grace period"),
        pytest.param(Variant(insert_first=False), id="the mode is read before the insert"),
        pytest.param(Variant(mark="xmax"), id="the snapshot's xmax for a mark"),
        pytest.param(Variant(draining=False), id="a lead poller that dies in the grace period under NOTIFY"),
    ],
)
def test_the_model_finds_what_each_part_is_for(variant: Variant) -> None:
    end = lost_wake_up(variant)
    assert end is not None
    lost = [producer for producer in end.producers if producer.step != "taken"]
    assert all(producer == Producer("committed", silent=True) for producer in some(lost))
    assert end.mode == "notify"
    # Whichever of the states with a loss was found first: no live worker will look.
    assert all(worker.doing == "dead" or worker == Worker("asleep") for worker in some(end.workers))
