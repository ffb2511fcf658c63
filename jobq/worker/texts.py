"""Texts of any origin, made fit to be stored."""

from __future__ import annotations


def clean(text: str, limit: int) -> str:
    """Return `text` as Postgres can store it, at most `limit` bytes, its middle cut out when it is longer."""
    data = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace")
    if len(data) > limit:
        half = (limit - 40) // 2
        data = data[:half] + f"\n… {len(data) - 2 * half} bytes cut …\n".encode() + data[-half:]
    return data.decode("utf-8", "replace")
