"""Where a list of jobs goes on, in its own order, and as text for addresses and command lines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from jobq.errors import InvalidOption
from jobq.filters import MAX_ID

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LATEST = (datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a list goes on: below the job `id`, or below (`at`, `id`) where it goes by the time at which jobs finished.

    As text ``812``, or ``1764482745123456-812`` with the time in microseconds since 1970: exact, and fit for an address.
    """

    id: int
    at: datetime | None = None

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return the cursor that `text` says. Raises InvalidOption."""
        head, dash, tail = text.strip().rpartition("-")
        parts = [head, tail] if dash else [tail]
        if not all(part.isascii() and part.isdigit() and len(part) <= 19 for part in parts):
            raise InvalidOption(f"before={text[:50]!r}: give a job's id, or what the page before this one said")
        id, at = int(tail), int(head) if dash else None
        if id > MAX_ID or (at is not None and at > _LATEST):
            raise InvalidOption(f"before={text[:50]!r}: give a job's id, or what the page before this one said")
        return cls(id, None if at is None else _EPOCH + at * _MICROSECOND)

    def __str__(self) -> str:
        return str(self.id) if self.at is None else f"{(self.at - _EPOCH) // _MICROSECOND}-{self.id}"
