"""The part of JobQ that sends signals to durable jobs and to workflows' runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobq._core.validation import check_int
from jobq._postgres.adapters import async_executor, sync_executor
from jobq._postgres.sql import statement
from jobq.jobref import JobRef
from jobq.steps.signals import sent_signal, signal_parameters
from jobq.workflow.run import WorkflowRun

if TYPE_CHECKING:
    from jobq._postgres.adapters import AnyAsyncConnection, AnyConnection
    from jobq._postgres.pool import Pools
    from jobq.settings import Settings


class Signals:
    """An application's methods to send signals."""

    _settings: Settings
    _pools: Pools

    def send_signal(
        self,
        connection: AnyConnection | None,
        target: JobRef[Any] | WorkflowRun[Any] | int,
        name: str,
        payload: object = None,
        *,
        sent_by: str | None = None,
    ) -> int:
        """Send a signal to a durable job, inside the transaction of `connection`; return the signal's id.

        The job takes it by ``step.wait_for(name, …)``: before, during or after this call. A signal is
        kept until it is taken, and taken once. It has an effect if and when the transaction commits::

            with engine.begin() as connection:
                connection.execute(update_order)
                q.send_signal(connection, order.approval_job, "approval", Approval(by="ada"))

        Args:
            connection: as for ``task.enqueue``; None: a separate transaction, on a connection of the
                pool.
            target: the job, as a reference or an id; or a workflow's run, whose first node that asks
                takes the signal.
            name: the signal's name, 1 to 200 characters.
            payload: a value that pydantic can turn into JSON, up to ``max_args_bytes``.
            sent_by: who sends it, for the page; at most 200 characters.

        Raises:
            SignalNotSent: the target has finished, or does not exist. The transaction is still usable.
            InvalidArguments: the payload cannot be stored.
            InvalidOption: the name or the target is unusable.
        """
        values = self._signal(target, name, payload, sent_by)
        send = statement("send_signal", self._settings.schema)
        if connection is not None:
            return sent_signal(values, sync_executor(connection).execute(send, values))
        with self._pools.connection() as own:
            return sent_signal(values, sync_executor(own).execute(send, values))

    async def send_signal_async(
        self,
        connection: AnyAsyncConnection | None,
        target: JobRef[Any] | WorkflowRun[Any] | int,
        name: str,
        payload: object = None,
        *,
        sent_by: str | None = None,
    ) -> int:
        """Send a signal on an asynchronous connection, like `send_signal`."""
        values = self._signal(target, name, payload, sent_by)
        send = statement("send_signal", self._settings.schema)
        if connection is not None:
            return sent_signal(values, await (await async_executor(connection)).execute(send, values))
        async with self._pools.connection_async() as own:
            return sent_signal(values, await (await async_executor(own)).execute(send, values))

    def _signal(self, target: object, name: str, payload: object, sent_by: str | None) -> dict[str, Any]:
        job = run = None
        if isinstance(target, WorkflowRun):
            run = target.id
        else:
            job = check_int("target", target.id if isinstance(target, JobRef) else target, 0, 2**63 - 1)
        limit = self._settings.max_args_bytes
        return signal_parameters(name, payload, job=job, run=run, sent_by=sent_by, max_bytes=limit)
