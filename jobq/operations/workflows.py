"""Change runs of workflows: cancel, retry, undo.

`cancel` and `retry` are one round of the change, in one transaction. A round leaves alone jobs
whose rows are locked: repeat it until it returns `left=0`, as `cancel_workflow` and
`retry_workflow` do. `retry_from` does all or nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from psycopg import Connection

from jobq._core.text import plural
from jobq._postgres.adapters import sync_executor
from jobq._postgres.script import Script, run_script
from jobq.errors import InvalidOption, JobBusy, WorkflowNotFound
from jobq.job import LIVE_STATES, REDRIVABLE_STATES
from jobq.operations.audit import Actor, AuditRecord

CANCELLED, FAILED = "cancelled", "failed"
# Most jobs in one round of a cancellation: as in functions/workflows/workflow_cancel.sql.
CANCEL_BATCH = 5000
# Number of rounds in a row that change nothing, because jobs are locked by others, and seconds
# between them.
_TRIES = 100
_PAUSE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RunChange:
    """What a change of a run did, or one round of it."""

    done: bool
    """Whether the run was changed. False: it has ended already (cancel); it has succeeded, or is
    being cancelled and has running jobs (retry); or `refused` says why."""
    jobs: int = 0
    """Number of jobs that were cancelled, asked to stop, or put back."""
    left: int = 0
    """Number of jobs that were locked by others: repeat the change."""
    refused: tuple[str, ...] = ()
    """Why jobs could not be put back; if a retry from a node on did nothing, why."""
    nodes: int = 0
    """Number of nodes that run again, if the retry was one from a node on, or of all nodes."""
    undo_run: int | None = None
    """The run that undoes this one, if that was asked for."""


RunRound = Callable[[bool], Script["RunChange | None"]]
"""One round of a change; the argument says whether it is the first one."""


def cancel(
    schema: str, run_id: int, note: AuditRecord | None, *, reason: str, as_state: str = CANCELLED, if_due: bool = False
) -> Script[RunChange | None]:
    """Cancel a run: none of its nodes starts after the last round, and its running jobs are asked to stop.

    Args:
        schema: the schema of jobq's tables.
        run_id: the run.
        note: the entry of the audit log; None: none, because this is a worker, or a repeated round.
        reason: why, for the page.
        as_state: what the run ends as: ``cancelled`` or ``failed``.
        if_due: cancel it only if its deadline has passed, or a cancellation was begun and not finished.

    Returns:
        What was done; None: there is no such run.
    """
    [(ids,)] = yield "workflow_cancel", {"id": run_id, "as_state": as_state, "reason": reason, "if_due": if_due}
    if ids is None:
        found = yield "workflow_status", {"id": run_id}
        return RunChange(done=False) if found else None
    left = set(ids)
    more_to_come = len(ids) >= CANCEL_BATCH
    changed = 0
    for name, more in (("cancel_idle", {"error": reason}), ("cancel_running", {})):
        if left:
            rows = yield name, {"ids": sorted(left), "channel": schema, **more}
            changed += len(rows)
            left -= {row[0] for row in rows}
    if left:
        # Those that have ended in the meantime need nothing.
        states = yield "job_states", {"ids": sorted(left)}
        left = {job for job, state in states if state in LIVE_STATES}
    if note is not None:
        yield "audit_write", note.row({"workflow": run_id}, after={"jobs": changed})
    return RunChange(done=True, jobs=changed, left=len(left) + more_to_come)


def retry(run_id: int, note: AuditRecord | None) -> Script[RunChange | None]:
    """Let a run go on: its failed and cancelled jobs are put back, and nodes that did not run wait again.

    `note` is None for a repeated round. Returns what was done; None: there is no such run.
    """
    [(ids, restarted, refusal)] = yield "workflow_retry", {"id": run_id}
    if refusal is not None:
        return RunChange(done=False, refused=(refusal,))
    if ids is None:
        found = yield "workflow_status", {"id": run_id}
        return RunChange(done=False) if found else None
    rows = (yield "retry_finished", {"ids": ids}) if ids else []
    yield "workflow_resume", {"id": run_id}
    back = [row for row in rows if row[3] is None]
    refused = [f"job {row[0]}: {row[3]}" for row in rows if row[3] is not None]
    left = set(ids) - {row[0] for row in rows}
    if left:
        states: dict[int, str] = dict((yield "job_states", {"ids": sorted(left)}))
        refused += [
            f"job {job}: it was deleted at this moment: retry the run again" for job in sorted(left - states.keys())
        ]
        left = {job for job in left if states.get(job, "") in REDRIVABLE_STATES}
    if note is not None:
        yield "audit_write", note.row({"workflow": run_id}, after={"jobs": len(back) + restarted})
    return RunChange(done=True, jobs=len(back) + restarted, left=len(left), refused=tuple(refused))


def retry_from(run_id: int, node: str | int | None, note: AuditRecord) -> Script[RunChange | None]:
    """Let a node and everything downstream of it run again; None: all nodes. All or nothing, in one transaction.

    Returns what was done; None: there is no such run.
    """
    wanted = None if node is None else str(node)
    [(nodes, problems)] = yield "workflow_retry_from", {"id": run_id, "from_node": wanted}
    if nodes is None:
        found = yield "workflow_status", {"id": run_id}
        return RunChange(done=False) if found else None
    if problems:
        return RunChange(done=False, refused=tuple(problems))
    target = {"workflow": run_id} if wanted is None else {"workflow": run_id, "from": wanted}
    yield "audit_write", note.row(target, after={"nodes": nodes})
    return RunChange(done=True, nodes=nodes)


def undo(run_id: int, note: AuditRecord) -> Script[RunChange | None]:
    """Undo a run that has ended, in one transaction. Returns what was done; None: there is no such run."""
    [(undo_run, problem)] = yield "workflow_undo", {"id": run_id}
    if problem is not None:
        return RunChange(done=False, refused=(problem,))
    if undo_run is None:
        return None
    yield "audit_write", note.row({"workflow": run_id}, after={"undo_run": undo_run})
    return RunChange(done=True, undo_run=undo_run)


def retrying(run_id: int, *, from_node: str | int | None, all_nodes: bool, note: AuditRecord) -> RunRound:
    """Return the rounds of a retry, by whether it is the first one. Raises InvalidOption."""
    if from_node is None and not all_nodes:
        return lambda first: retry(run_id, note if first else None)
    if from_node is not None and all_nodes:
        raise InvalidOption(f"from_node={from_node!r} and all_nodes=True: expected one of them")
    if from_node is not None and (isinstance(from_node, bool) or not isinstance(from_node, (str, int))):
        raise InvalidOption(f"from_node={from_node!r}: expected the name of a node, or its number from 1")
    return lambda _: retry_from(run_id, from_node, note)


def cancel_workflow(
    conn: Connection[Any], schema: str, run_id: int, *, actor: str | Actor, reason: str | None = None
) -> RunChange:
    """Cancel a run: none of its nodes starts after that, and its running jobs are asked to stop.

    Each round is a transaction, or a savepoint inside the caller's transaction. A round cancels
    the jobs that no other transaction has locked.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        run_id: the run.
        actor: who the audit log names.
        reason: text for the audit log and for the run, at most 1,000 characters.

    Returns:
        What was done. `done` is False if the run had ended.

    Raises:
        WorkflowNotFound: there is no such run.
        InvalidOption: `actor` or `reason` is unusable.
        JobBusy: some of its jobs stayed locked by others for 5 s. The run is being cancelled: repeat
            the call for those jobs.
    """
    note = AuditRecord("cancel_workflow", actor, reason)
    said = f"cancelled by {note.actor.name}" + (f": {note.reason}" if note.reason else "")

    def one_round(first: bool) -> Script[RunChange | None]:
        return cancel(schema, run_id, note if first else None, reason=said)

    return _rounds(conn, schema, run_id, one_round)


def retry_workflow(
    conn: Connection[Any],
    schema: str,
    run_id: int,
    *,
    actor: str | Actor,
    reason: str | None = None,
    from_node: str | int | None = None,
    all_nodes: bool = False,
) -> RunChange:
    """Let a run go on: its jobs that failed, expired or were cancelled run again, with all their attempts.

    Jobs that were deleted, or that retention has removed, are inserted again from their nodes, and
    so are all lost items of maps. Nodes that did not run because of them wait for their parents
    again. Nodes that succeeded or were skipped stay so. Rounds, arguments and errors are those of `cancel_workflow`.

    With `from_node` or `all_nodes`, nodes run again whatever they ended as, even if the run has
    succeeded. Their jobs that succeeded are kept as finished jobs of no run, until retention
    removes them. Jobs that have not started are taken back. A durable node begins from its start:
    its steps are dropped, and its children are cancelled. This is one transaction: all or nothing.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        run_id: the run.
        actor: who the audit log names.
        reason: text for the audit log, at most 1,000 characters.
        from_node: the name of a node, or its number from 1: this node and everything downstream of
            it runs again. Other nodes stay as they are, even if they failed.
        all_nodes: True: every node of the run runs again.

    Returns:
        What was done. `done` is False if the run has succeeded, or is being cancelled: retry it
        when its last job has ended. `refused` names jobs that could not be put back. With `from_node`
        or `all_nodes`, `done` is False if `refused` names nodes whose jobs run at this moment, or says
        that the node has not started, or does not exist.

    Raises:
        InvalidOption: `actor` or `reason` is unusable, or `from_node` and `all_nodes` are both given.
    """
    note = AuditRecord("retry_workflow", actor, reason)
    one_round = retrying(run_id, from_node=from_node, all_nodes=all_nodes, note=note)
    return _rounds(conn, schema, run_id, one_round)


class Rounds:
    """The rounds of one change, until none of the run's jobs is left."""

    pause = _PAUSE
    """Seconds to wait before the next round, if the last one has changed nothing."""

    def __init__(self, run_id: int) -> None:
        self._run_id = run_id
        self._rounds = self._jobs = self._stalled = 0

    @property
    def is_first(self) -> bool:
        """Whether no round has been done: only the first one leaves an audit entry."""
        return self._rounds == 0

    @property
    def is_stalled(self) -> bool:
        """Whether the last round has changed nothing."""
        return self._stalled > 0

    def add(self, done: RunChange) -> RunChange | None:
        """Count a round; return what all rounds did, or None if another one is needed.

        Raises JobBusy after 100 rounds in a row that changed nothing.
        """
        self._rounds += 1
        self._jobs += done.jobs
        if not done.left:
            # A later round may find that the run has ended by the one before it.
            return replace(done, jobs=self._jobs, done=done.done or self._rounds > 1)
        self._stalled = 0 if done.jobs else self._stalled + 1
        if self._stalled >= _TRIES:
            raise JobBusy(f"workflow run {self._run_id}: {plural(done.left, 'job')} stayed locked by others: try again")
        return None


def undo_workflow(
    conn: Connection[Any], schema: str, run_id: int, *, actor: str | Actor, reason: str | None = None
) -> RunChange:
    """Undo a run that has ended: call the `undo` tasks of the nodes that have succeeded (``Node.undo``), the last to end first.

    A run that fails or is cancelled is undone without this call. It is for a run that has succeeded. The
    jobs belong to a run of their own: `RunChange.undo_run`. It is one transaction, or a savepoint inside
    the caller's transaction.

    Args:
        conn: a psycopg connection.
        schema: the schema of jobq's tables.
        run_id: the run.
        actor: who the audit log names.
        reason: text for the audit log, at most 1,000 characters.

    Returns:
        What was done. `done` is False if the run has not ended, has nothing to undo, or was undone: `refused` says which.

    Raises:
        WorkflowNotFound: there is no such run.
        InvalidOption: `actor` or `reason` is unusable.
    """
    note = AuditRecord("undo_workflow", actor, reason)
    return _rounds(conn, schema, run_id, lambda _: undo(run_id, note))


def _rounds(conn: Connection[Any], schema: str, run_id: int, one_round: RunRound) -> RunChange:
    rounds = Rounds(run_id)
    while True:
        with conn.transaction():
            done = run_script(sync_executor(conn), schema, one_round(rounds.is_first))
        if done is None:
            raise WorkflowNotFound(f"workflow run {run_id}: there is none with this id, or retention has removed it")
        if (found := rounds.add(done)) is not None:
            return found
        if rounds.is_stalled:
            time.sleep(rounds.pause)
