"""A database at revision 0008, the last before the baseline: see revision_0008.sql."""

from __future__ import annotations

from pathlib import Path

import psycopg

_DUMP = Path(__file__).with_name("revision_0008.sql")


def restore(url: str) -> None:
    """Restore the dump into the empty database at `url`."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_DUMP.read_text(encoding="utf-8").encode())
