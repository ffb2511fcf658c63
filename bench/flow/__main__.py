"""`python -m bench.flow [--seeds 3] [order limits rate fair unfair ordered turns blocked]`: each on a fresh database."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.flow.durable import steps, waiters
from bench.flow.fair import fair
from bench.flow.limits import limits
from bench.flow.order import order
from bench.flow.pinned import KINDS, pinned
from bench.flow.rate import rate
from bench.flow.stage import Stage
from bench.flow.throughput import blocked, throughput
from bench.flow.workflow import diamond, fan_in, latency, rates
from bench.servers import Server

PROOFS: dict[str, Callable[[Stage, int], dict[str, float]]] = {
    "order": order,
    "limits": limits,
    "limits-unkilled": partial(limits, kills=0),
    "rate": rate,
    "fair": fair,
    "unfair": partial(fair, on=False),
    "ordered": throughput,
    "turns": partial(throughput, mode="fair", groups=50),
    "blocked": blocked,
    "chains": rates,
    "diamonds": partial(rates, shape=diamond),
    "fan-in": fan_in,
    "fan-in-8": partial(fan_in, workers=8),
    "node-latency": latency,
    "steps": steps,
    "steps-sync": partial(steps, kind="sync"),
    "signal-waits": waiters,
    "sleepers": partial(waiters, kind="sleep"),
    **{f"pinned-{kind}": partial(pinned, kind=kind) for kind in KINDS},
}


def main() -> None:
    """Run what is asked for, and print a line for each run."""
    parser = argparse.ArgumentParser(prog="python -m bench.flow", description=__doc__)
    parser.add_argument("proofs", nargs="*", metavar="PROOF", default=list(PROOFS), help=", ".join(PROOFS))
    parser.add_argument("--seeds", type=int, default=1, help="runs of each, with seeds from 1 on (default: 1)")
    given = parser.parse_args()
    if unknown := set(given.proofs) - set(PROOFS):
        parser.error(f"{sorted(unknown)}: give some of {', '.join(PROOFS)}")
    with tempfile.TemporaryDirectory(prefix="jobq-flow-") as home, Server(Path(home)) as server:
        print(f"PostgreSQL {server.version}, durable")
        for name in given.proofs:
            for seed in range(1, given.seeds + 1):
                stage = Stage(server, Path(home))
                try:
                    figures = PROOFS[name](stage, seed)
                finally:
                    stage.close()
                print(
                    f"{name}, seed {seed}: " + ", ".join(f"{key} {value:,.4g}" for key, value in figures.items()),
                    flush=True,
                )


if __name__ == "__main__":
    main()
