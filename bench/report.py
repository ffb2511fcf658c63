"""Tables of results, and of the targets beside what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.results import Results
from bench.targets import Key, Verdict, table, verdicts
from bench.workloads import WORKLOADS, Workload

_UNITS = (
    ("_us_per_job", "µs/job"),
    ("_us_per_enqueue", "µs/enqueue"),
    ("_bytes_per_job", "bytes/job"),
    ("_over_empty", "of empty"),
    ("_per_s", "/s"),
    ("_ms", "ms"),
    ("_mb", "MB"),
    ("_cores", "cores"),
)


def show(results: Results, console: Console) -> None:
    """Print everything: machine, versions, a table a workload, the targets, and what is missing."""
    machine = results["machine"]
    console.print(
        f"{machine['cpus']} CPUs ({machine['cpu']}), {machine['memory_gib']} GiB, PostgreSQL {machine['postgres']}, "
        f"Python {machine['python']}"
        + (
            " · [bold]quick: small numbers, which show that it works and nothing else[/bold]"
            if results["quick"]
            else ""
        )
    )
    console.print(", ".join(sorted(f"{said['peer']} ({said['driver']})" for said in results["versions"].values())))
    found = table(results["runs"])
    for workload in WORKLOADS:
        rows = {key: figures for key, figures in found.items() if key[0] == workload.name}
        if rows:
            rounds = max(run["round"] for run in results["runs"] if run["workload"] == workload.name)
            console.print(f"\n[bold]{workload.name}[/bold]: {workload.about} (median of {rounds})", highlight=False)
            console.print(_workload(workload, rows))
    judged = verdicts(results["runs"])
    if measured := [verdict for verdict in judged if verdict.found]:
        how = "of a quick run, which is no evidence" if results["quick"] else "ratios of medians in this run"
        console.print(f"\n[bold]targets[/bold]: {how}", highlight=False)
        console.print(_targets(measured))
    if others := [verdict.target.name for verdict in judged if not verdict.found]:
        console.print(f"targets not measured: {'; '.join(others)}", highlight=False, style="dim")
    _missing(results, console)


def _workload(workload: Workload, rows: Mapping[Key, Figures]) -> Table:
    drawn = Table()
    if not workload.headline:
        # Of jobq alone, with a figure for each state: a line each.
        drawn.add_column("figure")
        drawn.add_column("jobq", justify="right")
        for figures in rows.values():
            for name, value in figures.items():
                drawn.add_row(label(name), number(value))
        return drawn
    first = workload.headline[0]
    shown = [name for name in workload.headline if any(name in figures for figures in rows.values())]
    several = len(rows) > 1
    ours = rows.get((workload.name, "jobq", "default"), {}).get(first)
    drawn.add_column("peer")
    drawn.add_column("config")
    for name in shown:
        drawn.add_column(label(name), justify="right")
        if name == first and several:
            drawn.add_column("of jobq's", justify="right")
    falling = not first.endswith("_ms")
    for (_, peer, config), figures in sorted(rows.items(), key=lambda row: row[1].get(first, 0), reverse=falling):
        cells = [peer, config]
        for name in shown:
            cells.append(number(figures.get(name)))
            if name == first and several:
                cells.append(f"{figures[first] / ours:.2f}" if ours and first in figures else "")
        drawn.add_row(*cells, style="bold" if peer == "jobq" else None)
    return drawn


def _targets(found: Sequence[Verdict]) -> Table:
    drawn = Table()
    drawn.add_column("target")
    drawn.add_column("what")
    drawn.add_column("wanted", justify="right")
    drawn.add_column("found", justify="right")
    drawn.add_column("")
    drawn.add_column("against")
    for verdict in found:
        target = verdict.target
        drawn.add_row(
            target.name,
            target.what,
            f"{'≤' if target.at_most else '≥'} {target.wanted:g} {target.unit}",
            number(verdict.found.value) if verdict.found else "",
            f"[{'green' if verdict.met else 'red'}]{verdict.text}[/]",
            verdict.found.against if verdict.found else "",
        )
    return drawn


def _missing(results: Results, console: Console) -> None:
    for peer, reason in results["skipped"].items():
        console.print(f"[yellow]skipped[/yellow] {peer}: {reason}", highlight=False)
    for run in results["runs"]:
        if "error" in run:
            console.print(
                f"[red]failed[/red] {run['workload']} of {run['peer']} {run['config']}, round {run['round']}: ",
                end="",
                highlight=False,
            )
            console.print(run["error"], markup=False, highlight=False)


def label(name: str) -> str:
    """Return a figure's name as people write it: ``start_p50_ms`` is ``start p50 ms``."""
    for ending, unit in _UNITS:
        if name.endswith(ending):
            return f"{name.removesuffix(ending).replace('_', ' ')} {unit}".strip().replace("jobs /s", "jobs/s")
    return name.replace("_", " ")


def number(value: float | None) -> str:
    """Return a figure with about three digits that count."""
    if value is None:
        return ""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
