"""An application whose tasks say much: for workers whose output is not read."""

from __future__ import annotations

import logging
import os
import sys

from jobq import JobQ

q = JobQ()

if os.environ.get("NOISY_LOGGING") == "own":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)


@q.task(max_attempts=1)
def fail() -> None:
    raise ValueError("x" * 1500)


@q.task
def calm() -> int:
    return 1


@q.task
def log(length: int) -> None:
    logging.getLogger("noisy").warning("y" * length)
    logging.getLogger("jobq.runner").warning("z" * length)


@q.task
def shout(length: int) -> None:
    print("s" * length, flush=True)
