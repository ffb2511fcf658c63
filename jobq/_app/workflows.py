"""The part of JobQ that builds, inserts and looks up workflows."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from jobq._app.workflow_rows import jobs_of, parameters
from jobq._core.validation import check_duration, check_int, check_seconds
from jobq._postgres.adapters import Rows, async_executor, sync_executor
from jobq._postgres.pool import Pools
from jobq._postgres.script import Script, run_script, run_script_async
from jobq._postgres.sql import Statement, statement
from jobq.context import current_job
from jobq.errors import OperationRefused, WorkflowError
from jobq.job import InsertResult, NewJob
from jobq.middleware import Middlewares
from jobq.settings import Settings
from jobq.workflow import OnFailure, Workflow
from jobq.workflow.node import Node
from jobq.workflow.run import WorkflowRun, WorkflowStatus

if TYPE_CHECKING:
    from jobq._postgres.adapters import AnyAsyncConnection, AnyConnection
    from jobq.operations.workflows import RunChange, RunRound


R = TypeVar("R")


class Workflows:
    """An application's methods for workflows."""

    _settings: Settings
    _pools: Pools
    _middlewares: Middlewares
    waiting_helps: bool

    def workflow(
        self,
        name: str,
        *,
        key: str | None = None,
        on_failure: OnFailure = "hold",
        deadline: float | timedelta | None = None,
    ) -> Workflow:
        """Begin a graph of jobs: ``with q.workflow("order") as wf: …``, then ``wf.enqueue(connection)``.

        Args:
            name: what it is, 1 to 200 characters. Runs of one name are listed together.
            key: idempotency key, 1 to 500 characters. While a run of this name with the key exists
                (retention removes ended runs), enqueueing returns that run.
            on_failure: what happens when a node fails for good. ``hold`` (default): what needs it
                waits until an operator retries it, and the rest goes on; a run may wait for ever.
                ``cancel``: the run is cancelled and ends as failed. ``continue``: what needs it ends
                as ``upstream_failed``, and the run ends as failed when the rest has ended.
            deadline: seconds or timedelta from the insert after which the run is cancelled and ends
                as failed. None: no limit.

        Raises:
            InvalidOption: an option has an unusable value.

        Example::

            with q.workflow("order", key=f"order-{order_id}") as wf:
                order = fetch.node(order_id)
                paid = charge.node(order.result, currency="CHF")
                mails = notify.map(order.result.addresses)
                close.node(paid.outcome, mails.outcomes)
            wf.enqueue(session)
        """
        seconds = None if deadline is None else check_seconds("deadline", deadline)
        if seconds is not None:
            check_duration("deadline", seconds, none="no limit")
        return Workflow(self, name, key=key, on_failure=on_failure, deadline=seconds)

    def workflow_run(self, run_id: int) -> WorkflowRun[Any]:
        """Return a reference to a run by its id. This call reads nothing."""
        check_int("run_id", run_id, 0, 2**63 - 1)
        return WorkflowRun(run_id, name=None, key=None, created=False, source=self, returns=None, decode=json.loads)

    def insert_workflow(self, connection: AnyConnection, workflow: Workflow, returns: Node[R] | None) -> WorkflowRun[R]:
        """Insert a run on `connection`, inside the middleware."""

        def execute(values: dict[str, Any]) -> Rows:
            return sync_executor(connection).execute(self._enqueue_workflow, values)

        return self._insert_run(workflow, returns, execute)

    def submit_workflow(self, workflow: Workflow, returns: Node[R] | None) -> WorkflowRun[R]:
        """Insert a run on a connection of the pool."""

        def execute(values: dict[str, Any]) -> Rows:
            with self._pools.connection() as own:
                return sync_executor(own).execute(self._enqueue_workflow, values)

        return self._insert_run(workflow, returns, execute)

    async def insert_workflow_async(
        self, connection: AnyAsyncConnection, workflow: Workflow, returns: Node[R] | None
    ) -> WorkflowRun[R]:
        """Insert a run on `connection`, inside the middleware."""

        async def execute(values: dict[str, Any]) -> Rows:
            return await (await async_executor(connection)).execute(self._enqueue_workflow, values)

        return await self._insert_run_async(workflow, returns, execute)

    async def submit_workflow_async(self, workflow: Workflow, returns: Node[R] | None) -> WorkflowRun[R]:
        """Insert a run on a connection of the pool."""

        async def execute(values: dict[str, Any]) -> Rows:
            async with self._pools.connection_async() as own:
                return await (await async_executor(own)).execute(self._enqueue_workflow, values)

        return await self._insert_run_async(workflow, returns, execute)

    @property
    def _enqueue_workflow(self) -> Statement:
        return statement("enqueue_workflow", self._settings.schema)

    @property
    def _add_nodes(self) -> Statement:
        return statement("workflow_add_nodes", self._settings.schema)

    def _insert_run(
        self, workflow: Workflow, returns: Node[R] | None, execute: Callable[[dict[str, Any]], Rows]
    ) -> WorkflowRun[R]:
        workflow._check(returns)
        if not self._middlewares.wraps_enqueue:
            return self._inserted(workflow, execute(parameters(workflow)), returns)
        rows: Rows = []

        def insert(jobs: Sequence[NewJob]) -> list[InsertResult]:
            rows[:] = execute(parameters(workflow, jobs))
            return _results(rows, len(jobs))

        self._middlewares.insert(jobs_of(workflow), insert)
        return self._inserted(workflow, rows, returns)

    async def _insert_run_async(
        self, workflow: Workflow, returns: Node[R] | None, execute: Callable[[dict[str, Any]], Awaitable[Rows]]
    ) -> WorkflowRun[R]:
        workflow._check(returns)
        if not self._middlewares.wraps_enqueue_async:
            return self._inserted(workflow, await execute(parameters(workflow)), returns)
        rows: Rows = []

        async def insert(jobs: Sequence[NewJob]) -> list[InsertResult]:
            rows[:] = await execute(parameters(workflow, jobs))
            return _results(rows, len(jobs))

        await self._middlewares.insert_async(jobs_of(workflow), insert)
        return self._inserted(workflow, rows, returns)

    def add_nodes(self) -> Workflow:
        """Return a workflow whose nodes are added to the run of the current job, if the job succeeds.

        The job is a node of a run. The added nodes start after its success, and the run ends after
        them. If the task is transactional, they are inserted by the commit that records its
        success; else in a transaction of their own just before, and an execution that dies between
        the two is repeated, and replaces them. Their names begin with this node's name and a slash.
        Each call in a job returns the same workflow; it is not enqueued.

        Nodes of the run that were there before do not wait for added ones, and their results cannot
        be used: pass what is known as arguments. An item of a map cannot add nodes. If the job is no
        node of a run, or the run would have more than 100,000 nodes, its attempt fails.

        Raises:
            NoCurrentJob: no job is being run here.
            WorkflowError: no worker runs the job.

        Example::

            @q.task
            def split(order_id: int) -> int:
                parts = parts_of(order_id)
                with q.add_nodes():
                    packed = pack.map(parts)
                    ship.node(order_id, packed.results)
                return len(parts)
        """
        begin = current_job().begin_additions
        if begin is None:
            raise WorkflowError("add_nodes: no worker runs this job, so it belongs to no run")
        found: Workflow = begin()
        return found

    def additions(self) -> Workflow:
        """Return the workflow that collects what a job adds."""
        found = Workflow(self, "added")
        found._adds = True
        return found

    def insert_additions(
        self, workflow: Workflow, execution: dict[str, Any], execute: Callable[[bytes, dict[str, Any]], Any] | None
    ) -> None:
        """Add nodes to the run of a job, by `execute` in its transaction, or on a connection of the pool.

        `execution`: the job's id, claims, worker and moment of the claim.
        """

        def run(values: dict[str, Any]) -> Rows:
            if execute is not None:
                return [execute(self._add_nodes.query, execution | values)]
            with self._pools.connection() as own:
                return sync_executor(own).execute(self._add_nodes, execution | values)

        workflow._check_built()
        if not self._middlewares.wraps_enqueue:
            run(_graph(workflow))
        else:
            jobs = jobs_of(workflow)
            self._middlewares.insert(jobs, lambda changed: _added(run(_graph(workflow, changed)), len(jobs)))

    async def insert_additions_async(self, workflow: Workflow, execution: dict[str, Any]) -> None:
        """Add nodes to the run of a job, like `insert_additions`, on a connection of the pool."""

        async def run(values: dict[str, Any]) -> Rows:
            async with self._pools.connection_async() as own:
                return await (await async_executor(own)).execute(self._add_nodes, execution | values)

        workflow._check_built()
        if not self._middlewares.wraps_enqueue_async:
            await run(_graph(workflow))
            return
        jobs = jobs_of(workflow)

        async def insert(changed: Sequence[NewJob]) -> list[InsertResult]:
            return _added(await run(_graph(workflow, changed)), len(jobs))

        await self._middlewares.insert_async(jobs, insert)

    def workflow_status(self, run_id: int, returns: int | None) -> WorkflowStatus | None:
        """Return what the database records for a run; None: there is none."""
        with self._pools.connection() as own:
            return run_script(sync_executor(own), self._settings.schema, _status(run_id, returns))

    async def workflow_status_async(self, run_id: int, returns: int | None) -> WorkflowStatus | None:
        """Return what the database records for a run, like `workflow_status`."""
        async with self._pools.connection_async() as own:
            executor = await async_executor(own)
            return await run_script_async(executor, self._settings.schema, _status(run_id, returns))

    def cancel_workflow(self, run_id: int, reason: str | None) -> bool | None:
        """Cancel a run; None: there is none. Raises JobBusy if its jobs stay locked by others."""
        done = self._change_run(run_id, self._cancelling_run(run_id, reason))
        return None if done is None else done.done

    async def cancel_workflow_async(self, run_id: int, reason: str | None) -> bool | None:
        """Cancel a run, like `cancel_workflow`."""
        done = await self._change_run_async(run_id, self._cancelling_run(run_id, reason))
        return None if done is None else done.done

    def retry_workflow(
        self, run_id: int, reason: str | None, from_node: str | int | None, all_nodes: bool
    ) -> bool | None:
        """Retry a run; None: there is none. Raises JobBusy, OperationRefused and InvalidOption."""
        return _retried(run_id, self._change_run(run_id, self._retrying_run(run_id, reason, from_node, all_nodes)))

    async def retry_workflow_async(
        self, run_id: int, reason: str | None, from_node: str | int | None, all_nodes: bool
    ) -> bool | None:
        """Retry a run, like `retry_workflow`."""
        rounds = self._retrying_run(run_id, reason, from_node, all_nodes)
        return _retried(run_id, await self._change_run_async(run_id, rounds))

    def _change_run(self, run_id: int, one_round: RunRound) -> RunChange | None:
        # Imported here because workers and producers do not need it.
        from jobq.operations.workflows import Rounds

        rounds = Rounds(run_id)
        while True:
            with self._pools.connection() as own:
                done = run_script(sync_executor(own), self._settings.schema, one_round(rounds.is_first))
            if done is None:
                return None
            if (found := rounds.add(done)) is not None:
                return found
            if rounds.is_stalled:
                time.sleep(rounds.pause)

    async def _change_run_async(self, run_id: int, one_round: RunRound) -> RunChange | None:
        from jobq.operations.workflows import Rounds

        rounds = Rounds(run_id)
        while True:
            script = one_round(rounds.is_first)
            async with self._pools.connection_async() as own:
                done = await run_script_async(await async_executor(own), self._settings.schema, script)
            if done is None:
                return None
            if (found := rounds.add(done)) is not None:
                return found
            if rounds.is_stalled:
                await asyncio.sleep(rounds.pause)

    def _cancelling_run(self, run_id: int, reason: str | None) -> RunRound:
        from jobq.operations.audit import AuditRecord, current_actor
        from jobq.operations.workflows import cancel

        note = AuditRecord("cancel_workflow", current_actor("python"), reason)
        said = f"cancelled by {note.actor.name}" + (f": {note.reason}" if note.reason else "")
        return lambda first: cancel(self._settings.schema, run_id, note if first else None, reason=said)

    def _retrying_run(self, run_id: int, reason: str | None, from_node: str | int | None, all_nodes: bool) -> RunRound:
        from jobq.operations.audit import AuditRecord, current_actor
        from jobq.operations.workflows import retrying

        note = AuditRecord("retry_workflow", current_actor("python"), reason)
        return retrying(run_id, from_node=from_node, all_nodes=all_nodes, note=note)

    def map_results(self, node: int, from_item: int, most: int, failures: bool) -> list[tuple[int, str, Any, Any]]:
        """Return up to `most` ends of a map's items, from an item on."""
        values = {"node": node, "from_item": from_item, "most": most, "failures": failures}
        with self._pools.connection() as own:
            return sync_executor(own).execute(statement("map_results", self._settings.schema), values)

    def map_count(self, node: int, failures: bool) -> int:
        """Return how many items of a map have ended, or succeeded."""
        with self._pools.connection() as own:
            values = {"node": node, "failures": failures}
            [(count,)] = sync_executor(own).execute(statement("map_count", self._settings.schema), values)
            return int(count)

    def _inserted(self, workflow: Workflow, rows: Rows, returns: Node[R] | None) -> WorkflowRun[R]:
        [(run_id, created, _)] = rows
        decode: Callable[[str], Any] = _nothing if returns is None else returns._task.arguments.decode_result
        return WorkflowRun(
            run_id,
            name=workflow.name,
            key=workflow.key,
            created=created,
            source=self,
            returns=None if returns is None else returns._number + 1,
            decode=decode,
        )


def _results(rows: Rows, count: int) -> list[InsertResult]:
    """Return what the insert did for each node; the run that holds the key may have fewer nodes."""
    [(_, created, ids)] = rows
    return [InsertResult(ids[place] if place < len(ids) else None, created, False) for place in range(count)]


def _graph(workflow: Workflow, jobs: Sequence[NewJob] | None = None) -> dict[str, Any]:
    found = parameters(workflow, jobs)
    return {"nodes": found["nodes"], "joins": found["joins"]}


def _added(rows: Rows, count: int) -> list[InsertResult]:
    [(ids,)] = rows
    return [InsertResult(None if ids is None else ids[place], ids is not None, False) for place in range(count)]


def _retried(run_id: int, found: RunChange | None) -> bool | None:
    if found is None:
        return None
    if found.refused and not found.done:
        raise OperationRefused(f"workflow run {run_id} is not retried: {'; '.join(found.refused)}")
    return found.done


def _status(run_id: int, returns: int | None) -> Script[WorkflowStatus | None]:
    found = yield "workflow_status", {"id": run_id}
    if not found:
        return None
    [(state, reason, is_blocked)] = found
    if is_blocked:
        state = "blocked"
    if state in ("blocked", "failed") and reason is None:
        rows = yield "workflow_failures", {"id": run_id}
        reason = "; ".join(
            f"node {name!r}{'' if item < 1 else f' item {item}'} is {ended}{f': {error}' if error else ''}"
            for name, item, ended, error, _ in rows
        )
    result = None
    if state == "succeeded" and returns is not None:
        rows = yield "workflow_node_result", {"id": run_id, "number": returns}
        result = rows[0][1] if rows else None
    return WorkflowStatus(state=state, reason=reason, result=result)


def _nothing(_: str) -> None:
    return None
