"""Make texts and numbers of any origin storable."""

from __future__ import annotations

import math

from jobq._core.durations import YEAR

# Seconds. A longer delay is not intended, and a timestamp would overflow some day.
LONGEST_DELAY = 10.0 * YEAR
LONGEST_RUN = 10.0 * YEAR


def storable_text(text: str, limit: int) -> str:
    """Return `text` in a form that PostgreSQL can store, at most `limit` bytes.

    Its middle is cut out.
    """
    data = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace")
    if len(data) > limit:
        half = (limit - 40) // 2
        data = data[:half] + f"\n… {len(data) - 2 * half} bytes cut …\n".encode() + data[-half:]
    return data.decode("utf-8", "replace")


def storable(text: str | None) -> str | None:
    """Return `text` in a form that PostgreSQL can store, for texts that should be clean already."""
    if text is None or (text.isascii() and "\x00" not in text):
        return text
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def bounded(number: float, most: float) -> float:
    """Return `number` limited to 0 to `most`; 0 for NaN."""
    return min(max(number, 0.0), most) if math.isfinite(number) else most if number == math.inf else 0.0
