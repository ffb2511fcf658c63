"""jobq beside its peers: `make bench`, or `make bench ARGS="drain latency --peers pgqueuer,graphile --rounds 3 --quick"`.

Sets up what is missing, runs round after round, prints tables and the targets, draws plots and writes a file of results, to
which `--report FILE` comes back.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import environments, results
from bench.brokers import BrokerMissing, broker
from bench.peers import PEERS, Peer
from bench.plan import Case, Clock, Selection, select, select_peers
from bench.plots import draw
from bench.report import label, number, show
from bench.run import RunFailed
from bench.servers import Server, machine
from bench.workloads import WORKLOADS, Bench


def say(text: str) -> None:
    """Tell the one who waits."""
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench",
        description=__doc__.split("\n\n")[0] if __doc__ else None,
        epilog="workloads: " + "; ".join(f"{workload.name}: {workload.about}" for workload in WORKLOADS),
    )
    parser.add_argument("workloads", nargs="*", help="default: all but soak, and of the long ones the short settings")
    parser.add_argument("--peers", help="names, or how they begin, by commas; none: jobq alone (default: all)")
    parser.add_argument("--configs", help="default, tuned or both (default: both in drain, else the best of each)")
    parser.add_argument("--rounds", type=int, default=None, help="runs of each; the median counts (default: 3)")
    parser.add_argument("--quick", action="store_true", help="small numbers, one round: shows that it works, no more")
    parser.add_argument("--all", action="store_true", help="everything of everybody: hours")
    parser.add_argument("--results", type=Path, help="directory for results (default: .bench/results)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="run nothing: tables and plots of this file")
    return parser.parse_args()


def prepare(peers: Sequence[Peer], kept: results.Results) -> list[Peer]:
    """Make the environments, and return the peers that can be measured here; the reasons of the others are kept."""
    able = []
    for peer in peers:
        try:
            environments.prepare(peer, say)
            kept["versions"][peer.name] = _version(peer)
            able.append(peer)
        except environments.Unavailable as error:
            kept["skipped"][peer.name] = str(error)
            say(f"skipping {peer.name}: {error}")
    return able


def _version(peer: Peer) -> dict[str, Any]:
    done = subprocess.run(
        [*environments.command(peer), "version"],
        env={**os.environ, **environments.environ(peer)},
        cwd=environments.ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        raise environments.Unavailable(f"its adapter does not tell its version: {done.stderr.strip()[-300:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def measure(cases: list[Case], kept: results.Results, path: Path, *, quick: bool, everything: bool) -> None:
    """Make the runs, and write the results after each."""
    clock, failed = Clock(quick), set()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobq-bench-")))
        server = stack.enter_context(Server(directory))
        kept["machine"]["postgres"] = server.version
        say(f"PostgreSQL {server.version}; {len(cases)} runs, about {clock.left(cases) / 60:.0f} min")
        for workload in dict.fromkeys(case.workload for case in cases):
            mine = [case for case in cases if case.workload is workload]
            with ExitStack() as brokers:
                bench = Bench(server=server, quick=quick, everything=everything)
                bench.brokers = _brokers(mine, kept, brokers)
                brokers.callback(bench.drop_kept)
                for case in mine:
                    if case.peer.name in kept["skipped"] or case.key in failed:
                        continue
                    at = cases.index(case)
                    begin = time.monotonic()
                    try:
                        found: Any = workload.measure(bench, case.peer, case.config)
                    except (RunFailed, OSError, subprocess.SubprocessError) as error:
                        found = str(error)
                        failed.add(case.key)  # its next rounds would fail as slowly
                    took = time.monotonic() - begin
                    clock.ran(case, took)
                    results.add(kept, *case.key, case.round, found)
                    results.write(kept, path)
                    rest = [other for other in cases[at + 1 :] if other.key not in failed]
                    say(
                        f"[{at + 1:3}/{len(cases)}] {' '.join(case.key)}, round {case.round}: {_short(case, found)} "
                        f"({took:.0f} s; about {clock.left(rest) / 60:.0f} min left)"
                    )


def _brokers(cases: list[Case], kept: results.Results, stack: ExitStack) -> dict[str, Any]:
    running: dict[str, Any] = {}
    for kind in dict.fromkeys(case.peer.broker for case in cases if case.peer.broker):
        try:
            running[kind] = stack.enter_context(broker(kind))
            kept["machine"][kind] = running[kind].version
        except (BrokerMissing, RuntimeError, OSError) as error:
            for peer in {case.peer.name for case in cases if case.peer.broker == kind}:
                kept["skipped"][peer] = f"{kind}: {error}"
                say(f"skipping {peer}: {kind}: {error}")
    return running


def _short(case: Case, found: Any) -> str:
    if isinstance(found, str):
        return f"FAILED: {found}"
    shown = [name for name in case.workload.headline or found if name in found][:3]
    return ", ".join(f"{label(name)} {number(found[name])}" for name in shown)


def main() -> None:
    given = arguments()
    console = Console(width=None if sys.stdout.isatty() else 160)
    if given.report:
        kept = results.read(given.report)
        show(kept, console)
        _draw(kept, given.report)
        return
    try:
        chosen = select(given.workloads, WORKLOADS, everything=given.all)
        peers = select_peers(given.peers, PEERS)
    except ValueError as error:
        raise SystemExit(f"make bench: {error}") from None
    kept = results.begin(machine(), quick=given.quick)
    rounds = given.rounds or (1 if given.quick else 3)
    selection = Selection(
        workloads=chosen,
        peers=prepare(peers, kept),
        named=given.peers is not None or bool(given.workloads),
        configs=given.configs.split(",") if given.configs else None,
        rounds=rounds,
        everything=given.all,
    )
    path = (given.results or environments.HOME / "results") / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    try:
        # The long settings of a workload are for those who ask for it by name.
        everything = given.all or (bool(given.workloads) and not given.quick)
        measure(list(selection.cases()), kept, path, quick=given.quick, everything=everything)
    except KeyboardInterrupt:
        say("interrupted: what is there so far")
    if not kept["runs"]:
        raise SystemExit("make bench: nothing was measured")
    show(kept, console)
    _draw(kept, path)


def _draw(kept: results.Results, path: Path) -> None:
    say(f"results: {path}")
    try:
        for plot in draw(kept, path.with_suffix("")):
            say(f"plot: {plot}")
    except ImportError as error:
        say(f"no plots: {error}: install the extra `bench`")


if __name__ == "__main__":
    main()
