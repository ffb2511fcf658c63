"""Files that are either whole or not there: what a task that may run twice must write."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it to `target` when the block ends well, else delete it.

    Two runs of one task may do this at once: each has a temporary name of its own, and the later rename wins.
    The data is on disk before the rename, so a power cut leaves no empty file under the final name.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        handle = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
