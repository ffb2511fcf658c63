"""The systems that are compared: what the driver must know of each. Adapters are scripts beside this file.

An adapter runs in an environment of the peer's own, as ``python -P bench/peers/NAME.py COMMAND`` (-P: so that a script
called celery.py does not hide the package) or ``node bench/peers/NAME.mjs COMMAND``, from the top of the tree. What it is
asked, and what it answers, is in `bench/peers/adapter.py`, which Python adapters use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

SCRIPTS = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A job system, and how it is measured. Raises ValueError for what cannot be."""

    name: str
    """What tables and ``--peers`` call it."""

    kind: Literal["python", "node"]
    script: str
    """File name of the adapter in this directory."""

    requirements: tuple[str, ...] = ()
    """Pinned specifications for pip or npm. Empty: it runs in the bench's own environment (jobq)."""

    broker: Literal["redis", "rabbitmq"] | None = None
    configs: tuple[str, ...] = ("default", "tuned")
    """``default``: what its documentation starts with; ``tuned``: the best settings that its documentation offers."""

    left: str | None = None
    """SQL that returns 1 while a job is not finished, else 0. It is asked often: let it stop at the first row."""

    live_tables: tuple[str, ...] = ()
    """Tables that hold jobs which are not finished, with what else must be in them."""

    drain_jobs: Mapping[str, int] = field(default_factory=dict)
    """Jobs in a drain by config: a run of a second or more (default: 20,000)."""

    note: str = ""
    """What it guarantees, in a line."""

    stop_signal: Literal["SIGTERM", "SIGINT"] = "SIGTERM"
    """What ends its worker in good order."""

    python: tuple[int, int] = (3, 11)
    """Least Python that its releases run on."""

    def __post_init__(self) -> None:
        if not self.configs or not set(self.configs) <= {"default", "tuned"}:
            raise ValueError(f"{self.name}: configs={self.configs!r}: give default, tuned or both")
        if (self.left is None) != (self.broker is not None):
            raise ValueError(
                f"{self.name}: left={self.left!r}: give SQL for a peer on Postgres, None for one on a broker"
            )
        if unknown := set(self.drain_jobs) - set(self.configs):
            raise ValueError(
                f"{self.name}: drain_jobs names {', '.join(sorted(unknown))}, which is none of its configs"
            )

    @property
    def best(self) -> str:
        """The config that stands for it where only one is measured."""
        return self.configs[-1]

    @property
    def path(self) -> Path:
        """The adapter's file."""
        return SCRIPTS / self.script

    def jobs(self, config: str) -> int:
        """Return how many jobs a drain of it takes."""
        return self.drain_jobs.get(config, 20_000)

    def polls(self, config: str) -> bool:
        """Tell whether it fetches a job every few seconds, so that nothing but a drain of a handful can be measured."""
        return self.jobs(config) < 100


_BROKERS: tuple[tuple[Literal["redis", "rabbitmq"], str], ...] = (
    ("redis", "a second of messages can be lost with the machine (AOF everysec)"),
    ("rabbitmq", "an enqueue is not confirmed by the broker (the default)"),
)

# One block each; jobq first.
PEERS: tuple[Peer, ...] = (
    Peer(
        name="jobq",
        kind="python",
        script="jobq.py",
        configs=("default",),
        left="SELECT count(*) FROM (SELECT FROM jobq.job WHERE state IN ('ready', 'running') LIMIT 1) AS unfinished",
        live_tables=("jobq.job", "jobq.job_key", "jobq.worker", "jobq.queue", "jobq.maintenance_task"),
        note="at least once; fenced acknowledgement after the run, durable; history kept",
    ),
    Peer(
        name="pgqueuer",
        kind="python",
        script="pgqueuer.py",
        requirements=("pgqueuer==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0", "psycopg[binary]==3.3.9"),
        left="SELECT count(*) FROM (SELECT FROM pgqueuer LIMIT 1) AS unfinished",
        live_tables=("pgqueuer", "pgqueuer_log"),
        note="at least once; completions in batches after the run; row deleted, log of status changes kept",
    ),
    Peer(
        name="procrastinate",
        kind="python",
        script="procrastinate.py",
        requirements=("procrastinate==3.10.0", "psycopg[binary]==3.3.9", "uvloop==0.23.0"),
        left="SELECT count(*) FROM (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing') LIMIT 1) AS unfinished",
        live_tables=("procrastinate_jobs", "procrastinate_events"),
        drain_jobs={"default": 1_000, "tuned": 2_000},
        note="at least once; each completion recorded after its run; row kept by default",
    ),
    Peer(
        name="oban",
        kind="python",
        script="oban.py",
        requirements=("oban==0.7.0", "psycopg[binary]==3.3.9", "uvloop==0.23.0"),
        left="SELECT count(*) FROM (SELECT FROM oban_jobs WHERE state IN ('available', 'executing', 'scheduled', 'retryable')"
        " LIMIT 1) AS unfinished",
        live_tables=("oban_jobs",),
        note="at least once; each completion recorded after its run; row kept",
        python=(3, 12),
    ),
    Peer(
        name="chancy",
        kind="python",
        script="chancy.py",
        requirements=("chancy==0.26.0", "psycopg[binary]==3.3.9", "uvloop==0.23.0"),
        left="SELECT count(*) FROM (SELECT FROM chancy_jobs WHERE state NOT IN ('succeeded', 'failed') LIMIT 1) AS unfinished",
        live_tables=("chancy_jobs",),
        drain_jobs={"default": 8, "tuned": 10_000},
        note="at least once; completions in batches after the run, each second by default; row kept",
    ),
    Peer(
        name="awa",
        kind="python",
        script="awa.py",
        requirements=("awa-pg==0.6.9", "uvloop==0.23.0"),
        # Jobs are appended, and so are their ends, by the batch: what was enqueued is compared with what has ended.
        left="SELECT (coalesce((SELECT sum(awa.sequence_next_value(seq_name) - 1) FROM awa.queue_enqueue_heads), 0)"
        " > coalesce((SELECT sum(completed_count) FROM awa.receipt_completion_batches), 0)"
        " + coalesce((SELECT sum(live_terminal_count) FROM awa.queue_terminal_live_counts), 0)"
        " + coalesce((SELECT sum(terminal_delta) FROM awa.queue_terminal_count_deltas), 0)"
        " + coalesce((SELECT sum(pruned_completed_count) FROM awa.queue_terminal_rollups), 0))::int",
        live_tables=(
            "awa.ready_entries",
            "awa.ready_claim_attempt_batches",
            "awa.ready_segments",
            "awa.lease_claims",
            "awa.lease_claim_batches",
            "awa.lease_claim_closures",
            "awa.lease_claim_closure_batches",
            "awa.leases",
            "awa.receipt_completion_batches",
            "awa.done_entries",
        ),
        drain_jobs={"default": 2_000, "tuned": 10_000},
        note="at least once; fenced completion in batches after the run; tables appended to and truncated in turn",
    ),
    Peer(
        name="graphile-worker",
        kind="node",
        script="graphile_worker.mjs",
        requirements=("graphile-worker@0.17.3", "pg@8.23.1", "node@22.23.3"),
        left="SELECT count(*) FROM (SELECT FROM graphile_worker._private_jobs LIMIT 1) AS unfinished",
        live_tables=("graphile_worker._private_jobs",),
        drain_jobs={"default": 5_000, "tuned": 20_000},
        note="at least once, after 4 hours where a worker died; completions in batches after the run (tuned); row deleted",
    ),
    Peer(
        name="pg-boss",
        kind="node",
        script="pg_boss.mjs",
        requirements=("pg-boss@12.38.0", "node@22.23.3"),
        left="SELECT count(*) FROM (SELECT FROM pgboss.job WHERE name = 'noop' AND state < 'completed' LIMIT 1) AS unfinished",
        live_tables=("pgboss.job",),
        drain_jobs={"default": 8, "tuned": 20_000},
        note="at least once; a batch (tuned) completes or fails together after its run; row kept",
    ),
    *(
        Peer(
            name=f"celery+{broker}",
            kind="python",
            script="celery.py",
            requirements=("celery[redis]==5.7.0",),
            broker=broker,
            drain_jobs={"default": 5_000, "tuned": 5_000},
            note="at most once: acknowledged before the run; " + durability,
        )
        for broker, durability in _BROKERS
    ),
    *(
        Peer(
            name=f"dramatiq+{broker}",
            kind="python",
            script="dramatiq.py",
            requirements=("dramatiq[redis,rabbitmq]==2.2.1",),
            broker=broker,
            drain_jobs={"default": 10_000, "tuned": 10_000},
            note="at least once; acknowledged one by one after the run; " + durability,
        )
        for broker, durability in _BROKERS
    ),
)


def by_name(name: str) -> Peer:
    """Return the peer called `name`. Raises KeyError."""
    for peer in PEERS:
        if peer.name == name:
            return peer
    raise KeyError(name)
