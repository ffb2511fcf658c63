"""The part of JobQ that inserts jobs, on the caller's connection or on one of jobq's pool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

from jobq._postgres import enqueue
from jobq.job import InsertResult, NewJob

if TYPE_CHECKING:
    from jobq._postgres.adapters import AnyAsyncConnection, AnyConnection
    from jobq._postgres.pool import Pools
    from jobq.jobref import JobRef
    from jobq.middleware import Middlewares
    from jobq.settings import Settings
    from jobq.task import BaseTask


class Inserts:
    """An application's methods to insert jobs."""

    _settings: Settings
    _pools: Pools
    _middlewares: Middlewares
    _tasks: dict[str, BaseTask[..., Any]]

    def get_task(self, name: str) -> BaseTask[..., Any]:
        """Return the task called `name`. Raises UnknownTask."""
        raise NotImplementedError

    def enqueue_many(self, connection: AnyConnection, jobs: Iterable[NewJob]) -> list[JobRef[Any]]:
        """Insert many jobs (``task.job(…)``) on `connection`, inside its transaction.

        One call can insert 100,000 jobs.

        Args:
            connection: as for ``task.enqueue``.
            jobs: the jobs to insert.

        Returns:
            A reference to each job, in the same order.

        Raises:
            UnknownTask: a job belongs to another application.
            InvalidOption: some keys are to be replaced and others to raise.
            JobqError: any error of ``task.enqueue``.
        """
        listed = self._listed(jobs)
        return self._references(listed, self.insert(connection, listed))

    async def enqueue_many_async(self, connection: AnyAsyncConnection, jobs: Iterable[NewJob]) -> list[JobRef[Any]]:
        """Insert many jobs on an asynchronous connection, like `enqueue_many`."""
        listed = self._listed(jobs)
        return self._references(listed, await self.insert_async(connection, listed))

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend a psycopg connection of jobq's pool, in a transaction that commits at the end.

        Raises DatabaseUnavailable.
        """
        with self._pools.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def connection_async(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Lend an asynchronous psycopg connection of jobq's pool, like `connection`."""
        async with self._pools.connection_async() as connection, connection.transaction():
            yield connection

    # --- What tasks and references need from their application -----------------------------------

    def insert(self, connection: AnyConnection, jobs: Sequence[NewJob]) -> list[InsertResult]:
        """Insert `jobs` on `connection`."""
        return self._middlewares.insert(jobs, partial(enqueue.insert, connection, self._settings.schema))

    async def insert_async(self, connection: AnyAsyncConnection, jobs: Sequence[NewJob]) -> list[InsertResult]:
        """Insert `jobs` like `insert`."""
        insert = partial(enqueue.insert_async, connection, self._settings.schema)
        return await self._middlewares.insert_async(jobs, insert)

    def insert_own(self, jobs: Sequence[NewJob]) -> list[InsertResult]:
        """Insert `jobs` in a separate transaction."""

        def insert(jobs: Sequence[NewJob]) -> list[InsertResult]:
            with self._pools.connection() as own:
                return enqueue.insert(own, self._settings.schema, jobs)

        return self._middlewares.insert(jobs, insert)

    async def insert_own_async(self, jobs: Sequence[NewJob]) -> list[InsertResult]:
        """Insert `jobs` like `insert_own`."""

        async def insert(jobs: Sequence[NewJob]) -> list[InsertResult]:
            async with self._pools.connection_async() as own:
                return await enqueue.insert_async(own, self._settings.schema, jobs)

        return await self._middlewares.insert_async(jobs, insert)

    def _listed(self, jobs: Iterable[NewJob]) -> list[NewJob]:
        listed = list(jobs)
        for name in {job.options.task for job in listed}:
            self.get_task(name)
        return listed

    def _references(self, jobs: Sequence[NewJob], inserted: Sequence[InsertResult]) -> list[JobRef[Any]]:
        return [self._tasks[job.options.task].reference(job, done) for job, done in zip(jobs, inserted, strict=True)]
