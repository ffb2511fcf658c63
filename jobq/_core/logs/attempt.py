"""The newest log records of one execution, in bounded memory."""

from __future__ import annotations

import threading
from collections import deque

from jobq._core.storable import storable_text

RECORD_BYTES = 16 * 1024  # most bytes of one record; its beginning and its end are kept
SMALLEST = 1024
LARGEST = 1024 * 1024
_CUT = "… earlier records were left out …"
# The part of the limit that is reserved for that line.
_CUT_BYTES = 64
# Seconds that a record waits for the lock. TimedOut may interrupt a thread that holds the lock but
# has not entered `try` yet.
_PATIENCE = 0.05


class AttemptLog:
    """Whole records of at most `limit` bytes together; the oldest ones are dropped."""

    __slots__ = ("_cut", "_limit", "_lock", "_records", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit - _CUT_BYTES
        self._records: deque[bytes] = deque()
        self._size = 0
        self._cut = False
        self._lock = threading.Lock()

    def add(self, record: str) -> None:
        """Add a formatted record in storable form. Several threads of a job may do so at once."""
        # A few bytes less, because a character that is cut in two is replaced by a longer one.
        data = storable_text(record, min(RECORD_BYTES, self._limit - 16)).encode()
        if not self._lock.acquire(timeout=_PATIENCE):
            return
        try:
            self._records.append(data)
            self._size += len(data) + 1
            while self._size > self._limit:
                self._size -= len(self._records.popleft()) + 1
                self._cut = True
        finally:
            self._lock.release()

    def text(self) -> str:
        """Return the records, oldest first, each on a new line."""
        # Copied first, because a thread that outlives its job may still log.
        lines = [data.decode() for data in self._records.copy()]
        return "\n".join([_CUT, *lines] if self._cut else lines)
