"""What workloads have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.figures import Figures
from bench.peers import Peer
from bench.run import Broker, Run
from bench.servers import Server


@dataclass(slots=True, kw_only=True)
class Bench:
    """Where runs are made: the servers, how much is asked for, and what stays from one round to the next."""

    server: Server
    brokers: Mapping[str, Broker] = field(default_factory=dict)
    quick: bool = False
    """Small numbers, which show that everything works and nothing else."""

    everything: bool = False
    """The settings that take minutes too."""

    kept: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Databases (name, URL) that a workload uses again in its next round."""

    def run(self, peer: Peer, config: str, places: int, **more: Any) -> Run:
        """Return a run of the peer, with its broker."""
        broker = self.brokers[peer.broker] if peer.broker else None
        return Run(self.server, peer, config, places, broker=broker, **more)

    def number(self, full: int, quick: int) -> int:
        """Return how many of something: `full`, or the less of it and `quick` when this is a quick run."""
        return min(full, quick) if self.quick else full

    def drop_kept(self) -> None:
        """Drop the databases that a workload has kept."""
        for name, _ in self.kept.values():
            self.server.drop(name)
        self.kept.clear()


def anybody(_peer: Peer) -> bool:
    """Every peer can."""
    return True


def on_postgres(peer: Peer) -> bool:
    """Peers without a broker can."""
    return peer.broker is None


def only_jobq(peer: Peer) -> bool:
    """Only jobq."""
    return peer.name == "jobq"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Something that is measured."""

    name: str
    about: str
    """What the figures are, in a line."""

    measure: Callable[[Bench, Peer, str], Figures]
    """Makes one run of a peer in a config and returns its figures. Raises RunFailed."""

    can: Callable[[Peer], bool] = anybody
    """Whether it can be measured of a peer."""

    usual: Callable[[Peer], bool] = anybody
    """Whether it is measured of a peer unless peers are named."""

    configs: str = "best"
    """``best``: the peer's best config alone, unless configs are named; ``all``: each of them."""

    default: bool = True
    """Whether it is part of `make bench` without arguments."""

    rounds: int | None = None
    """Rounds, if not as many as were asked for."""

    headline: tuple[str, ...] = ()
    """The figures of the table, in its order; the first is compared with jobq's."""

    seconds: float = 10.0
    """About how long a run takes, until runs have shown it."""
