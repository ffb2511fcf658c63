"""One queue, or one group of it, from Python: ``q.queue("mail").set(limit=20, rate="50/s")``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from jobq._core.validation import check_text
from jobq._postgres.adapters import OWN, AsyncExecutor, Executor, Own, async_executor, sync_executor
from jobq._postgres.script import Script, run_script, run_script_async
from jobq.errors import InvalidOption
from jobq.limits import Groups, QueueSettings, Rate
from jobq.operations.audit import Actor, AuditRecord, current_actor
from jobq.operations.queue_settings import (
    UNSET,
    QueueChange,
    QueueSettingsPatch,
    Unset,
    configure_group_script,
    configure_script,
    reading_script,
)
from jobq.operations.queues import pause_script, resume_script

if TYPE_CHECKING:
    from jobq._postgres.adapters import AnyAsyncConnection, AnyConnection

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ConnectionSource:
    """Access to the database: the schema, read at each call, and connections with a transaction."""

    schema: Callable[[], str]
    lend: Callable[[], AbstractContextManager[psycopg.Connection[Any]]]
    lend_async: Callable[[], AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]]

    @contextmanager
    def executor(self, connection: AnyConnection | Own) -> Iterator[Executor]:
        """Yield an executor of statements on `connection`, or on one of jobq's own (OWN)."""
        if connection is not OWN:
            yield sync_executor(connection)
        else:
            with self.lend() as own:
                yield sync_executor(own)

    @asynccontextmanager
    async def executor_async(self, connection: AnyAsyncConnection | Own) -> AsyncIterator[AsyncExecutor]:
        """Yield an executor of statements, like `executor`."""
        if connection is not OWN:
            yield await async_executor(connection)
        else:
            async with self.lend_async() as own:
                yield await async_executor(own)

    def run_script(self, connection: AnyConnection | Own, script: Script[T]) -> T:
        """Run a script."""
        with self.executor(connection) as executor:
            return run_script(executor, self.schema(), script)

    async def run_script_async(self, connection: AnyAsyncConnection | Own, script: Script[T]) -> T:
        """Run a script."""
        async with self.executor_async(connection) as executor:
            return await run_script_async(executor, self.schema(), script)


class QueueHandle:
    """One queue of an application, to read and change its settings. Made by ``q.queue(name)``.

    The queue need not exist yet. By default (OWN), each method uses one of jobq's own connections
    and a separate transaction. If you pass `connection`, the method uses it, inside its
    transaction. None is refused: it may be a forgotten connection, and the change would then be
    committed outside your transaction. Workers see the change at the commit; until then, claims of
    this queue wait. `actor` is who the audit log names (default: JOBQ_ACTOR, else the user and
    the host); `reason` is stored there, too. Methods that end in ``_async`` are for event loops.

    Raises InvalidOption if no queue can have this name.
    """

    __slots__ = ("_source", "name")

    def __init__(self, source: ConnectionSource, name: str) -> None:
        self.name = check_text("queue", name, 100)
        self._source = source

    def set(
        self,
        *,
        limit: int | Unset | None = UNSET,
        rate: Rate | str | Unset | None = UNSET,
        burst: int | Unset = UNSET,
        groups: Groups | str | Unset | None = UNSET,
        group_rate: Rate | str | Unset | None = UNSET,
        group_burst: int | Unset = UNSET,
        connection: AnyConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> QueueChange:
        """Change settings. None clears a setting; a setting that is not given stays as it is.

        Args:
            limit: most jobs that run at a time, over all workers.
            rate: most starts in a period, over all workers and spread evenly: ``"50/s"``,
                ``"5/10s"``, ``"100/min"``, ``"3/day"``.
            burst: how many jobs may start at once after an idle time (default 1).
            groups: how groups run: ``"ordered"``, ``"ordered:pass"``, ``"limited:3"``, ``"fair"``,
                ``"fair:5"``.
            group_rate: most starts of each group in a period.
            group_burst: like `burst`, for each group.
            connection: a connection of yours; default: one of jobq's.
            reason: text for the audit log.
            actor: who the audit log names.

        Returns:
            What was set before and after.

        Raises:
            InvalidOption: with the field, its value and what to do.
        """
        wanted = QueueSettingsPatch(
            limit=limit, rate=rate, burst=burst, groups=groups, group_rate=group_rate, group_burst=group_burst
        )
        return self._source.run_script(connection, self._configuring(wanted, reason, actor))

    async def set_async(
        self,
        *,
        limit: int | Unset | None = UNSET,
        rate: Rate | str | Unset | None = UNSET,
        burst: int | Unset = UNSET,
        groups: Groups | str | Unset | None = UNSET,
        group_rate: Rate | str | Unset | None = UNSET,
        group_burst: int | Unset = UNSET,
        connection: AnyAsyncConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> QueueChange:
        """Change settings, like `set`."""
        wanted = QueueSettingsPatch(
            limit=limit, rate=rate, burst=burst, groups=groups, group_rate=group_rate, group_burst=group_burst
        )
        return await self._source.run_script_async(connection, self._configuring(wanted, reason, actor))

    def pause(
        self,
        *,
        connection: AnyConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> bool:
        """Start no more of its jobs; running jobs continue.

        Returns False if it was paused already. Raises UnknownQueue.
        """
        return self._source.run_script(
            connection, pause_script(self._source.schema(), self.name, _note("pause", actor, reason))
        )

    async def pause_async(
        self,
        *,
        connection: AnyAsyncConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> bool:
        """Start no more of its jobs, like `pause`."""
        script = pause_script(self._source.schema(), self.name, _note("pause", actor, reason))
        return await self._source.run_script_async(connection, script)

    def resume(
        self,
        *,
        connection: AnyConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> bool:
        """Start its jobs again. Returns False if it was not paused. Raises UnknownQueue."""
        return self._source.run_script(
            connection, resume_script(self._source.schema(), self.name, _note("resume", actor, reason))
        )

    async def resume_async(
        self,
        *,
        connection: AnyAsyncConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> bool:
        """Start its jobs again, like `resume`."""
        script = resume_script(self._source.schema(), self.name, _note("resume", actor, reason))
        return await self._source.run_script_async(connection, script)

    def settings(self, *, connection: AnyConnection | Own = OWN) -> QueueSettings:
        """Return the settings; ``.describe()`` gives them in words."""
        return self._source.run_script(connection, reading_script(self.name))

    async def settings_async(self, *, connection: AnyAsyncConnection | Own = OWN) -> QueueSettings:
        """Return the settings, like `settings`."""
        return await self._source.run_script_async(connection, reading_script(self.name))

    def group(self, key: str) -> GroupHandle:
        """Return one group of the queue, by the key given when its jobs were enqueued.

        Raises InvalidOption.
        """
        return GroupHandle(self._source, self.name, key)

    def _configuring(
        self, wanted: QueueSettingsPatch, reason: str | None, actor: str | Actor | None
    ) -> Script[QueueChange]:
        return configure_script(self._source.schema(), self.name, wanted, _note("configure", actor, reason))

    def __repr__(self) -> str:
        return f"<queue {self.name!r}>"


class GroupHandle:
    """One group of a queue. Made by ``q.queue(name).group(key)``."""

    __slots__ = ("_source", "key", "queue")

    def __init__(self, source: ConnectionSource, queue: str, key: str) -> None:
        self.queue = queue
        self.key = check_text("group", key, 200)
        self._source = source

    def set(
        self,
        *,
        limit: int | None,
        connection: AnyConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> bool:
        """Let at most `limit` jobs of this group run at a time, whatever the queue's rule says.

        None removes the group's own limit. Returns False if nothing changed. Raises InvalidOption,
        also if the queue has no group rule or the rule ``ordered``.
        """
        return self._source.run_script(connection, self._configuring(limit, reason, actor))

    async def set_async(
        self,
        *,
        limit: int | None,
        connection: AnyAsyncConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> bool:
        """Set the group's own limit, like `set`."""
        return await self._source.run_script_async(connection, self._configuring(limit, reason, actor))

    def _configuring(self, limit: int | None, reason: str | None, actor: str | Actor | None) -> Script[bool]:
        note = _note("configure_group", actor, reason)
        return configure_group_script(self._source.schema(), self.queue, self.key, limit, note)

    def __repr__(self) -> str:
        return f"<group {self.key!r} of queue {self.queue!r}>"


def _note(action: str, actor: str | Actor | None, reason: str | None) -> AuditRecord:
    for name, value in (("actor", actor), ("reason", reason)):
        if value is not None and not isinstance(value, (str, Actor)):
            raise InvalidOption(f"{name}={value!r}: expected text")
    return AuditRecord(action, current_actor("python") if actor is None else actor, reason)
