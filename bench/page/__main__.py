"""The status page on 5 million jobs in history and 1 million live: `make bench-page`, `make bench-page ARGS="--scale 0.1"`.

Fills a database of its own (minutes; --keep keeps it for the next run), then asks for every page with nothing kept of the last
answer, and then lets 50 tabs refresh beside a worker that drains. Prints what took how long, beside what is promised, and
writes a file of results. --strict ends with 1 where a promise is not held.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

from bench import environments, results
from bench.figures import percentile
from bench.page import drain, reads, seed
from bench.servers import Server, machine
from jobq import migrate

# The share of its rate that a worker may lose to 50 tabs.
LOSS = 0.03


def say(text: str) -> None:
    """Tell the one who waits."""
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench-page", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the jobs (default: 1; 0.1 for short runs)")
    parser.add_argument("--requests", type=int, default=30, help="requests of each page (default: 30)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of drains, 0 for none (default: 5)")
    parser.add_argument("--keep", action="store_true", help="keep the database, and begin with the one kept before")
    parser.add_argument("--only", help="pages whose name has this in it")
    parser.add_argument(
        "--strict", action="store_true", help="end with 1 where a target is missed or a page not measured"
    )
    parser.add_argument("--results", type=Path, help="directory for results (default: .bench/results)")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if not 0 < given.scale <= 10 or given.requests < 1 or given.rounds < 0:
        raise SystemExit(
            "make bench-page: give --scale above 0 (at most 10), --requests of 1 or more, --rounds of 0 or more"
        )
    home = environments.HOME / f"page-{given.scale:g}"
    kept: dict[str, Any] = {
        "machine": machine(),
        "scale": given.scale,
        "quick": given.scale < 1,
        "pages": [],
        "drain": None,
    }
    path = (given.results or environments.HOME / "results") / f"page-{time.strftime('%Y%m%d-%H%M%S')}.json"
    if not given.keep:
        shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="jobq-page-") as short, Server(home, keep=given.keep) as server:
        kept["machine"]["postgres"] = server.version
        url, made = server.database(f"page_{migrate.head()}")
        if made:
            try:
                migrate.upgrade(url)
                with psycopg.connect(url, autocommit=True) as connection:
                    seed.fill(connection, given.scale, say)
            except BaseException:
                server.drop(f"page_{migrate.head()}")
                raise
        else:
            migrate.upgrade(url)
            with psycopg.connect(url, autocommit=True) as connection:
                drain.restock(connection, round(seed.LIVE * given.scale))
        with psycopg.connect(url, autocommit=True) as connection:
            kept["sizes"] = _sizes(connection)
            seed.beat(connection)
            say(f"{kept['sizes']}; asking for every page {given.requests} times")
            kept["load"] = [os.getloadavg()]
            found = reads.measure(server, url, connection, given.requests, only=given.only)
            kept["load"].append(os.getloadavg())
            kept["pages"] = [_page(case) for case in found]
            results.write(kept, path)
            if given.rounds:
                live = round(seed.LIVE * given.scale)
                kept["drain"] = drain.rounds(url, connection, live, given.rounds, Path(short), say)
                results.write(kept, path)
    held = show(found, kept, Console(width=None if sys.stdout.isatty() else 160))
    say(f"results: {path}")
    if given.strict and not held:
        raise SystemExit(1)


def _sizes(connection: psycopg.Connection[Any]) -> dict[str, int]:
    row = connection.execute(
        "SELECT (SELECT count(*) FROM jobq.job_history), (SELECT count(*) FROM jobq.job),"
        " (SELECT count(*) FROM jobq.job_attempt), pg_database_size(current_database()) / 1048576"
    ).fetchone()
    assert row is not None
    return dict(zip(("history", "live", "attempts", "mib"), map(int, row), strict=True))


def _page(case: reads.Case) -> dict[str, Any]:
    figures = {f"p{share}_ms": percentile(case.times, share) for share in (50, 95, 100)} if case.times else {}
    return {
        "name": case.name, "url": case.url, "target_ms": case.target, "error": case.error, "figures": figures,
        "reached": case.reached, "cpu_p50_ms": percentile(case.cpu, 50) if case.cpu else None,
        "slowest": dict(zip(("statement", "ms", "times"), case.slowest, strict=True)),
    }  # fmt: skip


def show(found: list[reads.Case], kept: dict[str, Any], console: Console) -> bool:
    """Print the figures beside the targets; return whether all are held."""
    sizes = kept["sizes"]
    console.print(
        f"{kept['machine']['cpus']} CPUs ({kept['machine']['cpu']}), PostgreSQL {kept['machine']['postgres']}; "
        f"{sizes['history']:,} jobs in history, {sizes['live']:,} live, {sizes['mib']:,} MiB; "
        f"load of the machine {kept['load'][0][0]:.1f} before, {kept['load'][1][0]:.1f} after"
        + (" · [bold]scaled down: no evidence of the targets[/bold]" if kept["quick"] else ""),
        highlight=False,
    )
    table = Table()
    numbers = ("p50", "p95", "max", "CPU p50", "target")
    for column in ("page", *numbers, "", "of it, the dearest statement"):
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for case in found:
        if case.error is not None:
            table.add_row(case.name, "", "", "", "", "", "[red]ERROR[/red]", case.error[:200])
            continue
        figures = [f"{percentile(case.times, share):.0f} ms" for share in (50, 95, 100)]
        figures.append(f"{percentile(case.cpu, 50):.0f} ms")
        target = "" if case.target is None else f"{case.target:.0f} ms"
        verdict = "" if case.target is None else "reached" if case.reached else "[red]MISSED[/red]"
        table.add_row(
            case.name,
            *figures,
            target,
            verdict,
            f"{case.slowest[1]:.0f} ms in {case.slowest[2]:.0f}: {case.slowest[0][:60]}",
        )
    console.print(table)
    held = all(case.reached for case in found)
    if kept["drain"] is not None:
        ratio = kept["drain"]["ratio"]
        held = held and ratio >= 1 - LOSS
        console.print(
            f"a worker beside {drain.TABS} tabs keeps {ratio:.3f} of its rate (median of {len(kept['drain']['rounds'])} pairs; "
            f"target: {1 - LOSS:.2f} or more): " + ("reached" if ratio >= 1 - LOSS else "[red]MISSED[/red]"),
            highlight=False,
        )
    return held


if __name__ == "__main__":
    main()
