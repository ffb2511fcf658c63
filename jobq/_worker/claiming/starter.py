"""Starts jobs that hold keys: releases the keys first, then sends the jobs to runners."""

from __future__ import annotations

import time
from uuid import UUID

import psycopg

from jobq._worker.claiming.capacity import ClaimGate
from jobq._worker.claiming.delivery import Delivery
from jobq._worker.claiming.finder import JobFinder
from jobq._worker.claiming.session import ClaimSession
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.problems import Problems
from jobq._worker.health.metrics import Metrics
from jobq._worker.health.stalls import RateLimitedLog
from jobq._worker.ipc.messages import Disposition, Failure, Job
from jobq._worker.lease import Lease
from jobq._worker.outcomes.outcome_buffer import OutcomeBuffer
from jobq._worker.runners.key_starts import REFUSED, Verdicts
from jobq._worker.runners.pool import RunnerPool

START = "start jobs with keys"


class JobStarter:
    """Starts the jobs of one claim loop."""

    def __init__(
        self,
        schema: str,
        *,
        session: ClaimSession,
        finder: JobFinder,
        gate: ClaimGate,
        pool: RunnerPool,
        outcomes: OutcomeBuffer,
        delivery: Delivery,
        lease: Lease,
        metrics: Metrics | None,
        problems: Problems,
        repeats: RateLimitedLog,
    ) -> None:
        self._schema = schema
        self._session = session
        self._finder = finder
        self._gate = gate
        self._pool = pool
        self._outcomes = outcomes
        self._delivery = delivery
        self._lease = lease
        self._metrics = metrics
        self._problems = problems
        self._repeats = repeats

    @property
    def due(self) -> bool:
        """Whether a waiting job may start now and has a free slot."""
        return not self._gate.closed and self._pool.starts.due(self._pool.startable, time.monotonic())

    @property
    def due_at(self) -> float:
        """When to look again, in time.monotonic() seconds.

        Infinity: not before something changes.
        """
        return float("inf") if self._gate.closed else self._pool.starts.due_at(self._pool.startable)

    async def start(self) -> None:
        """Start waiting jobs in free slots. Raises psycopg.Error if the connection is lost."""
        if not self.due:
            return
        starts, session = self._pool.starts, self._session
        self._delivery.deliver()
        async with session.lock:
            connection = await session.connected()
            worker = self._lease.worker
            try:
                found = await starts.start(connection, self._schema, worker, self._pool.startable)
            except psycopg.Error as error:
                kind = classify(error, connection)
                self._failed(starts.failed(error, kind), error)
                if kind is ErrorKind.CONNECTION:
                    raise
                return
            put_back: list[Job] = []
            if stubborn := starts.stubborn(time.monotonic()):
                back = starts.put_back(connection, self._schema, worker, stubborn)
                put_back = await session.attempt("put locked jobs back", back, connection) or []
        self._heed(found, put_back, worker)

    def _heed(self, found: Verdicts, put_back: list[Job], worker: UUID) -> None:
        """Hand out the jobs that start, and report the others.

        `put_back`: jobs that were locked for too long.
        """
        for job in found.expired:
            self._outcomes.set_back(Failure(job.id, job.claims, job.started, Disposition.EXPIRE, message="expired"))
        for job in found.back:
            self._outcomes.set_back(Failure(job.id, job.claims, job.started, Disposition.RELEASE))
        for job in put_back + found.lost:
            gone = Failure(job.id, job.claims, job.started, Disposition.RELEASE)
            self._finder.limited.ended([gone])
            if self._metrics is not None:
                self._metrics.ended(gone)
        if put_back:
            self._finder.look_again()
        # The process may have been suspended while the statement ran. These jobs have not started,
        # and record_failures.sql takes their keys again.
        self._succeeded(found.start)
        if self._gate.closed or self._lease.worker != worker:
            for job in found.start:
                self._outcomes.set_back(Failure(job.id, job.claims, job.started, Disposition.RELEASE))
        elif found.start:
            self._pool.give(found.start, worker)

    def _failed(self, refused: list[tuple[Job, float]], error: psycopg.Error) -> None:
        self._session.attempts.failed(START, error)
        for job, pause in refused:
            self._problems.note(REFUSED, error, job=job.id)
            self._repeats.warn("a job cannot be started: it is put back for a while", error, job=job.id)
            self._outcomes.set_back(Failure(job.id, job.claims, job.started, Disposition.RELEASE, delay=pause))

    def _succeeded(self, started: list[Job]) -> None:
        """Take note that these jobs have started: clear their problems."""
        if started:
            self._problems.clear(START)
        for job in started:
            self._problems.clear(REFUSED, job=job.id)
