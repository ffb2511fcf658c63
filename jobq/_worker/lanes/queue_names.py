"""Checks the names of a worker's queues: does any task or job use them?"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable

from jobq._worker.database import Connection, fetch
from jobq._worker.lanes.aging import PRIORITIES
from jobq._worker.options import WorkerOptions

logger = logging.getLogger("jobq.worker")


async def warn_of_unknown_queues(connection: Connection, options: WorkerOptions, of_tasks: Iterable[str]) -> None:
    """Warn about the worker's queues that no task and no job names.

    They may be misspelt, or their first job is still to come.
    """
    if options.queues is None:
        return
    schema = options.settings.schema
    named, priorities = [queue for queue in options.queues for _ in PRIORITIES], [*PRIORITIES] * len(options.queues)
    lanes = await fetch(connection, schema, "lane_heads", queues=named, priorities=priorities)
    # Queues named in the options may be misspelt. A sample of the others is enough.
    lanes += await fetch(connection, schema, "lanes", queue="", priority=-1, most=1000)
    known = {*of_tasks, *(row[0] for row in lanes), *(row[0] for row in await fetch(connection, schema, "queue_rules"))}
    for queue in sorted(set(options.queues) - known):
        near = difflib.get_close_matches(queue, sorted(known), n=3)
        logger.warning(
            "no task and no job names this queue: it is served all the same",
            extra={"queue": queue, "near": ", ".join(near) or None, "known": ", ".join(sorted(known)[:20])},
        )
