"""Texts and numbers of any origin, made fit to be stored."""

from __future__ import annotations

import math

# Seconds. A job that comes back later than in ten years is not meant to; beyond, a timestamp overflows some day.
LONGEST_DELAY = 10 * 365 * 86_400.0
LONGEST_RUN = 10 * 365 * 86_400.0


def clean(text: str, limit: int) -> str:
    """Return `text` as Postgres can store it, at most `limit` bytes, its middle cut out when it is longer."""
    data = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace")
    if len(data) > limit:
        half = (limit - 40) // 2
        data = data[:half] + f"\n… {len(data) - 2 * half} bytes cut …\n".encode() + data[-half:]
    return data.decode("utf-8", "replace")


def storable(text: str | None) -> str | None:
    """Return `text` as Postgres can store it, for texts that should be clean already."""
    if text is None or (text.isascii() and "\x00" not in text):
        return text
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def bounded(number: float, most: float) -> float:
    """Return `number` between 0 and `most`: 0 where it is no number at all."""
    return min(max(number, 0.0), most) if math.isfinite(number) else most if number == math.inf else 0.0
