"""Plots of results: jobq in one strong colour, the others in grey, units on the axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.figures import Figures
from bench.report import number
from bench.results import Results
from bench.targets import table

_OURS, _THEIRS, _FAINT, _INK = "#c2410c", "#8a8f98", "#c9ccd1", "#2b2f36"
_Rows = list[tuple[str, Figures, bool]]
"""Label, figures, whether it is jobq."""


def draw(results: Results, directory: Path) -> Iterator[Path]:
    """Draw what the results have, into `directory`; yield the files. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 9,
            "text.color": _INK,
            "axes.labelcolor": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
            "axes.edgecolor": _FAINT,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "figure.dpi": 120,
            "savefig.bbox": "tight",
            "figure.constrained_layout.use": True,
        }
    )
    found = table(results["runs"])
    machine = results["machine"]
    foot = f"{machine['cpus']} CPUs, PostgreSQL {machine['postgres']}, medians" + (
        " · quick run: small numbers, no evidence" if results["quick"] else ""
    )
    for name, picture in _PICTURES.items():
        workload = name.split(" ")[0]
        rows = [
            (peer if peer == "jobq" else f"{peer}, {config}", figures, peer == "jobq")
            for (of, peer, config), figures in found.items()
            if of == workload
        ]
        if not rows:
            continue
        figure = picture(plt, rows)
        if figure is None:
            continue
        figure.supxlabel(foot, x=0.01, ha="left", fontsize=7, color=_THEIRS)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{name.replace(' ', '-')}.png"
        figure.savefig(path)
        plt.close(figure)
        yield path


def _colour(ours: bool) -> str:
    return _OURS if ours else _THEIRS


def _bars(title: str, unit: str, figure: str) -> Callable[[Any, _Rows], Any]:
    """Bars from the largest to the smallest, each with its number."""

    def picture(plt: Any, rows: _Rows) -> Any:
        shown = sorted((row for row in rows if figure in row[1]), key=lambda row: row[1][figure])
        if not shown:
            return None
        drawn, axes = plt.subplots(figsize=(7, 0.8 + 0.27 * len(shown)))
        values = [figures[figure] for _, figures, _ in shown]
        axes.barh([label for label, _, _ in shown], values, color=[_colour(ours) for _, _, ours in shown], height=0.7)
        for at, value in enumerate(values):
            axes.text(value, at, f" {number(value)}", va="center", fontsize=8)
        _quiet(axes, title, unit)
        axes.set_xlim(0, max(values) * 1.12)
        return drawn

    return picture


def _cost(plt: Any, rows: _Rows) -> Any:
    """CPU time of a job: Postgres, broker and worker, one after the other on a bar; by the sum."""
    kinds = ("postgres_us_per_job", "broker_us_per_job", "worker_us_per_job")
    shown = [row for row in rows if row[1].get("jobs", 0) >= 100]
    shown = sorted(shown, key=lambda row: sum(row[1].get(kind, 0) for kind in kinds), reverse=True)
    if not shown:
        return None
    drawn, axes = plt.subplots(figsize=(7, 1.3 + 0.27 * len(shown)))
    sums = [sum(figures.get(kind, 0) for kind in kinds) for _, figures, _ in shown]
    # The dearest would make specks of the others: their bars end at the edge, with their number.
    edge = min(max(sums), 10 * min(sums))
    for at, (_, figures, ours) in enumerate(shown):
        left = 0.0
        for kind, strength in zip(kinds, (1.0, 1.0, 0.45), strict=True):
            width = min(figures.get(kind, 0), edge - left)
            axes.barh(at, width, left=left, color=_colour(ours), alpha=strength, height=0.7)
            left += width
        axes.text(left, at, f" {'▸ ' if sums[at] > edge else ''}{number(sums[at])}", va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [label for label, _, _ in shown])
    _quiet(axes, "CPU time of a no-op job (dark: Postgres or broker; light: worker)", "µs; ▸ more than fits")
    axes.set_xlim(0, edge * 1.12)
    return drawn


def _ranges(title: str) -> Callable[[Any, _Rows], Any]:
    """A line from p50 over p95 to p99 for each, on a logarithmic axis."""

    def picture(plt: Any, rows: _Rows) -> Any:
        shown = sorted(
            (row for row in rows if "start_p99_ms" in row[1]), key=lambda row: row[1]["start_p50_ms"], reverse=True
        )
        if not shown:
            return None
        drawn, axes = plt.subplots(figsize=(7, 1.1 + 0.3 * len(shown)))
        for at, (_, figures, ours) in enumerate(shown):
            points = [figures[f"start_p{share}_ms"] for share in (50, 95, 99)]
            axes.plot(points, [at] * 3, color=_colour(ours), linewidth=1.5, zorder=2)
            for value, marker in zip(points, "o|D", strict=True):
                axes.plot(value, at, marker, color=_colour(ours), markersize=5 if marker != "|" else 9, zorder=3)
            numbers = f"{number(points[0])} / {number(points[2])}"
            axes.annotate(numbers, (points[2], at), (8, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_xscale("log")
        axes.set_yticks(range(len(shown)), [label for label, _, _ in shown])
        axes.set_ylim(-0.6, len(shown) - 0.4)
        low = min(figures["start_p50_ms"] for _, figures, _ in shown)
        high = max(figures["start_p99_ms"] for _, figures, _ in shown)
        axes.set_xlim(low / 1.3, high * (high / low) ** 0.25 * 1.4)  # room for the last numbers
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}" if value < 1 else f"{value:,.0f}")
        between = "25" if high / low < 100 else ""
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in between else "")
        axes.tick_params(axis="x", which="minor", labelsize=8)
        _quiet(axes, title, "ms (logarithmic); ● p50  | p95  ◆ p99; numbers: p50 / p99")
        return drawn

    return picture


def _enqueue(plt: Any, rows: _Rows) -> Any:
    """Four little pictures with one scale: 1 and 8 clients, without a worker and beside one."""
    panels = {
        "one_client_per_s": "1 client",
        "eight_clients_per_s": "8 clients",
        "one_client_worker_on_per_s": "1 client, worker on",
        "eight_clients_worker_on_per_s": "8 clients, worker on",
    }
    shown = sorted(rows, key=lambda row: row[1].get("eight_clients_worker_on_per_s", 0))
    drawn, grid = plt.subplots(1, 4, figsize=(10, 0.9 + 0.3 * len(shown)), sharey=True, sharex=True)
    most = max(figures.get(name, 0) for _, figures, _ in shown for name in panels)
    for axes, (name, title) in zip(grid, panels.items(), strict=True):
        values = [figures.get(name, 0) for _, figures, _ in shown]
        axes.barh([label for label, _, _ in shown], values, color=[_colour(ours) for _, _, ours in shown], height=0.7)
        for at, value in enumerate(values):
            axes.text(value, at, f" {number(value)}", va="center", fontsize=7)
        _quiet(axes, title, "calls/s")
        axes.set_title(title, fontsize=9)
        axes.set_xlim(0, most * 1.3)
    return drawn


def _snapshot(plt: Any, rows: _Rows) -> Any:
    """The rate while a snapshot is held as a share of the rate without, over the fifths of the drain."""
    drawn, axes = plt.subplots(figsize=(7, 3.8))
    axes.axhspan(0.9, 1.1, color=_FAINT, alpha=0.35, linewidth=0)
    ends: list[tuple[float, str, bool]] = []
    for label, figures, ours in rows:
        shares = [figures[f"fifth_{fifth}_held_over_free"] for fifth in range(1, 6)]
        axes.plot(
            range(1, 6),
            shares,
            "o-",
            color=_colour(ours),
            linewidth=2 if ours else 1.2,
            markersize=4,
            zorder=3 if ours else 2,
        )
        ends.append((shares[-1], label, ours))
    axes.set_ylim(0, max(axes.get_ylim()[1], 1.2))
    at = -1.0
    for share, label, ours in sorted(ends):
        at = max(share, at + axes.get_ylim()[1] * 0.055)  # labels do not lie on each other
        axes.text(5.12, at, label, color=_colour(ours), va="center", fontsize=8, weight="bold" if ours else "normal")
    axes.set_xticks(range(1, 6))
    axes.set_xlim(0.8, 5.1)
    axes.set_xlabel("fifth of the jobs")
    axes.set_title("Drain while a snapshot is held (band: within 10 % of without)")
    axes.set_ylabel("share of the rate without")
    axes.grid(axis="y", color=_FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    return drawn


def _columns(title: str, unit: str, names: Mapping[str, str]) -> Callable[[Any, _Rows], Any]:
    """Columns of one peer's figures, in the order of `names`."""

    def picture(plt: Any, rows: _Rows) -> Any:
        _, figures, _ = rows[0]
        shown = [(label, figures[name]) for name, label in names.items() if name in figures]
        if not shown:
            return None
        drawn, axes = plt.subplots(figsize=(max(4.5, 1 + 0.95 * len(shown)), 3))
        axes.bar([label for label, _ in shown], [value for _, value in shown], color=_OURS, width=0.6)
        for at, (_, value) in enumerate(shown):
            axes.text(at, value, number(value), ha="center", va="bottom", fontsize=8)
        axes.set_title(title, pad=14)
        axes.set_ylabel(unit)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.tick_params(axis="both", length=0)
        axes.grid(axis="y", color=_FAINT, linewidth=0.5)
        axes.set_axisbelow(True)
        return drawn

    return picture


def _soak(plt: Any, rows: _Rows) -> Any:
    """By the minute: rate, p99, size of the live tables, log."""
    _, figures, _ = rows[0]
    parts = {
        "jobs_per_s": ("rate", "jobs/s"),
        "start_p99_ms": ("start p99", "ms"),
        "live_tables_mb": ("live tables", "MB"),
        "wal_mb": ("log written", "MB a minute"),
    }
    minutes = [minute for minute in range(1, 100) if f"minute_{minute}_wal_mb" in figures]
    drawn, grid = plt.subplots(1, 4, figsize=(11, 2.4))
    for axes, (name, (title, unit)) in zip(grid, parts.items(), strict=True):
        values = [figures[f"minute_{minute}_{name}"] for minute in minutes]
        axes.plot(minutes, values, "o-", color=_OURS, markersize=3)
        axes.set_title(title, fontsize=9)
        axes.set_ylabel(unit)
        axes.set_xlabel("minute")
        axes.set_ylim(0, max(values) * 1.15)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xticks(minutes[:: max(1, len(minutes) // 5)])
        axes.grid(axis="y", color=_FAINT, linewidth=0.5)
    return drawn


def _quiet(axes: Any, title: str, unit: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(unit)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=_FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    if axes.get_xscale() == "linear":
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value == int(value) else f"{value:g}")
        axes.locator_params(axis="x", nbins=5)


_PICTURES: dict[str, Callable[[Any, _Rows], Any]] = {
    "drain": _bars("No-op jobs by one worker process", "jobs/s", "jobs_per_s"),
    "drain cost": _cost,
    "drain-2": _bars("No-op jobs by two worker processes", "jobs/s", "jobs_per_s"),
    "latency": _ranges("From the enqueue call to the start of the job, idle worker"),
    "enqueue": _enqueue,
    "bulk": _bars("Enqueue in bulk", "jobs/s", "jobs_per_s"),
    "snapshot": _snapshot,
    "sustained": _ranges("1,000 jobs/s for a minute: from the call to the start"),
    "flatness": _columns(
        "One worker, by what else is in the tables",
        "jobs/s",
        {
            "empty_per_s": "nothing",
            "ready_100k_per_s": "100 k\nready",
            "ready_1m_per_s": "1 M\nready",
            "ready_10m_per_s": "10 M\nready",
            "future_1m_per_s": "1 M\nfuture",
            "history_10m_per_s": "10 M in\nhistory",
        },
    ),
    "workers": _columns(
        "Jobs of 1 ms, by worker processes",
        "jobs/s",
        {f"workers_{count}_per_s": str(count) for count in (1, 2, 4, 8, 16, 32)},
    ),
    "soak": _soak,
}
