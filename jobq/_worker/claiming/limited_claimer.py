"""When a round claims from limited queues, and which part of the free slots they get."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from jobq._worker.claiming.capacity import Capacity
from jobq._worker.claiming.delivery import Delivery
from jobq._worker.claiming.finder import JobFinder
from jobq._worker.claiming.session import ClaimSession
from jobq._worker.database import fetch
from jobq._worker.ipc.messages import Success
from jobq._worker.lanes.cursor import ClaimPlan, ClaimSnapshot
from jobq._worker.lease import Lease
from jobq._worker.limited.claims import LimitedClaims
from jobq._worker.limited.queues import CALL_EVERY
from jobq._worker.options import WorkerOptions
from jobq._worker.queue_spec import QueueOrder

# Number of limited queues that are claimed from in a row, however long that takes; and the seconds
# after which further queues give way to other work.
LIMITED_QUEUES, LIMITED_SECONDS = 8, 0.02


class LimitedClaimer:
    """Claims from limited queues for one claim loop."""

    def __init__(
        self,
        options: WorkerOptions,
        *,
        session: ClaimSession,
        finder: JobFinder,
        capacity: Capacity,
        delivery: Delivery,
        lease: Lease,
    ) -> None:
        self._schema = options.settings.schema
        self._strict = options.queues_by is QueueOrder.STRICT
        self._session = session
        self._finder = finder
        self._limited = finder.limited
        self._parts = finder.lanes.parts
        self._claims = LimitedClaims(self._schema, finder.limited)
        self._capacity = capacity
        self._delivery = delivery
        self._lease = lease
        self._busy: frozenset[str] = frozenset()
        """The plain queues that gave jobs in the last claim, while there are limited queues."""

    def plain_claim_saw(self, scan: ClaimPlan, sight: ClaimSnapshot) -> None:
        """Record a successful plain claim: queues that gave jobs get a part of the free slots."""
        if self._limited.queues:
            self._busy = frozenset(scan.queues[place] for place, _ in sight.counts)

    async def claim(self, beside: str | None = None) -> None:
        """Claim from the queues that are due.

        They get a fair share while plain queues have more jobs, otherwise as many as can start at
        once. `beside`: leave out this queue. It is about to be claimed from together with its own
        outcomes.
        """
        session = self._session
        if self._limited.poll_due:
            async with session.lock:
                connection = await session.connected()
                await session.attempt("look at the queues with rules", self._limited.poll(connection), connection)
        queues = self._parts.among(self._limited.due(), beside)
        if not queues:
            return
        begun = time.monotonic()
        # The worker and the free room are certain only when no claimed job is undelivered.
        self._delivery.deliver()
        for number, (queue, share) in enumerate(queues, 1):
            async with session.lock:
                connection = await session.connected()
                part = self._part(queue, self._capacity.want()) * share
                # Round at random, so that one free slot is used with probability `part`. Later
                # queues get the rest.
                if (room := math.floor(part + random.random()) if share < 1 else math.ceil(part)) <= 0:
                    continue
                worker = self._lease.worker
                claimed = await self._claims.claim(connection, worker, queue, room)
            self._delivery.hand_out(claimed, worker)
            if self._strict and queue in self._limited.due():
                # The queue has more jobs, and outcomes that arrived in the meantime make room for
                # those first.
                return
            if number >= LIMITED_QUEUES and time.monotonic() - begun > LIMITED_SECONDS:
                # The other queues stay due. Outcomes and plain jobs must not wait for all of them.
                return

    def _part(self, queue: str, want: int) -> int:
        """Return how many of `want` jobs to claim from `queue`."""
        if not self._finder.more:
            # Claim nothing ahead of need: a permit that waits here is missing elsewhere.
            return min(want, self._capacity.startable())
        # The queue's part. With one free slot, the part is the probability of a claim.
        share = self._parts.beside_plain(queue, self._busy)
        return math.floor(want * share + random.random()) if 0 < share < 1 else round(want * share)

    # --- claims in one commit with outcomes --------------------

    def part_beside(self, queue: str, want: int) -> int:
        """Return how many of `want` jobs to claim from `queue` in one commit with its outcomes.

        If other limited queues are due, they share the room that its jobs leave in the next round.
        """
        share = self._parts.against(queue, self._limited.due())
        part = self._part(queue, want)
        return math.floor(part * share + random.random()) if share < 1 else part

    def claimed_beside(
        self, claim: dict[str, Any], rows: Sequence[tuple[Any, ...]], successes: list[Success], worker: UUID
    ) -> None:
        """Hand out the jobs of such a claim, which was committed together with `successes`."""
        self._limited.ended(successes, seen_by=claim["queue"])
        self._delivery.hand_out(self._limited.took(claim, rows), worker)

    # --- jobs that are left to other workers --------------------

    async def call_others(self, every: float = CALL_EVERY) -> None:
        """Notify other workers of jobs that this one leaves, once per `every` seconds and queue."""
        if queues := self._limited.left_behind(every=every):
            async with self._session.lock:
                connection = await self._session.connected()
                await fetch(connection, self._schema, "notify_workers", channel=self._schema, queues=queues)
