"""An application whose tasks log."""

from __future__ import annotations

import asyncio
import logging

from jobq import Backoff, JobQ, current_job

q = JobQ()
shop = logging.getLogger("shop")
FAST = Backoff(base=0.01, cap=0.05)


def _note(how: str) -> None:
    shop.info("%s begins, \x00 and all", how, extra={"order": 7})
    if current_job().attempt < 2 or how == "fail":
        raise ValueError(how)
    shop.info("%s goes well", how)


@q.task(backoff=FAST, max_attempts=2)
def plain(how: str) -> None:
    _note(how)


@q.task(backoff=FAST, max_attempts=2)
async def on_loop(how: str) -> None:
    await asyncio.gather(asyncio.create_task(_beside()), asyncio.to_thread(shop.info, "in a thread"))
    _note(how)


async def _beside() -> None:
    shop.info("in a task of its own")


@q.task(backoff=FAST, max_attempts=2, transactional=True)
def in_transaction(how: str) -> None:
    _note(how)


@q.task(max_attempts=1)
def talk(lines: int) -> None:
    for line in range(lines):
        shop.info("line %06d %s", line, "x" * 80)
    shop.debug("not at this level")
    raise ValueError("enough")
