"""Retention of workflows' runs, and a check of those that run."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection

from jobq._worker.database import fetch
from jobq._worker.faults.set_aside import SetAside
from jobq._worker.maintenance.partitions import Incomplete

# Number of runs, and of rows of results and of nodes, that are removed at a time.
OLD_RUNS = 100
OLD_ROWS = 5_000
# Number of running runs checked at a time, and seconds for one run of the task; the next one
# continues there.
CHECKED_RUNS = 100
CHECK_SECONDS = 2.0


class WorkflowRetention:
    """Removes runs that ended long ago: see functions/workflows/workflow_prune.sql."""

    def __init__(self, schema: str, keep_succeeded: timedelta, keep_others: timedelta) -> None:
        self._schema = schema
        self._keep = {"keep_succeeded": keep_succeeded, "keep_others": keep_others}
        self.aside = SetAside[int]()
        """Runs whose rows the database refuses to delete."""

    async def batch(self, connection: AsyncConnection[Any]) -> tuple[int, int]:
        """Remove runs, or a part of a large one, and commit. Returns the number of rows, twice."""

        async def prune(ids: list[int]) -> int:
            [(removed,)] = await fetch(connection, self._schema, "workflow_prune", ids=ids, most=OLD_ROWS)
            return int(removed)

        async with connection.transaction():
            # With the statistics of an empty table, the planner would read and sort all old runs
            # for each batch.
            await connection.execute("SET LOCAL enable_sort = off")
            [(ids,)] = await fetch(
                connection, self._schema, "workflows_old", most=OLD_RUNS, aside=self.aside.keys(), **self._keep
            )
            removed = sum(await self.aside.change(connection, ids, prune))
        return removed, removed


class WorkflowCheck:
    """Looks for runs in a state that no statement of jobq leaves. It remembers its position.

    A workflow's run has no process that drives it: each step is done by the transaction before it.
    So a step that was lost, through an error of jobq or a change of its tables by hand, would
    leave the run waiting for ever, without a sign. The check costs one statement for 100 running
    runs, and finds such a run within minutes.
    """

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self._after = -1
        """The run up to which runs were checked."""

    async def run(self, connection: AsyncConnection[Any]) -> str:
        """Check running runs for a while.

        Returns a report. Raises Incomplete with what was found: the log and `jobq doctor` then tell
        of it.
        """
        begun, number = time.monotonic(), 0
        found: list[str] = []
        while True:
            async with connection.transaction():
                # As above, for running runs.
                await connection.execute("SET LOCAL enable_sort = off")
                rows = await fetch(
                    connection, self._schema, "workflows_stuck", after_run=self._after, most=CHECKED_RUNS
                )
            runs = sorted({row[0] for row in rows})
            number += len(runs)
            self._after = runs[-1] if len(runs) == CHECKED_RUNS else -1
            found += await self._handle(connection, [row for row in rows if row[1] is not None])
            if self._after < 0 or time.monotonic() - begun > CHECK_SECONDS:
                break
        if found:
            raise Incomplete("; ".join(found[:5]) + (f"; and {len(found) - 5:,} more" if len(found) > 5 else ""))
        return f"{number} running workflows checked"

    async def _handle(self, connection: AsyncConnection[Any], rows: list[tuple[Any, ...]]) -> list[str]:
        """Release the joins that were not released; return sentences about what was found."""
        sentences: list[str] = []
        for run in sorted({run for run, what, *_ in rows if what == "unreleased"}):
            await fetch(connection, self._schema, "workflow_resume", id=run)
            sentences.append(f"workflow run {run}: nodes waited although all their parents had ended; they go on now")
        lost = {run for run, what, *_ in rows if what == "lost"}
        for run, what, name, node in rows:
            if what == "lost":
                sentences.append(
                    f"workflow run {run}: node {name!r} (id {node}) has started, and has neither a job nor a result: "
                    "was its job deleted by other means than jobq's?"
                )
            elif what == "stalled" and run not in lost:
                sentences.append(f"workflow run {run}: it has no job left, and it has not ended")
        return sentences
