"""References to workflows' runs: `WorkflowRun` reads the state and the result, cancels and retries."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from jobq.errors import ResultTimeout, WorkflowFailed, WorkflowNotFound

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

WorkflowState = Literal["running", "blocked", "succeeded", "failed", "cancelled"]
ENDED = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowStatus:
    """What the database records for a run."""

    state: WorkflowState
    reason: str | None = None
    """Why it was cancelled, or what failed."""
    result: str | None = None
    """The result of the node that the run returns, as JSON text, once the run has ended."""

    @property
    def finished(self) -> bool:
        return self.state in ENDED


class WorkflowSource(Protocol):
    """Where runs are looked up."""

    def workflow_status(self, run_id: int, returns: int | None) -> WorkflowStatus | None: ...

    async def workflow_status_async(self, run_id: int, returns: int | None) -> WorkflowStatus | None: ...

    def cancel_workflow(self, run_id: int, reason: str | None) -> bool | None: ...

    async def cancel_workflow_async(self, run_id: int, reason: str | None) -> bool | None: ...

    def retry_workflow(
        self, run_id: int, reason: str | None, from_node: str | int | None, all_nodes: bool
    ) -> bool | None: ...

    async def retry_workflow_async(
        self, run_id: int, reason: str | None, from_node: str | int | None, all_nodes: bool
    ) -> bool | None: ...

    @property
    def waiting_helps(self) -> bool: ...


class WorkflowRun(Generic[R_co]):
    """A run that was inserted, that holds the requested key, or that ``q.workflow_run(id)`` names."""

    __slots__ = ("_decode", "_returns", "_source", "created", "id", "key", "name")

    id: int
    """The run's id."""
    name: str | None
    """The workflow's name; None if the run was looked up by its id."""
    key: str | None
    """The idempotency key, or None."""
    created: bool
    """True if this call inserted the run; False if another run of this name holds the key."""

    def __init__(
        self,
        run_id: int,
        *,
        name: str | None,
        key: str | None,
        created: bool,
        source: WorkflowSource,
        returns: int | None,
        decode: Callable[[str], Any],
    ) -> None:
        self.id = run_id
        self.name = name
        self.key = key
        self.created = created
        self._source = source
        self._returns = returns
        self._decode = decode

    def state(self) -> WorkflowState:
        """Return the run's state.

        ``running``; ``blocked``: a node has failed, and the rest waits for an operator (see
        `on_failure`); ``succeeded``, ``failed`` or ``cancelled``. It is read on a connection of
        jobq's own, which sees the run only after your transaction has committed. Raises
        WorkflowNotFound and DatabaseUnavailable.
        """
        return self._check(self._source.workflow_status(self.id, None)).state

    async def state_async(self) -> WorkflowState:
        """Return the run's state, like `state`."""
        return self._check(await self._source.workflow_status_async(self.id, None)).state

    def cancel(self, reason: str | None = None) -> bool:
        """Cancel the run: none of its nodes starts after that, and its running jobs are asked to stop.

        It needs the rights of ``jobq_operator`` (deploy/roles.sql), and leaves an audit entry.

        Args:
            reason: text for the audit log, at most 1,000 characters.

        Returns:
            True if that was done; False if the run had ended already.

        Raises:
            WorkflowNotFound: there is no such run.
            DatabaseUnavailable: the database cannot be reached.
        """
        return self._check(self._source.cancel_workflow(self.id, reason))

    async def cancel_async(self, reason: str | None = None) -> bool:
        """Cancel the run, like `cancel`."""
        return self._check(await self._source.cancel_workflow_async(self.id, reason))

    def retry(self, reason: str | None = None, *, from_node: str | int | None = None, all_nodes: bool = False) -> bool:
        """Let the run go on, even if it has ended.

        Without `from_node` and `all_nodes`, the jobs that failed, expired or were cancelled run
        again, and nodes that did not run because of them wait again. It needs the rights of
        ``jobq_operator`` (deploy/roles.sql), and leaves an audit entry.

        Args:
            reason: text for the audit log, at most 1,000 characters.
            from_node: the name of a node, or its number from 1: this node and everything downstream
                of it run again, even if they succeeded. A durable node begins from its start.
                Other nodes keep their ends.
            all_nodes: True: every node runs again.

        Returns:
            True if that was done. False if the run is being cancelled and has running jobs; without
            `from_node` and `all_nodes` also if it has succeeded.

        Raises:
            WorkflowNotFound: there is no such run.
            OperationRefused: with `from_node` or `all_nodes`: nodes that would run again run at this
                moment, or the node has not started, or does not exist. Nothing was changed.
            JobBusy: some of its jobs stayed locked by others for 5 s.
            InvalidOption: `from_node` and `all_nodes` are both given.
            DatabaseUnavailable: the database cannot be reached.

        Example::

            run = q.workflow_run(12)
            run.retry("the rates were wrong", from_node="charge")
        """
        return self._check(self._source.retry_workflow(self.id, reason, from_node, all_nodes))

    async def retry_async(
        self, reason: str | None = None, *, from_node: str | int | None = None, all_nodes: bool = False
    ) -> bool:
        """Let the run go on, like `retry`."""
        return self._check(await self._source.retry_workflow_async(self.id, reason, from_node, all_nodes))

    def result(self, timeout: float | None = None) -> R_co:
        """Wait until the run has ended, and return the result of the node that it returns.

        No connection is held while waiting.

        Args:
            timeout: most seconds to wait; None (default): no limit.

        Raises:
            ResultTimeout: the run did not end in time; it continues.
            WorkflowFailed: the run ended in another state than ``succeeded``, or is blocked.
            WorkflowNotFound: there is no such run.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        for pause in _pauses():
            found = self._check(self._source.workflow_status(self.id, self._returns))
            if found.finished or found.state == "blocked":
                return self._result_or_raise(found)
            if (left := deadline - time.monotonic()) <= 0 or not self._source.waiting_helps:
                raise ResultTimeout(f"workflow run {self.id} is still running after {timeout:g} s; it goes on")
            time.sleep(min(pause, left))
        raise AssertionError("unreachable")

    async def result_async(self, timeout: float | None = None) -> R_co:  # noqa: ASYNC109  # as `result`
        """Wait for the run and return its result, like `result`."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        for pause in _pauses():
            found = self._check(await self._source.workflow_status_async(self.id, self._returns))
            if found.finished or found.state == "blocked":
                return self._result_or_raise(found)
            if (left := deadline - time.monotonic()) <= 0 or not self._source.waiting_helps:
                raise ResultTimeout(f"workflow run {self.id} is still running after {timeout:g} s; it goes on")
            await asyncio.sleep(min(pause, left))
        raise AssertionError("unreachable")

    def __repr__(self) -> str:
        return f"WorkflowRun(id={self.id}, name={self.name!r}, created={self.created})"

    def _check(self, found: T | None) -> T:
        if found is None:
            raise WorkflowNotFound(
                f"there is no workflow run {self.id}: its transaction has not committed or was rolled back, "
                "or retention has removed it"
            )
        return found

    def _result_or_raise(self, found: WorkflowStatus) -> R_co:
        if found.state != "succeeded":
            raise WorkflowFailed(self.id, found.state, found.reason)
        result: R_co = self._decode("null" if found.result is None else found.result)
        return result


def _pauses() -> Iterator[float]:
    """Yield the waits between looks: 10 ms at first, then longer, up to half a second."""
    pause = 0.01
    while True:
        yield pause
        pause = min(pause * 1.5, 0.5)
