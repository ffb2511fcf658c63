"""The resources of eager jobs that run on the caller's event loop, perhaps several at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from jobq._app.resources import ResourceFunction, Resources
from jobq._worker.runner.open_resources import OpenResources


@dataclass(slots=True)
class _Use:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the resource is being created or closed."""
    users: int = 0
    """Number of jobs that use the resource or wait for it."""
    made: bool = False
    """Whether these jobs have created it: `EagerJobs.close` closes what other jobs have created."""


class SharedResources:
    """Creates a resource for the first job that needs it, and closes it after the last.

    After the test's event loop has ended, there is no loop on which to close it.
    """

    def __init__(self, declared: Resources, resources: OpenResources) -> None:
        self._declared = declared
        self._resources = resources
        self._uses: dict[ResourceFunction, _Use] = {}

    async def enter(self, stack: AsyncExitStack, wanted: Iterable[ResourceFunction]) -> None:
        """Open `wanted` with all their dependencies, until `stack` ends.

        Raises whatever a resource raises.
        """
        for resource in self._declared.in_order(wanted):
            await stack.enter_async_context(self._used(resource))

    @asynccontextmanager
    async def _used(self, resource: ResourceFunction) -> AsyncIterator[None]:
        use = self._uses.setdefault(resource, _Use())
        use.users += 1
        try:
            async with use.lock:
                use.made = bool(await self._resources.open_async([resource])) or use.made
            yield
        finally:
            async with use.lock:
                use.users -= 1
                if not use.users and use.made:
                    use.made = False
                    await self._resources.close_async([resource])
            # Another job may have come while it was being closed, and needs the same lock.
            if not use.users:
                self._uses.pop(resource, None)
