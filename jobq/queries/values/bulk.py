"""A bulk operation as a value: what was asked, how far it has come, and the outcomes of the jobs.

`jobq.operations` makes and changes them, `jobq.queries` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jobq.filters import JobFilter

UNFINISHED_STATES = ("draft", "running", "paused", "failed")
# A preview older than this is not of what is there now.
DRAFT_SECONDS = 3600.0
# Above it, the count has to be typed.
TYPED_ABOVE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One change over a filter. Times are aware and from the database's clock.

    `state`: ``draft`` (previewed, not started), ``running``, ``paused``, ``cancelled``, ``done``, ``failed`` (`error` says
    why; it can be resumed). `expected`: how many jobs the preview counted, None when it stopped at `counted`. `seen`: how many
    were come to, of which `done` were changed and `refused` left as they are, by reason in `refusals`. `rate`: jobs a second
    at most, None: as fast as it goes. `after_id`: up to which id it has come, of `up_to`.
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
        """The filter as a value. Raises InvalidFilter when another version of jobq wrote what this one cannot read."""
        return JobFilter.parse(self.filter)

    @property
    def count_text(self) -> str:
        """How many jobs it is about, as far as that was counted: ``37``, ``more than 100,000``."""
        return f"{self.counted:,}" if self.expected is not None else f"more than {self.counted:,}"

    @property
    def typed(self) -> int | None:
        """The number that has to be typed to start it; None: none has."""
        return self.counted if self.expected is None or self.expected > TYPED_ABOVE else None

    @property
    def is_stale(self) -> bool:
        """Whether it is a draft that is too old to be started."""
        return self.state == "draft" and (self.read_at - self.created_at).total_seconds() > DRAFT_SECONDS

    @property
    def progress(self) -> float:
        """From 0 to 1: of the jobs that were counted, or, where the count stopped, of the ids."""
        if self.state == "done":
            return 1.0
        of, come = (self.expected, self.seen) if self.expected is not None else (self.up_to + 1, self.after_id + 1)
        return min(come / of, 1.0) if of else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationBatch:
    """The outcome of each job of one batch: those changed, and why each other was left as it is. `n` counts from 1."""

    n: int
    at: datetime
    done: list[int]
    refused: dict[int, str]
