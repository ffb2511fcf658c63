"""Steps as parameters and rows of the statements in `sql/steps/`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jobq.steps.store import Holder, NewStep, StepKey, StoredStep


def write_parameters(steps: Sequence[tuple[Holder, NewStep]]) -> dict[str, Any]:
    """Return the parameters of steps_write.sql."""
    holders = [holder for holder, _ in steps]
    return {
        "ids": [holder.job_id for holder in holders],
        "claims": [holder.claims for holder in holders],
        "workers": [holder.worker for holder in holders],
        "started": [holder.started for holder in holders],
        "attempts": [holder.attempt for holder in holders],
        "wakes": [step.wake_in for _, step in steps],
        **_columns([step for _, step in steps]),
    }


def commit_parameters(holder: Holder, steps: Sequence[NewStep]) -> dict[str, Any]:
    """Return the parameters of steps_commit.sql."""
    return {**holder_parameters(holder), **_columns(steps)}


def wait_parameters(holder: Holder, key: StepKey, place: int, timeout: float | None) -> dict[str, Any]:
    """Return the parameters of step_wait.sql."""
    return {
        **holder_parameters(holder),
        "name": key.name,
        "hash": key.args_hash,
        "number": key.number,
        "place": place,
        "timeout": timeout,
    }


def run_again_parameters(holder: Holder, keys: Sequence[StepKey], at_once: bool) -> dict[str, Any]:
    """Return the parameters of steps_run_again.sql."""
    return {
        **holder_parameters(holder),
        "at_once": at_once,
        "kinds": [key.kind for key in keys],
        "names": [key.name for key in keys],
        "hashes": [key.args_hash for key in keys],
        "numbers": [key.number for key in keys],
    }


def holder_parameters(holder: Holder) -> dict[str, Any]:
    """Return the parameters that fence a statement about one job."""
    return {
        "id": holder.job_id,
        "claims": holder.claims,
        "worker": holder.worker,
        "started": holder.started,
        "attempt": holder.attempt,
    }


def loaded(rows: Sequence[tuple[Any, ...]]) -> dict[int, list[StoredStep]]:
    """Return the steps in the rows of steps_load.sql, by job."""
    found: dict[int, list[StoredStep]] = {}
    for (
        job,
        kind,
        name,
        args_hash,
        number,
        place,
        state,
        args,
        result,
        error,
        child,
        tries,
        left,
        undo,
        cancelling,
    ) in rows:
        step = StoredStep(
            key=StepKey(kind, name, args_hash, number),
            place=place,
            state=state,
            args=args,
            result=result,
            error=None if error is None else json.loads(error),
            child_id=child,
            tries=tries,
            seconds_left=left,
            undo=undo,
            is_cancelling=cancelling,
        )
        found.setdefault(job, []).append(step)
    return found


def waited(key: StepKey, place: int, row: tuple[Any, ...]) -> StoredStep:
    """Return the step in a row of step_wait.sql."""
    state, result, left = row
    return StoredStep(key=key, place=place, state=state, result=result, seconds_left=left)


def _columns(steps: Sequence[NewStep]) -> dict[str, Any]:
    return {
        "kinds": [step.key.kind for step in steps],
        "names": [step.key.name for step in steps],
        "hashes": [step.key.args_hash for step in steps],
        "numbers": [step.key.number for step in steps],
        "places": [step.place for step in steps],
        "states": [step.state for step in steps],
        "seconds": [step.seconds for step in steps],
        "args": [step.args for step in steps],
        "results": [step.result for step in steps],
        "errors": [step.error for step in steps],
        "children": [step.child_id for step in steps],
        "tries": [step.tries for step in steps],
        "undos": [step.undo for step in steps],
    }
