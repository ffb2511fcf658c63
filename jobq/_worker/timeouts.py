"""Time limits of a worker's connections, and the planner settings that its statements need."""

from __future__ import annotations

from dataclasses import dataclass

from jobq._postgres import connecting

# Each statement is written for one plan. A planner misled by old statistics must not choose a scan
# of the whole table, nor plan for longer than the statement runs. The isolation is read committed,
# whatever the database's default, because SKIP LOCKED needs it.
_PLANNER = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """The time limits of one kind of connection, in seconds; 0: no limit by the server."""

    statement: float = 10.0
    """The server ends a statement after this."""
    lock: float = 0.0
    """The server ends a statement that waits longer than this for one lock."""
    patience: float = 13.0
    """The worker ends the connection after this.

    It is longer than `statement`, so a server that still answers can report the reason.
    """

    def settings(self) -> dict[str, str]:
        """Return the planner settings and these limits."""
        return {
            **_PLANNER,
            **connecting.UNREPORTED,
            "statement_timeout": f"{round(self.statement * 1000)}ms",
            "lock_timeout": f"{round(self.lock * 1000)}ms",
        }


# A running job whose row is locked is set aside (`OutcomeBuffer.set_aside`), so that it does not
# delay the others for long.
HOT = Timeouts(lock=1.0)
MAINTENANCE = Timeouts(statement=120.0, lock=5.0, patience=125.0)


def lease_timeouts(heartbeat_interval: float) -> Timeouts:
    """Return the limits of the connection that sends heartbeats and rescues.

    Nothing on it may delay a heartbeat for long: neither some locks, one after the other, that
    block the reads of each heartbeat, nor a locked row of a dead worker.
    """
    return Timeouts(
        statement=heartbeat_interval * 1.8, lock=min(0.5, heartbeat_interval / 4), patience=heartbeat_interval * 2
    )
