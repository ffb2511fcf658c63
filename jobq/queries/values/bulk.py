"""A bulk operation as a value: the request, the progress, and the outcomes of its jobs.

`jobq.operations` creates and changes them, `jobq.queries` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobq.filters import JobFilter

UNFINISHED_STATES = ("draft", "running", "paused", "failed")
# After this many seconds a preview is outdated.
DRAFT_SECONDS = 3600.0
# If an operation has more jobs than this, the user must type the count.
TYPED_ABOVE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One change over a filter. Times are aware and from the database's clock.

    `state`: ``draft`` (previewed, not started), ``running``, ``paused``, ``cancelled``, ``done``,
    ``failed`` (`error` says why; it can be resumed). `expected`: number of jobs that the preview
    counted; None if it stopped at `counted`. `seen`: number of jobs handled so far; of them, `done`
    were changed and `refused` were left unchanged, by reason in `refusals`. `rate`: most jobs a
    second; None: no limit. `after_id`: the last handled id, of `up_to`.
    """

    id: int
    state: str
    action: str
    filter: str
    options: dict[str, Any]
    actor: str
    role: str | None
    address: str | None
    reason: str | None
    rate: float | None
    up_to: int
    after_id: int
    expected: int | None
    counted: int
    seen: int
    done: int
    refused: int
    refusals: dict[str, int]
    error: str | None
    created_at: datetime
    started_at: datetime | None
    progressed_at: datetime | None
    finished_at: datetime | None
    read_at: datetime

    @property
    def jobs(self) -> JobFilter:
        """The filter as a value.

        Raises InvalidFilter if another version wrote it in an unknown form.
        """
        return JobFilter.parse(self.filter)

    @property
    def count_text(self) -> str:
        """The number of jobs, as far as counted: ``37``, ``more than 100,000``."""
        return f"{self.counted:,}" if self.expected is not None else f"more than {self.counted:,}"

    @property
    def typed(self) -> int | None:
        """The number that must be typed to start it; None: not needed."""
        return self.counted if self.expected is None or self.expected > TYPED_ABOVE else None

    @property
    def is_stale(self) -> bool:
        """Whether it is a draft that is too old to start."""
        return self.state == "draft" and (self.read_at - self.created_at).total_seconds() > DRAFT_SECONDS

    @property
    def progress(self) -> float:
        """Progress from 0 to 1: by jobs, or, if the count stopped, by ids."""
        if self.state == "done":
            return 1.0
        of, come = (self.expected, self.seen) if self.expected is not None else (self.up_to + 1, self.after_id + 1)
        return min(come / of, 1.0) if of else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationBatch:
    """The outcome of each job in one batch: changed jobs, and reasons for the others.

    `n` starts at 1.
    """

    n: int
    at: datetime
    done: list[int]
    refused: dict[int, str]
