"""What jobq must show, and whether a set of results shows it. Pure: everything is computed from the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.figures import Figures, medians

Key = tuple[str, str, str]
"""Workload, peer, config."""

_PYTHON_ON_POSTGRES = ("pgqueuer", "procrastinate", "oban", "chancy", "awa")
_ON_POSTGRES = (*_PYTHON_ON_POSTGRES, "graphile-worker", "pg-boss")


def table(runs: Iterable[Mapping[str, Any]]) -> dict[Key, Figures]:
    """Return the medians over the rounds, by workload, peer and config; runs that failed have no figures."""
    rounds: dict[Key, list[Figures]] = {}
    for run in runs:
        if "figures" in run:
            rounds.setdefault((run["workload"], run["peer"], run["config"]), []).append(run["figures"])
    return {key: medians(figures) for key, figures in rounds.items()}


@dataclass(frozen=True, slots=True)
class Found:
    """What was found: a value, and of whom it was measured against."""

    value: float
    against: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A figure that is wanted: `find` computes it, None where the results do not have what it takes."""

    name: str
    what: str
    wanted: float
    find: Callable[[Mapping[Key, Figures]], Found | None]
    at_most: bool = False
    unit: str = ""

    def verdict(self, results: Mapping[Key, Figures]) -> Verdict:
        """Return what the results say of it."""
        return Verdict(self, self.find(results))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and what was found."""

    target: Target
    found: Found | None

    @property
    def met(self) -> bool | None:
        """Whether it was met; None when it was not measured."""
        if self.found is None:
            return None
        target = self.target
        return self.found.value <= target.wanted if target.at_most else self.found.value >= target.wanted

    @property
    def missed_by(self) -> float:
        """By what share of the wanted value it was missed; 0 when it was met or not measured."""
        if self.found is None or self.met:
            return 0.0
        return abs(self.found.value - self.target.wanted) / self.target.wanted

    @property
    def text(self) -> str:
        """The verdict in words."""
        match self.met:
            case None:
                return "not measured"
            case True:
                return "met"
            case False:
                return f"missed by {self.missed_by:.0%}"


def _figure(results: Mapping[Key, Figures], workload: str, peer: str, config: str, figure: str) -> float | None:
    return results.get((workload, peer, config), {}).get(figure)


def _ours(results: Mapping[Key, Figures], workload: str, figure: str) -> float | None:
    return _figure(results, workload, "jobq", "default", figure)


def own(workload: str, figure: str) -> Callable[[Mapping[Key, Figures]], Found | None]:
    """Return what finds a figure of jobq's."""

    def find(results: Mapping[Key, Figures]) -> Found | None:
        ours = _ours(results, workload, figure)
        return None if ours is None else Found(ours)

    return find


def times(
    workload: str,
    figure: str,
    peers: Sequence[str],
    configs: Sequence[str] = ("default", "tuned"),
    *,
    least: bool = False,
) -> Callable[[Mapping[Key, Figures]], Found | None]:
    """Return what finds jobq's figure as a multiple of the best peer's: the largest, or the `least` (a latency)."""

    def find(results: Mapping[Key, Figures]) -> Found | None:
        ours = _ours(results, workload, figure)
        theirs = {
            f"{peer} {config}, {value:,.{0 if value >= 100 else 2}f}": value
            for peer in peers
            for config in configs
            if (value := _figure(results, workload, peer, config, figure))
        }
        if ours is None or not theirs:
            return None
        best = (min if least else max)(theirs, key=lambda name: theirs[name])
        return Found(ours / theirs[best], best)

    return find


def _floor(results: Mapping[Key, Figures]) -> Found | None:
    drain, raw = _ours(results, "drain", "jobs_per_s"), _ours(results, "floor", "raw_per_s")
    return None if drain is None or not raw else Found(drain / raw, f"pgbench {raw:,.0f}")


def _worst(workload: str, figures: Sequence[str]) -> Callable[[Mapping[Key, Figures]], Found | None]:
    def find(results: Mapping[Key, Figures]) -> Found | None:
        found = {name: value for name in figures if (value := _ours(results, workload, name)) is not None}
        if not found:
            return None
        worst = min(found, key=lambda name: found[name])
        return Found(found[worst], worst)

    return find


def _drain(name: str, peers: Sequence[str], wanted: float, *configs: str) -> Target:
    return Target(
        name=f"drain / {name}",
        what="jobs/s of jobq by default, times the peer's",
        wanted=wanted,
        find=times("drain", "jobs_per_s", peers, configs or ("default", "tuned")),
        unit="times",
    )


TARGETS: tuple[Target, ...] = (
    _drain("pgqueuer tuned", ["pgqueuer"], 2.2, "tuned"),
    _drain("oban tuned", ["oban"], 12, "tuned"),
    _drain("procrastinate tuned", ["procrastinate"], 45, "tuned"),
    # On whichever broker it is faster.
    _drain("celery", ["celery+redis", "celery+rabbitmq"], 12),
    _drain("pg-boss tuned", ["pg-boss"], 1.8, "tuned"),
    _drain("graphile-worker tuned", ["graphile-worker"], 0.95, "tuned"),
    _drain("graphile-worker tuned, the goal", ["graphile-worker"], 1.2, "tuned"),
    Target(
        name="drain / floor",
        what="jobs/s of jobq, of pgbench's claim 100 + delete 100",
        wanted=0.6,
        find=_floor,
        unit="times",
    ),
    Target(
        name="snapshot, worst fifth",
        what="rate while a snapshot is held, of the same fifth without",
        wanted=0.9,
        find=_worst("snapshot", [f"fifth_{number}_held_over_free" for number in range(1, 6)]),
        unit="times",
    ),
    Target(
        name="latency p50",
        what="ms to the start, idle worker",
        wanted=1.5,
        find=own("latency", "start_p50_ms"),
        at_most=True,
        unit="ms",
    ),
    Target(
        name="latency p99",
        what="ms to the start, idle worker",
        wanted=3.5,
        find=own("latency", "start_p99_ms"),
        at_most=True,
        unit="ms",
    ),
    Target(
        name="latency p50 / best on Postgres",
        what="of the best peer's on Postgres",
        wanted=1.0,
        find=times("latency", "start_p50_ms", _ON_POSTGRES, least=True),
        at_most=True,
        unit="times",
    ),
    Target(
        name="latency p99 / best on Postgres",
        what="of the best peer's on Postgres",
        wanted=1.0,
        find=times("latency", "start_p99_ms", _ON_POSTGRES, least=True),
        at_most=True,
        unit="times",
    ),
    Target(
        name="enqueue, 1 client",
        what="calls/s, times the best Python peer's on Postgres",
        wanted=1.3,
        find=times("enqueue", "one_client_per_s", _PYTHON_ON_POSTGRES),
        unit="times",
    ),
    Target(
        name="enqueue, 8 clients, worker on",
        what="calls/s, times the best Python peer's on Postgres",
        wanted=3.0,
        find=times("enqueue", "eight_clients_worker_on_per_s", _PYTHON_ON_POSTGRES),
        unit="times",
    ),
    Target(
        name="bulk / graphile-worker",
        what="jobs/s, times graphile-worker's",
        wanted=1.3,
        find=times("bulk", "jobs_per_s", ["graphile-worker"]),
        unit="times",
    ),
    *(
        Target(
            name=f"flatness, {name}",
            what="jobs/s, of those at an empty table",
            wanted=0.85,
            find=own("flatness", f"{figure}_over_empty"),
            unit="times",
        )
        for name, figure in (
            ("10 million ready", "ready_10m"),
            ("1 million ready", "ready_1m"),
            ("1 million future", "future_1m"),
            ("10 million in history", "history_10m"),
        )
    ),
    Target(
        name="sustained p99",
        what="ms to the start at 1,000 jobs/s",
        wanted=10,
        find=own("sustained", "start_p99_ms"),
        at_most=True,
        unit="ms",
    ),
    Target(
        name="sustained size",
        what="MB of the live tables after 60 s",
        wanted=32,
        find=own("sustained", "live_tables_mb"),
        at_most=True,
        unit="MB",
    ),
    Target(
        name="workers, 16 / 4",
        what="rate of 1 ms jobs by 16 workers, of that by 4",
        wanted=1.0,
        find=own("workers", "workers_16_over_4"),
        unit="times",
    ),
)


def verdicts(runs: Iterable[Mapping[str, Any]]) -> list[Verdict]:
    """Return the verdict on every target."""
    results = table(runs)
    return [target.verdict(results) for target in TARGETS]
