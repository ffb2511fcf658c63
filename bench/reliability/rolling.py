"""A rolling deployment with two installed versions under load: lost 0, dead letters 0, extra delay p99 at most 1 s.

The old version is this tree, and the new one adds revision 0010 (tests/support/installed.py). With `--old ROOT` the old version
is that checkout, and the new one is this tree. The application gets added parameters, a new task and a renamed task.

The order is that of docs/how-to.md: migrate, then the workers one by one, then the producers. A second deployment replaces the
producers before the last old worker, which then meets jobs of the new code. In both, one old worker is killed after the
migration and started again (not with `--no-kill`, as for versions that exit with 78 when they start on a newer schema). A job's
delay is the time from when it was due to its first start. The delays during the deployment are compared with those before it,
in the same run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from bench.figures import percentile
from bench.reliability.stage import Outcome, Stage
from tests.support.installed import ROOT, Installed, install, newer, sources
from tests.support.rollout.scene import NEW, OLD, Scene, Told, kill

EXTRA_S = 1.0
ORDERS = ("last", "early")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--old", type=Path, metavar="ROOT", help="an older checkout; this tree is the new version then")
    parser.add_argument("--order", choices=ORDERS, help="when producers are replaced (default: one run of each)")
    parser.add_argument("--seconds", type=float, default=30.0, help="before the deployment, measured (default: 30)")
    parser.add_argument("--between", type=float, default=5.0, help="seconds between its steps (default: 5)")
    parser.add_argument("--rate", type=float, default=50.0, help="transactions a second of each producer (default: 50)")
    parser.add_argument("--workers", type=int, default=3, help="and as many producers (default: 3)")
    parser.add_argument("--no-kill", action="store_true", help="kill no old worker after the migration")


def versions(home: Path, old: Path | None) -> tuple[Installed, Installed]:
    """Install both versions."""
    new = sources(ROOT, home / "next") if old else newer(home / "next")
    return install(sources(old or ROOT, home / "former"), home / "old"), install(new, home / "new")


def deploy(scene: Scene, given: argparse.Namespace, order: str) -> tuple[Told, dict[str, float], str]:
    """Deploy under load; return what happened, when each step began, in order, and what `jobq migrate` said."""
    workers = [scene.start_worker(OLD) for _ in range(given.workers)]
    producers = [scene.start_producer(OLD, given.rate) for _ in range(given.workers)]
    time.sleep(given.between)
    steps = {"before": time.time()}
    time.sleep(given.seconds)

    def replace_producers() -> None:
        steps["producers"] = time.time()
        for number, former in enumerate(producers):
            producers[number] = scene.start_producer(NEW, given.rate)
            scene.stop(former)
            time.sleep(given.between)

    steps["migrate"] = time.time()
    said = scene.run(NEW, "migrate", "--yes")
    time.sleep(given.between)
    if not given.no_kill:
        steps["restart"] = time.time()
        kill(workers[0])
        workers[0] = scene.start_worker(OLD)
        time.sleep(given.between)
    steps["workers"] = time.time()
    for number, former in enumerate(workers):
        if number == given.workers - 1 and order == "early":
            replace_producers()
            steps["last_worker"] = time.time()
        workers[number] = scene.start_worker(NEW)
        scene.stop(former)
        time.sleep(given.between)
    if order == "last":
        replace_producers()
    steps["end"] = time.time()
    for producer in producers:
        scene.stop(producer)
    return scene.drain(), steps, said


def run(stage: Stage, given: argparse.Namespace) -> Outcome:
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="jobq-rolling-") as directory:
        installed = versions(Path(directory), given.old)
        outcome.figures["versions"] = " -> ".join(each.version for each in installed)
        for order in (given.order,) if given.order else ORDERS:
            home = stage.directory / f"producers-{order}"
            home.mkdir()
            _, url = stage.server.fresh()
            # The times of a worker are those that it has by default.
            with Scene(home, url, *installed, note=given.old is None, times=()) as scene:
                told, steps, said = deploy(scene, given, order)
            judge(outcome, f"{order}_", told, steps)
            outcome.figures[f"{order}_revisions"] = ", ".join(
                line.split()[0] for line in said.splitlines() if line.startswith("  ")
            )
    return outcome


def judge(outcome: Outcome, prefix: str, told: Told, steps: dict[str, float]) -> None:
    """Add the figures of one deployment, and what it has broken."""
    begun, ended = steps["migrate"], steps["end"]
    before, during = told.delays(steps["before"], begun), told.delays(begun, ended)
    figures: dict[str, float] = {
        "seconds": ended - begun, "jobs": len(told.committed), "jobs_per_s": len(during) / (ended - begun),
        "lost": len(told.lost), "dead_letters": len(told.dead), "unfinished": len(told.left),
        "refused_calls": len(told.errors), "repeated": told.repeated, "left_to_others": len(told.refused),
        "longest_call_s": told.longest_call,
    }  # fmt: skip
    for name, delays in (("before", before), ("during", during)):
        for part in (50, 99):
            figures[f"delay_{name}_p{part}_s"] = percentile(delays, part)
        figures[f"delay_{name}_max_s"] = delays[-1]
    slow = []
    for (name, since), (_, until) in pairwise(sorted(steps.items(), key=lambda step: step[1])):
        if name != "before":
            p99 = figures[f"step_{name}_p99_s"] = percentile(told.delays(since, until), 99)
            # Jobs in the hands of the killed worker wait until it is known to be dead.
            extra = p99 - figures["delay_before_p99_s"]
            if name != "restart" and extra > EXTRA_S:
                slow.append(f"{name}: {extra:.3f} s")
    extra = figures["delay_during_p99_s"] - figures["delay_before_p99_s"]
    figures["extra_delay_p99_s"] = extra
    outcome.figures |= {f"{prefix}{name}": value for name, value in figures.items()}
    for name in ("lost", "dead_letters", "unfinished", "refused_calls"):
        outcome.demand(not figures[name], f"{prefix}{name}: {figures[name]:g}")
    outcome.demand(extra <= EXTRA_S, f"{prefix}extra delay p99 is {extra:.3f} s, above {EXTRA_S:g} s")
    outcome.demand(not slow, f"{prefix}extra delay p99 of a step is above {EXTRA_S:g} s: {', '.join(slow)}")
    unknown = set(told.states) - set(told.committed)
    outcome.demand(not unknown, f"{prefix}{len(unknown)} jobs that no producer has committed")
