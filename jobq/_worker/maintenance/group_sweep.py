"""Repair groups that have lost their `group_ready` row.

Groups whose row is refused are set aside.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg import AsyncConnection

from jobq._worker.database import fetch
from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.faults.set_aside import Incomplete, SetAside, attempted

Group = tuple[str, str]

# Number of groups checked at a time, and seconds for one run; the next run continues there.
GROUPS = 10_000
SWEEP_SECONDS = 2.0


class GroupSweep:
    """The sweep of one schema. It remembers its position."""

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self._aside = SetAside[Group]()
        self._swept: Group = ("", "")
        """The queue and the group up to which rows were checked."""

    async def run(self, connection: AsyncConnection[Any]) -> str:
        """Check groups for a while; delete data that rates no longer need. Called in a transaction.

        Returns a report. After all other groups are done, raises Incomplete with the refusals.
        """
        # The ready groups are read all at once, not one by one for each group that may lack a row.
        await connection.execute("SET LOCAL enable_hashjoin = on")
        given, begun = 0, time.monotonic()
        while True:
            number, last = await self._some(connection)
            given += number
            self._swept = last or ("", "")
            if last is None or time.monotonic() - begun > SWEEP_SECONDS:
                break

        async def prune() -> int:
            [(pruned,)] = await fetch(connection, self._schema, "rate_prune")
            return int(pruned)

        report = f"{given} turns given"
        try:
            report += f", {await attempted(connection, prune)} rates forgotten"
        except psycopg.Error as error:
            if classify(error, connection) is ErrorKind.CONNECTION:
                raise
            refused = self._aside.refused("group")
            raise Incomplete(
                f"{report}; no rate forgotten: {error}" + (f"; refused: {refused}" if refused else "")
            ) from None
        return self._aside.report(report, "group")

    async def _some(self, connection: AsyncConnection[Any]) -> tuple[int, Group | None]:
        """Check the next groups.

        Return the number of repaired ones, and the last group if more follow.
        """
        begin, last = self._swept, None
        before: dict[Group, tuple[int, Group]] = {}
        """Each group's position, and the group before it."""

        # among: as in the statement.
        async def sweep(
            after: Group, most: int, among: bool | None, groups: list[Group], /
        ) -> tuple[int, Group | None]:
            [(turns, _, *end)] = await fetch(
                connection, self._schema, "group_ready_repair",
                most=most, after_queue=after[0], after_group=after[1], channel=self._schema, among=among,
                queues=[queue for queue, _ in groups], groups=[group for _, group in groups],
            )  # fmt: skip
            return turns, (end[0], end[1]) if end[0] is not None else None

        async def everything() -> tuple[int, Group | None]:
            nonlocal last
            aside = self._aside.keys()
            turns, last = await sweep(begin, GROUPS, False if aside else None, aside)
            return turns, last

        async def groups() -> list[Group]:
            nonlocal last
            rows = await fetch(
                connection,
                self._schema,
                "group_ready_candidates",
                most=GROUPS,
                after_queue=begin[0],
                after_group=begin[1],
            )
            found = [(queue, group) for queue, group in rows]
            last = found[-1] if len(found) == GROUPS else None
            before.update(zip(found, enumerate([begin, *found]), strict=False))
            aside = frozenset(self._aside.keys())
            return [group for group in found if group not in aside]

        async def part(of: list[Group]) -> tuple[int, Group | None]:
            # From the first to the last group, including groups between them that are set aside.
            (first, after), (end, _) = before[of[0]], before[of[-1]]
            return await sweep(after, end - first + 1, True, of)

        results = await self._aside.change_whole(connection, everything, groups, part)
        return sum(turns for turns, _ in results), last
