"""The database goes away and comes back: killed, stopped at once, failed over, its backends terminated."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests.chaos.scene.harness import Arena, signal_all
from tests.chaos.scene.history import Limits
from tests.support.servers import postgres
from tests.support.servers.replication import Pair
from tests.support.waiting import hold, wait_until


@pytest.mark.parametrize(
    ("end", "away"),
    [(postgres.OwnServer.kill, 0.0), (postgres.OwnServer.stop_at_once, 3.0)],
    ids=["kill_9", "immediate_stop"],
)
def test_postgres_goes_and_comes_back(arena: Arena, end: Callable[[postgres.OwnServer], None], away: float) -> None:
    """Everyone is cut off at once, so no worker may be taken for dead: not one crash is counted."""
    for _ in range(2):
        # An outage that outlasts the lease costs the running jobs their runners, as it must: here none is to.
        arena.start_worker(times=("--heartbeat-interval", "0.5", "--suspicion", "2", "--lease", "15"))
    arena.produce(arena.size(200), 40 if arena.long else 6)

    def crash() -> None:
        arena.fault(f"postgres: {end.__name__}")
        end(arena.server)
        hold(away)
        arena.server.restart()
        arena.fault("postgres: restarted")

    arena.torment(crash, every=(1.0, 2.5))
    arena.finish(limits=Limits(blameless=True))


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A primary and its synchronous standby: a commit that was answered is on both."""
    made = Pair()
    with psycopg.connect(made.primary.url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        connection.execute("SELECT pg_reload_conf()")
        wait_until(
            lambda: (
                connection.execute("SELECT FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone() is not None
            ),
            what="a synchronous standby",
        )
    # The standby's copy was made before: once promoted, it has no standby to wait for.
    yield made
    made.close()


def test_failover_to_a_synchronous_standby(arena: Arena, pair: Pair) -> None:
    """The primary is killed, the standby promoted: what was committed is there, and the workers go on by themselves."""
    arena.move_to(pair.primary.url)
    for _ in range(2):
        arena.start_worker(url=pair.url)
    arena.produce(arena.size(200), 30 if arena.long else 5, url=pair.url)
    arena.pause(1.5, 3.0)
    arena.fault("kill -9 primary")
    pair.primary.end(signal.SIGKILL)
    arena.pause(0.0, 1.0)
    pair.promote()
    arena.url = pair.standby.url
    arena.fault("promoted")
    arena.finish(limits=Limits(blameless=True))


def test_terminated_backends(arena: Arena) -> None:
    """pg_terminate_backend of workers' and producers' connections, twice a second."""
    for _ in range(2):
        arena.start_worker()
    arena.produce(arena.size(200), 40 if arena.long else 6)
    arena.torment(lambda: arena.terminate_backends(0.5), every=(0.4, 0.6))
    arena.finish()


def test_frozen_postgres(arena: Arena) -> None:
    """SIGSTOP of every process of the server: it neither answers nor refuses, longer than a suspicion lasts."""
    for _ in range(2):
        arena.start_worker()
    arena.produce(arena.size(150), 40 if arena.long else 6)

    def freeze() -> None:
        pids = arena.server.processes()
        arena.fault("SIGSTOP postgres", pids=sorted(pids))
        signal_all(pids, signal.SIGSTOP)
        arena.pause(1.0, 4.0)
        signal_all(pids, signal.SIGCONT)
        arena.fault("SIGCONT postgres")

    arena.torment(freeze, every=(0.5, 1.5))
    arena.finish()
