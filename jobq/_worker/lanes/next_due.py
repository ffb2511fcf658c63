"""When to claim although nothing is heard of a job: when the next known one is due, at the poll, and after a look around."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from jobq.worker.cursor import Cursor
from jobq.worker.database import Connection, fetch
from jobq.worker.lanes import Lanes
from jobq.worker.outcomes import scan_parameters
from jobq.worker.survey import Survey

# A poll finds what no notification told of. While notifications come it is made so many times less often.
QUIET = 5
# Seconds between two look-ups while one claim follows the other.
BUSY_EVERY = 0.1
# Of all idle workers that hear of a job, about so many go for it at once. The others give them a head start of some
# milliseconds, longer the more they are, and then look before they claim.
AT_ONCE = 2
HEAD_START = 0.001
_EACH = 0.001
_LONGEST = 0.025


def head_start(peers: int) -> float:
    """Return how long this worker leaves a job to the other `peers` workers, in seconds; 0: it goes for it at once."""
    if random.random() * (peers + 1) < AT_ONCE:
        return 0.0
    return random.uniform(HEAD_START, min(max(5 * HEAD_START, _EACH * peers), _LONGEST))


class Due:
    """The clock of one claiming loop; all times are of time.monotonic(), in seconds."""

    def __init__(
        self,
        schema: str,
        lanes: Lanes,
        cursor: Cursor,
        survey: Survey,
        *,
        poll_interval: float,
        listening: Callable[[], bool],
    ) -> None:
        self._schema = schema
        self._lanes = lanes
        self._cursor = cursor
        self._survey = survey
        self._poll_interval = poll_interval
        self._listening = listening
        self._poll_at = 0.0
        self._look_at = 0.0

    def wake(self) -> None:
        """Let lanes whose time has come be looked at by the next claim, and at the poll those that had jobs lately."""
        self._lanes.wake()
        if self._lanes.many:
            self._survey.told_of_many()
        now = time.monotonic()
        if now >= self._poll_at:
            listening = self._listening()
            self._poll_at = now + self._poll_interval * (QUIET if listening else 1)
            self._survey.hasten(0.0)
            if not listening or self._survey.costly:
                self._lanes.poll()

    @property
    def next_at(self) -> float:
        """When there may be something to claim, or to look for, though nothing is heard."""
        return min(self._lanes.live.alarm_at, self._poll_at, self._survey.due_at)

    @property
    def look_up_at(self) -> float:
        """When to look up what is next in lanes that were read to their ends, while there is no time to spare."""
        return self._look_at if self._lanes.unread else float("inf")

    async def look_up(self, connection: Connection) -> None:
        """Look up the first jobs of some lanes that were read to their ends. Raises psycopg.Error."""
        self._look_at = time.monotonic() + BUSY_EVERY
        lanes = self._lanes.to_look_up()
        if lanes:
            queues, priorities = [queue for queue, _ in lanes], [priority for _, priority in lanes]
            scan = self._cursor.plan(queues, priorities, remember=False)
            rows = await fetch(connection, self._schema, "next_due", **scan_parameters(scan))
            seconds = {lanes[place]: due for place, due in rows}
            for lane in lanes:
                self._lanes.looked_up(lane, seconds.get(lane))
        self._look_at = time.monotonic() + BUSY_EVERY
