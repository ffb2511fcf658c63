"""What is to be run, in which order, and how long it will take. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from bench.peers import Peer
from bench.workloads import Workload


@dataclass(frozen=True, slots=True)
class Case:
    """One run: a workload of a peer in a config, in a round."""

    workload: Workload
    peer: Peer
    config: str
    round: int

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is in every round."""
        return self.workload.name, self.peer.name, self.config


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was asked for."""

    workloads: Sequence[Workload]
    peers: Sequence[Peer]
    named: bool = False
    """Whether peers or workloads were named: then each peer is measured wherever it can be."""

    configs: Collection[str] | None = None
    """Configs that were named."""

    rounds: int = 3
    everything: bool = False

    def cases(self) -> Iterator[Case]:
        """Yield the runs in their order: a workload after the other, and in it a round of everybody after the other.

        A peer's place in the round changes from round to round, so that none is always next to the same.
        """
        for workload in self.workloads:
            takers = [
                (peer, config)
                for peer in self.peers
                if self._takes(workload, peer)
                for config in self._configs(workload, peer)
            ]
            for number in range(1, min(self.rounds, workload.rounds or self.rounds) + 1):
                at = (number - 1) % max(1, len(takers))
                for peer, config in takers[at:] + takers[:at]:
                    if number > 1 and peer.polls(config):
                        continue  # a poll every few seconds: one round tells it, and takes long
                    yield Case(workload, peer, config, number)

    def _takes(self, workload: Workload, peer: Peer) -> bool:
        return workload.can(peer) and (self.named or self.everything or workload.usual(peer))

    def _configs(self, workload: Workload, peer: Peer) -> list[str]:
        if self.configs is not None:
            # jobq has one config; it is in every comparison.
            found = [config for config in peer.configs if config in self.configs] or [peer.best]
        else:
            found = list(peer.configs) if workload.configs == "all" else [peer.best]
        return [config for config in found if workload.name == "drain" or not peer.polls(config)]


def select(names: Sequence[str], workloads: Sequence[Workload], *, everything: bool) -> list[Workload]:
    """Return the workloads called `names`, or the default ones. Raises ValueError for an unknown name."""
    known = {workload.name for workload in workloads}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"there is no workload {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    wanted = set(names)
    if "drain" in wanted:
        wanted.add("floor")  # a few seconds, and what a drain is measured by
    return [
        workload for workload in workloads if (workload.name in wanted if names else everything or workload.default)
    ]


def select_peers(names: str | None, peers: Sequence[Peer]) -> list[Peer]:
    """Return the peers whose names begin as one of `names`, jobq with them; ``none``: jobq alone; None: all.

    Raises ValueError for a name that none begins with.
    """
    if names is None or names == "all":
        return list(peers)
    wanted = [] if names == "none" else [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if not any(peer.name.startswith(name) for peer in peers)]:
        raise ValueError(f"there is no peer {', '.join(unknown)}; there are {', '.join(peer.name for peer in peers)}")
    return [peer for peer in peers if peer.name == "jobq" or any(peer.name.startswith(name) for name in wanted)]


@dataclass(slots=True)
class Clock:
    """Knows how long runs take: as their workload says, until they have shown it."""

    quick: bool
    _took: dict[tuple[str, str, str], float] = field(default_factory=dict)

    def ran(self, case: Case, seconds: float) -> None:
        """Note how long a run took."""
        self._took[case.key] = seconds

    def left(self, cases: Sequence[Case]) -> float:
        """Return how many seconds `cases` will take."""
        return sum(self._took.get(case.key, case.workload.seconds / (3 if self.quick else 1)) for case in cases)
