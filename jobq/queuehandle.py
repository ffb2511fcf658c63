"""One queue, and one group of it, from Python: ``q.queue("mail").set(limit=20, rate="50/s")``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from jobq.connections import OWN, AsyncExecutor, Executor, Own, async_executor, sync_executor
from jobq.errors import InvalidOption
from jobq.flow import Groups, QueueSettings, Rate
from jobq.operations.actors import Actor, Note, checked_name, current_actor
from jobq.operations.queues import pausing, resuming
from jobq.operations.scripts import Script, play, play_async
from jobq.operations.settings import UNCHANGED, Keep, QueueChange, Wanted, configuring, configuring_group, reading

if TYPE_CHECKING:
    from jobq.connections import AnyAsyncConnection, AnyConnection

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Way:
    """The way to the database: the schema, asked for at each call, and connections lent in a transaction of their own."""

    schema: Callable[[], str]
    lend: Callable[[], AbstractContextManager[psycopg.Connection[Any]]]
    lend_async: Callable[[], AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]]

    @contextmanager
    def executor(self, connection: AnyConnection | Own) -> Iterator[Executor]:
        """Yield what runs statements on `connection`, or on one of jobq's own (OWN)."""
        if connection is not OWN:
            yield sync_executor(connection)
        else:
            with self.lend() as own:
                yield sync_executor(own)

    @asynccontextmanager
    async def executor_async(self, connection: AnyAsyncConnection | Own) -> AsyncIterator[AsyncExecutor]:
        """Yield what runs statements like `executor`."""
        if connection is not OWN:
            yield await async_executor(connection)
        else:
            async with self.lend_async() as own:
                yield await async_executor(own)

    def play(self, connection: AnyConnection | Own, script: Script[T]) -> T:
        """Run a script."""
        with self.executor(connection) as executor:
            return play(executor, self.schema(), script)

    async def play_async(self, connection: AnyAsyncConnection | Own, script: Script[T]) -> T:
        """Run a script."""
        async with self.executor_async(connection) as executor:
            return await play_async(executor, self.schema(), script)


class QueueHandle:
    """One queue of an application, to see and change what is set for it. Made by ``q.queue(name)``; it need not exist yet.

    Each method works in a transaction of its own, on jobq's connections (OWN, the default), or on the caller's `connection` and
    in its transaction. None is refused: it may be a connection that was forgotten, and the change would be committed past
    your transaction. Other workers see the change at the commit, and until then claims of this queue wait. `actor` is who the
    audit says it was (default: JOBQ_ACTOR, else the user and the host); `reason` stands there too. The methods that end in
    ``_async`` are the same for event loops.

    Raises InvalidOption for a name that no queue can have.
    """

    __slots__ = ("_way", "name")

    def __init__(self, way: Way, name: str) -> None:
        self.name = checked_name("queue", name, 100)
        self._way = way

    def set(
        self,
        *,
        limit: int | Keep | None = UNCHANGED,
        rate: Rate | str | Keep | None = UNCHANGED,
        burst: int | Keep = UNCHANGED,
        groups: Groups | str | Keep | None = UNCHANGED,
        group_rate: Rate | str | Keep | None = UNCHANGED,
        group_burst: int | Keep = UNCHANGED,
        connection: AnyConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> QueueChange:
        """Set what is given; None clears it, and what is not given stays.

        :param limit: most of its jobs that run at a time, over all workers.
        :param rate: most starts in a time, over all workers and evenly: ``"50/s"``, ``"5/10s"``, ``"100/min"``, ``"3/day"``.
        :param burst: how many may start at once after a quiet time (default 1).
        :param groups: how groups run: ``"ordered"``, ``"ordered:pass"``, ``"limited:3"``, ``"fair"``, ``"fair:5"``.
        :param group_rate: most starts of each group in a time.
        :param group_burst: as `burst`, of each group.

        Raises InvalidOption with the field, its value and what to do.
        """
        wanted = Wanted(
            limit=limit, rate=rate, burst=burst, groups=groups, group_rate=group_rate, group_burst=group_burst
        )
        return self._way.play(connection, self._configuring(wanted, reason, actor))

    async def set_async(
        self,
        *,
        limit: int | Keep | None = UNCHANGED,
        rate: Rate | str | Keep | None = UNCHANGED,
        burst: int | Keep = UNCHANGED,
        groups: Groups | str | Keep | None = UNCHANGED,
        group_rate: Rate | str | Keep | None = UNCHANGED,
        group_burst: int | Keep = UNCHANGED,
        connection: AnyAsyncConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> QueueChange:
        """Set what is given, like `set`."""
        wanted = Wanted(
            limit=limit, rate=rate, burst=burst, groups=groups, group_rate=group_rate, group_burst=group_burst
        )
        return await self._way.play_async(connection, self._configuring(wanted, reason, actor))

    def pause(
        self,
        *,
        connection: AnyConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> bool:
        """Start no more of its jobs; those that run go on. False when it was paused already. Raises UnknownQueue."""
        return self._way.play(connection, pausing(self._way.schema(), self.name, _note("pause", actor, reason)))

    async def pause_async(
        self,
        *,
        connection: AnyAsyncConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> bool:
        """Start no more of its jobs, like `pause`."""
        script = pausing(self._way.schema(), self.name, _note("pause", actor, reason))
        return await self._way.play_async(connection, script)

    def resume(
        self,
        *,
        connection: AnyConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> bool:
        """Start its jobs again. False when it was not paused. Raises UnknownQueue."""
        return self._way.play(connection, resuming(self._way.schema(), self.name, _note("resume", actor, reason)))

    async def resume_async(
        self,
        *,
        connection: AnyAsyncConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> bool:
        """Start its jobs again, like `resume`."""
        script = resuming(self._way.schema(), self.name, _note("resume", actor, reason))
        return await self._way.play_async(connection, script)

    def settings(self, *, connection: AnyConnection | Own = OWN) -> QueueSettings:
        """Return what is set; ``.describe()`` says it in words."""
        return self._way.play(connection, reading(self.name))

    async def settings_async(self, *, connection: AnyAsyncConnection | Own = OWN) -> QueueSettings:
        """Return what is set, like `settings`."""
        return await self._way.play_async(connection, reading(self.name))

    def group(self, key: str) -> GroupHandle:
        """Return one group of the queue, by the key that its jobs were enqueued with. Raises InvalidOption."""
        return GroupHandle(self._way, self.name, key)

    def _configuring(self, wanted: Wanted, reason: str | None, actor: str | Actor | None) -> Script[QueueChange]:
        return configuring(self._way.schema(), self.name, wanted, _note("configure", actor, reason))

    def __repr__(self) -> str:
        return f"<queue {self.name!r}>"


class GroupHandle:
    """One group of a queue. Made by ``q.queue(name).group(key)``."""

    __slots__ = ("_way", "key", "queue")

    def __init__(self, way: Way, queue: str, key: str) -> None:
        self.queue = queue
        self.key = checked_name("group", key, 200)
        self._way = way

    def set(
        self,
        *,
        limit: int | None,
        connection: AnyConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> bool:
        """Let at most `limit` of its jobs run at a time, instead of what the queue says of each group; None: as that says.

        False when it was so before. Raises InvalidOption, also where the queue has no rule for groups, or ``ordered``.
        """
        return self._way.play(connection, self._configuring(limit, reason, actor))

    async def set_async(
        self,
        *,
        limit: int | None,
        connection: AnyAsyncConnection | Own = OWN,
        reason: str | None = None,
        actor: str | Actor | None = None,
    ) -> bool:
        """Let at most `limit` of its jobs run at a time, like `set`."""
        return await self._way.play_async(connection, self._configuring(limit, reason, actor))

    def _configuring(self, limit: int | None, reason: str | None, actor: str | Actor | None) -> Script[bool]:
        note = _note("configure_group", actor, reason)
        return configuring_group(self._way.schema(), self.queue, self.key, limit, note)

    def __repr__(self) -> str:
        return f"<group {self.key!r} of queue {self.queue!r}>"


def _note(action: str, actor: str | Actor | None, reason: str | None) -> Note:
    for name, value in (("actor", actor), ("reason", reason)):
        if value is not None and not isinstance(value, (str, Actor)):
            raise InvalidOption(f"{name}={value!r}: give text")
    return Note(action, current_actor("python") if actor is None else actor, reason)
