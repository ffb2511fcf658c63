"""Put back jobs of workers that are gone.

They are put back all at once, or without jobs that the database refuses to change.
"""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection

from jobq._worker.database import fetch
from jobq._worker.faults.set_aside import SetAside


async def release_orphans(connection: AsyncConnection[Any], schema: str, aside: SetAside[int]) -> str:
    """Put orphans back, or end those whose cancellation was requested; return a report.

    Called in a transaction. After all other jobs are done, raises Incomplete with the jobs set
    `aside`.
    """

    async def release(jobs: list[int] | None) -> tuple[int, int]:
        [(back, over, _)] = await fetch(connection, schema, "release_orphans", only=jobs, channel=schema)
        return back, over

    async def orphans() -> list[int]:
        left_out = frozenset(aside.keys())
        return [job for (job,) in await fetch(connection, schema, "orphans") if job not in left_out]

    async def everything() -> tuple[int, int]:
        return await release(await orphans() if aside.keys() else None)

    results = await aside.change_whole(connection, everything, orphans, release)
    released, ended = (sum(result[n] for result in results) for n in (0, 1))
    return aside.report(f"{released} jobs released" + (f", {ended} cancelled" if ended else ""), "job")
