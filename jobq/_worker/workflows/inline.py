"""What the workflow loop does, in the calling process: for tests, which have no worker."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from jobq._postgres.adapters import Rows, sync_executor
from jobq._postgres.script import Script, run_script
from jobq._postgres.statements import execute
from jobq._worker.workflows.wakeups import MOST
from jobq.operations.workflows import FAILED, cancel

# The parameters of a step that leaves nothing out.
EVERYTHING: dict[str, Any] = {"joins_left_out": [], "turns_left_out": [], "only_joins": None, "only_turns": None}
# Most steps of one call. Each expands 5,000 items of a map, adds 200 joins, or cancels 5,000 jobs.
MOST_STEPS = 100_000


def run_steps(connection: Connection[Any], schema: str) -> bool:
    """Do what the ends of nodes have left to workers, until nothing is left; return whether anything was.

    It expands maps, counts ends that were left, and cancels runs by their rule for failures and
    after their deadlines. Raises RuntimeError if there is no end of it: another transaction holds a
    lock.
    """
    for step in range(MOST_STEPS):
        if not _step(connection, schema):
            return step > 0
    raise RuntimeError(
        f"workflows: more is left after {MOST_STEPS:,} steps: does another connection hold locks on jobs?"
    )


def _step(connection: Connection[Any], schema: str) -> bool:
    """Do one step; return whether there was something to do."""
    executor = sync_executor(connection)
    [(done, failed, late, _, wakes)] = run_script(executor, schema, _look())
    woken = wakes and run_script(executor, schema, _wake(schema))[0][0]
    reasons = dict.fromkeys(failed, "a node has failed") | dict.fromkeys(late, "its deadline has passed")
    for run, reason in reasons.items():
        change = run_script(executor, schema, cancel(schema, run, None, reason=reason, as_state=FAILED, if_due=True))
        if change is None or not change.left:
            execute(connection, schema, "workflow_turn_done", {"id": run})
    return bool(done or reasons or woken)


def _wake(schema: str) -> Script[Rows]:
    return (yield "wake_waiting", {"most": MOST, "left_out": [], "only": None, "channel": schema})


def _look() -> Script[Rows]:
    return (yield "workflow_step", EVERYTHING)
