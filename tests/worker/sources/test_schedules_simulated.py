"""A thousand days by a clock that is handed in: five schedulers, of which three die in the midst, and each tick is one job."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from jobq import operations
from jobq._worker.sources.schedule_tick import tick
from jobq.cron import Cron, Every, When
from jobq.schedule import Schedule

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 1000
SCHEDULERS = 5
RULES: dict[str, When] = {
    "berlin": Cron("30 2 * * *", "Europe/Berlin"),
    "berlin recurring": Cron("*/30 2 * * *", "Europe/Berlin"),
    "new york": Cron("15,45 1-2 * * *", "America/New_York"),
    "new york recurring": Cron("0 */2 * * *", "America/New_York"),
    "lord howe": Cron("45 1 * * *", "Australia/Lord_Howe"),
    "lord howe recurring": Cron("*/15 1-2 * * *", "Australia/Lord_Howe"),
    "every": Every(timedelta(hours=7)),
}


class Worker:
    """One scheduler, with a connection of its own that can be cut off under it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.connection: AsyncConnection[Any] | None = None
        self.inserted = 0

    async def look(self, now: datetime) -> None:
        """Do what is due at `now`, as the worker's loop does; a lost connection ends the look."""
        try:
            if self.connection is None:
                self.connection = await AsyncConnection.connect(self._url, autocommit=True)
            while (done := await tick(self.connection, "jobq", now=now)) is not None:
                assert done.error is None
                self.inserted += done.jobs
        except psycopg.OperationalError:
            await self.close()

    async def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            await connection.close()


def expected(rule: When, until: datetime) -> list[datetime]:
    found, at = [], rule.next(BEGIN)
    while at <= until:
        found.append(at)
        at = rule.next(at)
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_thousand_days(database_url: str) -> None:
    dice = random.Random(6)
    db = psycopg.connect(database_url, autocommit=True)
    for name, rule in RULES.items():
        made = Schedule(name=name, task="t", when=rule, missed="all", max_missed=10_000)
        operations.set_schedule(db, "jobq", made, actor="test")
        db.execute("UPDATE jobq.schedule SET next_at = %s WHERE name = %s", (rule.next(BEGIN), name))
    workers = [Worker(database_url) for _ in range(SCHEDULERS)]
    dying = {dice.randrange(100, 300): 0, dice.randrange(400, 600): 1, dice.randrange(700, 900): 2}
    back: dict[int, int] = {}
    all_down = range(350, 358)
    now, until = BEGIN, BEGIN + timedelta(days=DAYS)
    day = 0
    while now < until:
        now = min(now + timedelta(seconds=dice.uniform(3600, 2 * 86_400)), until)
        before, day = day, (now - BEGIN).days
        if day in all_down and now != until:
            continue
        looks = [
            # No two read the very same moment.
            asyncio.ensure_future(worker.look(now - timedelta(seconds=dice.uniform(0, 2)) if now != until else now))
            for number, worker in enumerate(workers)
            if back.get(number, 0) <= day
        ]
        for died in [at for at in dying if before <= at <= day]:
            number = dying.pop(died)
            back[number] = day + 10
            if (connection := workers[number].connection) is not None:
                await asyncio.sleep(dice.uniform(0, 0.005))
                db.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        await asyncio.gather(*looks)
    for worker in workers:
        await worker.look(until)
        await worker.close()
    assert not dying
    # Everybody has had a share: they did compete.
    assert all(worker.inserted > 0 for worker in workers)

    jobs = db.execute(
        "SELECT headers ->> 'jobq.schedule', (headers ->> 'jobq.tick')::timestamptz, id FROM jobq.job ORDER BY 1, 2"
    ).fetchall()
    ticks = db.execute("SELECT schedule, tick, job_id FROM jobq.schedule_tick ORDER BY 1, 2").fetchall()
    assert jobs == ticks
    for name, rule in RULES.items():
        assert [at for schedule, at, _ in ticks if schedule == name] == expected(rule, until), name

    def on(name: str, day: str) -> list[str]:
        zone = RULES[name].zone
        local = [at.astimezone(zone) for schedule, at, _ in ticks if schedule == name]
        return [at.strftime("%H:%M%z") for at in local if at.strftime("%Y-%m-%d") == day]

    assert on("berlin", "2025-03-30") == ["03:00+0200"]
    assert on("berlin", "2025-10-26") == ["02:30+0200"]
    assert on("berlin recurring", "2025-03-30") == []
    assert on("berlin recurring", "2025-10-26") == ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"]
    # 02:15 and 02:45 are both skipped, and come at one moment.
    assert on("new york", "2025-03-09") == ["01:15-0500", "01:45-0500", "03:00-0400"]
    assert on("new york", "2025-11-02") == ["01:15-0400", "01:45-0400", "02:15-0500", "02:45-0500"]
    assert on("new york recurring", "2025-03-09")[:2] == ["00:00-0500", "04:00-0400"]
    assert on("new york recurring", "2025-11-02")[:2] == ["00:00-0400", "02:00-0500"]
    assert on("lord howe", "2025-10-05") == ["01:45+1030"]
    assert on("lord howe", "2025-04-06") == ["01:45+1100"]
    assert on("lord howe recurring", "2025-10-05") == [
        *("01:00+1030", "01:15+1030", "01:30+1030", "01:45+1030", "02:30+1100", "02:45+1100"),
    ]
    assert on("lord howe recurring", "2025-04-06") == [
        *("01:00+1100", "01:15+1100", "01:30+1100", "01:45+1100"),
        *("01:30+1030", "01:45+1030", "02:00+1030", "02:15+1030", "02:30+1030", "02:45+1030"),
    ]
    db.close()
