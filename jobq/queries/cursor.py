"""The position at which a list of jobs continues, also as text for URLs and command lines."""

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
    """The position at which a list continues.

    A list by id continues below the job `id`; a list by finish time continues below (`at`, `id`).
    The text form is ``812``, or ``1764482745123456-812`` with the time in microseconds since 1970:
    it is exact and safe in a URL.
    """

    id: int
    at: datetime | None = None

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return the cursor for a text. Raises InvalidOption."""
        head, dash, tail = text.strip().rpartition("-")
        parts = [head, tail] if dash else [tail]
        if all(part.isascii() and part.isdigit() and len(part) <= 19 for part in parts):
            id, at = int(tail), int(head) if dash else None
            if id <= MAX_ID and (at is None or at <= _LATEST):
                return cls(id, None if at is None else _EPOCH + at * _MICROSECOND)
        raise InvalidOption(
            f"before={text[:50]!r}: expected a job's id, or the position at which the previous page ended"
        )

    def __str__(self) -> str:
        return str(self.id) if self.at is None else f"{(self.at - _EPOCH) // _MICROSECOND}-{self.id}"
