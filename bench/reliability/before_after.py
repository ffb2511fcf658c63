"""The plain path of this checkout beside another's: drain, idle latency and enqueue, interleaved, as medians and ratios.

`--other` is the root of the other checkout (`git worktree add /tmp/before REV`). Both run with this interpreter, on servers of
their own, one after the other in turns; each measures by its own `bench.workloads`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from bench.reliability.stage import Outcome, Stage

HERE = Path(__file__).resolve().parents[2]
# By workload: the figure, and whether more of it is better.
FIGURES = {
    "drain": ("jobs_per_s", True),
    "latency": ("start_p50_ms", False),
    "enqueue": ("one_client_per_s", True),
}
# Runs in either checkout, where this module may not exist.
MEASURE = """
import json, sys, tempfile
from pathlib import Path
from bench.peers import PEERS
from bench.servers import Server
from bench.workloads import WORKLOADS, Bench
import bench, jobq
name, root, quick = sys.argv[1], Path(sys.argv[2]).resolve(), sys.argv[3] == "quick"
for module in (bench, jobq):
    assert Path(module.__file__).resolve().is_relative_to(root), f"{module.__file__} is not of {root}"
(workload,) = [each for each in WORKLOADS if each.name == name]
(peer,) = [each for each in PEERS if each.name == "jobq"]
with tempfile.TemporaryDirectory(prefix="jobq-bench-") as home, Server(Path(home)) as server:
    print(json.dumps(workload.measure(Bench(server=server, quick=quick), peer, "default")))
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--other", type=Path, required=True, metavar="ROOT", help="the checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument("--workloads", default=",".join(FIGURES), help="by commas (default: all)")
    parser.add_argument("--tolerance", type=float, default=0.03, help="what may be lost, as a share (default: 0.03)")
    parser.add_argument("--quick", action="store_true", help="small numbers: shows that it works, no more")


def measured(root: Path, workload: str, quick: bool) -> dict[str, float]:
    """Measure in the checkout at `root`; return its figures."""
    # First in the path of every process that it starts, so that an installed jobq is not what is measured.
    environ = {**os.environ, "PYTHONPATH": str(root), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", MEASURE, workload, str(root), "quick" if quick else "full"]
    done = subprocess.run(command, check=False, cwd=root, env=environ, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{workload} in {root} failed: {done.stderr.strip()[-1500:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def run(stage: Stage, given: argparse.Namespace) -> Outcome:
    outcome = Outcome()
    for workload in given.workloads.split(","):
        figure, more = FIGURES[workload]
        found: dict[Path, list[float]] = {HERE: [], given.other.resolve(): []}
        for number in range(given.rounds):
            # The first of a round finds the machine as the other left it: in turns.
            for root in list(found) if number % 2 else reversed(list(found)):
                found[root].append(measured(root, workload, given.quick)[figure])
                print(f"{workload} {root}: {found[root][-1]:,.4g}", file=sys.stderr, flush=True)
        ours, theirs = (statistics.median(values) for values in found.values())
        ratio = ours / theirs
        name = f"{workload}_{figure}"
        outcome.figures |= {name: ours, f"{name}_other": theirs, f"{name}_ratio": ratio}
        kept = ratio >= 1 - given.tolerance if more else ratio <= 1 + given.tolerance
        outcome.demand(kept, f"{workload}: {figure} is {ours:,.4g}, {ratio:.3f} of the other's {theirs:,.4g}")
    return outcome
