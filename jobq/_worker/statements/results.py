"""Results of the claim loop's statements: the claimed jobs and the accepted outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import psycopg

from jobq._core.validation import LONGEST
from jobq._worker.ipc.messages import Failure, Job, Success
from jobq._worker.lanes.cursor import BEGINNING, ClaimPlan, ClaimSnapshot
from jobq._worker.lanes.horizon import next_transaction

_id = attrgetter("id")


@dataclass(frozen=True, slots=True)
class Claimed:
    """Result of ack_and_claim.sql: the number of accepted outcomes, and unparsed rows of jobs."""

    accepted: int = 0
    sight: ClaimSnapshot | None = None
    """The snapshot of the claim. None: nothing was claimed."""
    rows: Sequence[tuple[Any, ...]] = ()
    keyed: list[Job] = field(default_factory=list)
    """Filled by `jobs`: the jobs whose keys are held until they start."""
    unwritten: tuple[Success, ...] = ()
    """Successes that the database does not accept at present.

    They are tried again, apart from others.
    """
    error: psycopg.Error | None = None
    """The error of one of `unwritten`."""

    def __len__(self) -> int:
        """Number of claimed jobs."""
        return len(self.rows)

    def jobs(self) -> tuple[list[Job], list[Job]]:
        """Return the jobs to run, and the jobs that had expired.

        The call also fills `keyed` with the jobs that start_jobs.sql starts.
        """
        jobs: list[Job] = []
        expired: list[Job] = []
        self.keyed.clear()
        # Rows of ack_and_claim.sql do not contain the moment of the claim, because it is the same
        # for all.
        at = self.sight.at if self.sight is not None else 0
        for (
            id_,
            claims,
            task,
            queue,
            args,
            attempt,
            most,
            crashes,
            timeout,
            headers,
            late,
            started,
            keyed,
            alone,
            releases,
        ) in self.rows:
            job = Job(
                id_,
                claims,
                task,
                queue,
                args.encode(),
                attempt,
                most,
                crashes,
                # Infinity, NaN and 1e300 come from a row that was written past the constraints. No
                # clock counts that far.
                timeout if timeout is None or timeout <= LONGEST else None,
                headers.encode(),
                started or at,
                alone,
                releases,
            )
            if late or keyed:
                (expired if late else self.keyed).append(job)
            else:
                jobs.append(job)
        return jobs, expired


@dataclass(frozen=True, slots=True)
class Settled:
    """The results of writing failures. Each failure is in exactly one of these lists."""

    accepted: tuple[Failure, ...] = ()
    busy: tuple[Failure, ...] = ()
    """Their jobs' rows are locked. They are tried again."""
    refused: tuple[Failure, ...] = ()
    """The fence refused them: the jobs no longer belong to these executions."""
    lowered: tuple[tuple[str, int], ...] = ()
    """Queues where jobs keep their places, and the run_at (microseconds) to read again from."""
    queues: frozenset[str] = frozenset()
    """The queues whose jobs can be claimed again."""
    unwritten: tuple[Failure, ...] = ()
    """Failures that the database does not store in any form at present.

    They are tried again, apart from others.
    """
    error: psycopg.Error | None = None
    """The error of one of `unwritten`."""

    def __add__(self, other: Settled) -> Settled:
        return Settled(
            self.accepted + other.accepted,
            self.busy + other.busy,
            self.refused + other.refused,
            self.lowered + other.lowered,
            self.queues | other.queues,
            self.unwritten + other.unwritten,
            self.error or other.error,
        )


def claimed(first: tuple[Any, ...], rows: Sequence[tuple[Any, ...]], scan: ClaimPlan) -> Claimed:
    """Parse the rows of ack_and_claim.sql. `first` is the first of them."""
    if not scan.queues:
        return Claimed(first[0])
    at, xmin, xmax, given, *end = map(int, first[2].split())
    following = next_transaction(xmax, given)
    cut, last = (end[0], (end[1], end[2])) if end else (None, BEGINNING)
    counts = [*map(int, first[3].split())] if first[3] else []
    pairs = tuple(zip(counts[::2], counts[1::2], strict=True))
    return Claimed(
        first[0], ClaimSnapshot(at=at, xmin=xmin, following=following, cut=cut, last=last, counts=pairs), rows
    )


def settled(setbacks: list[Failure], rows: Sequence[tuple[Any, ...]]) -> Settled:
    """Parse the rows of record_failures.sql for `setbacks`."""
    ordered = sorted(setbacks, key=_id)
    answers = {place: accepted for place, accepted, *_ in rows}
    lowered: dict[str, int] = {}
    for _, _, queue, run_at in rows:
        if run_at is not None:
            lowered[queue] = min(run_at, lowered.get(queue, run_at))
    return Settled(
        tuple(setback for place, setback in enumerate(ordered, 1) if answers.get(place) is True),
        tuple(setback for place, setback in enumerate(ordered, 1) if answers.get(place) is False),
        tuple(setback for place, setback in enumerate(ordered, 1) if place not in answers),
        tuple(lowered.items()),
        frozenset(queue for _, _, queue, _ in rows if queue is not None),
    )
