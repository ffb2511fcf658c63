"""The claim loop's wake-ups, as a small model of which every interleaving is gone through.

One job of one queue, one worker. What makes the loop look is `more` (a claim may find jobs) and that its queue is in a lane
(`known`): lanes are read now and then, and a queue without a ready job is in none. A statement may fail, as under another's
lock on the table, and changes nothing then. A lost wake-up is a state in which the job is ready and the loop would sleep until
the lanes are read again, which may be half a minute later. tests/worker/faults/test_foreign_locks.py has the same with a real
worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The loop as it is, or one that leaves something out."""

    remembers_queue: bool = True
    """What the worker puts back itself makes its queue known."""
    more_after_failure: bool = True
    """After a statement that failed there may be more."""
    more_after_settling: bool = True
    """After something was put back there may be more."""


@dataclass(frozen=True, slots=True)
class State:
    job: str = "running"
    """running, ended (its outcome is to be written), ready."""
    known: bool = True
    more: bool = False
    failures: int = 3
    """How many statements may yet fail."""
    readings: int = 2
    """How often the lanes may yet be read for the ordinary reason."""


def steps(state: State, variant: Variant) -> Iterator[State]:
    """Return what may happen next."""
    if state.job == "running":
        yield replace(state, job="ended")
    if state.readings:
        # Read while the job runs, its queue is in no lane.
        known = state.job == "ready"
        found = known and not state.known
        yield replace(state, known=known, more=state.more or found, readings=state.readings - 1)
    if state.job == "ended":
        yield replace(
            state,
            job="ready",
            known=state.known or variant.remembers_queue,
            more=state.more or variant.more_after_settling,
        )
    elif state.more:
        if state.known and state.job == "ready":
            yield replace(state, job="running", more=False)
        else:
            yield replace(state, more=False)
    if state.failures and (state.more or state.job == "ended"):
        yield replace(state, failures=state.failures - 1, more=variant.more_after_failure)


def lost(variant: Variant) -> bool:
    """Tell whether some order of events leaves a ready job for which the loop does nothing of itself."""
    seen: set[State] = set()
    todo = [State()]
    while todo:
        state = todo.pop()
        if state in seen:
            continue
        seen.add(state)
        if state.job == "ready" and not (state.more and state.known):
            # A job that is ready, and neither looked for nor in a lane (when one looks).
            return True
        todo += steps(state, variant)
    return False


def test_no_wake_up_is_lost() -> None:
    assert not lost(Variant())


@pytest.mark.parametrize(
    "variant",
    [Variant(remembers_queue=False), Variant(more_after_failure=False), Variant(more_after_settling=False)],
    ids=["the queue is forgotten", "a failure is taken for an empty answer", "putting back wakes no worker"],
)
def test_the_model_finds_what_is_left_out(variant: Variant) -> None:
    assert lost(variant)
