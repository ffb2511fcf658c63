"""Parameters of the claim loop's statements."""

from __future__ import annotations

from operator import attrgetter
from typing import Any
from uuid import UUID

from jobq._core.storable import LONGEST_DELAY, LONGEST_RUN, bounded, storable
from jobq._worker.arrays import numbers, texts_array
from jobq._worker.ipc.messages import Disposition, Failure, Success
from jobq._worker.lanes.cursor import ClaimPlan, scan_parameters

_STATES = {
    Disposition.RETRY: "ready",
    Disposition.SNOOZE: "ready",
    Disposition.RELEASE: "ready",
    Disposition.CRASH: "ready",
    Disposition.FAIL: "failed",
    Disposition.CANCEL: "cancelled",
    Disposition.EXPIRE: "expired",
    Disposition.SUCCEED: "succeeded",
}
_id = attrgetter("id")
# The longest batch of one statement. It bounds the statement's time and the work that a failure
# repeats.
MAX_BATCH = 500
_GIVES_BACK = frozenset({Disposition.SNOOZE, Disposition.RELEASE, Disposition.CRASH})
# These endings are not the job's fault. If the job need not wait, it keeps its place in the queue.
_KEEPS_PLACE = frozenset({Disposition.RELEASE, Disposition.CRASH})


def advance_parameters(worker: UUID, successes: list[Success], scan: ClaimPlan, want: int) -> dict[str, Any]:
    """Return the parameters of ack_and_claim.sql.

    Arrays are passed as text, because psycopg would format them item by item in Python.
    """
    # Sorted like in every other writer of jobs, so that two writers cannot deadlock.
    ordered = sorted(successes, key=_id)
    # There are few distinct values for many jobs, and each is a long number.
    moments = {started: str(started) for started in {success.started for success in ordered}}
    return {
        "ids": numbers([success.id for success in ordered]),
        "claims": numbers([success.claims for success in ordered]),
        "started": "{" + ",".join([moments[success.started] for success in ordered]) + "}",
        "results": texts_array([success.result.decode() for success in ordered]),
        "seconds": numbers([success.seconds for success in ordered]),
        "worker": worker,
        "want": want,
        **scan_parameters(scan),
    }


def settle_parameters(
    worker: UUID, setbacks: list[Failure], *, wake: bool = False, channel: str = ""
) -> dict[str, Any]:
    """Return the parameters of record_failures.sql.

    Args:
        worker: The worker that holds the jobs.
        setbacks: The outcomes to record.
        wake: Notify other workers of jobs that can be claimed again.
        channel: The notification channel.
    """
    ordered = sorted(setbacks, key=_id)
    return {
        "worker": worker,
        "ids": [s.id for s in ordered],
        "claims": [s.claims for s in ordered],
        "started": [s.started for s in ordered],
        "states": [_STATES[s.ending] for s in ordered],
        "delays": [
            None if s.ending in _KEEPS_PLACE and s.delay <= 0 else bounded(s.delay, LONGEST_DELAY) for s in ordered
        ],
        "given_back": [int(s.ending in _GIVES_BACK) for s in ordered],
        "crashes": [int(s.recorded == "crashed") for s in ordered],
        "seconds": [s.seconds if s.seconds is None else bounded(s.seconds, LONGEST_RUN) for s in ordered],
        "recorded": [s.recorded for s in ordered],
        "error_types": [storable(s.error_type) for s in ordered],
        "messages": [storable(s.message) for s in ordered],
        "tracebacks": [storable(s.traceback) for s in ordered],
        "logs": [storable(s.log) for s in ordered],
        "run_alone": [s.run_alone for s in ordered],
        "releases": [s.releases for s in ordered],
        "waits": [s.waits for s in ordered],
        "wake": wake,
        "channel": channel,
    }
