"""What open tabs cost a worker that drains: its rate with and without them, in turns."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from bench.cpu import cpu_of
from bench.page.seed import refill

TABS = 50
# A window holds two refreshes of each tab. Tabs are there for one before it begins.
WINDOW, BEFORE = 10.0, 6.0
_START = 60.0


class Stalled(Exception):
    """Something did not come to be in time."""


def rounds(
    url: str, connection: psycopg.Connection[Any], live: int, number: int, home: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure `number` pairs of windows, which comes first alternating; return rates, their ratios, and what the tabs got."""
    found: list[dict[str, Any]] = []
    with _web(url) as page:
        for turn in range(number):
            pair: dict[str, Any] = {}
            for with_tabs in (True, False) if turn % 2 else (False, True):
                restock(connection, live)
                rate, tabs = _window(url, connection, page if with_tabs else None, home)
                pair["with" if with_tabs else "without"] = rate
                if tabs:
                    pair["tabs"] = tabs
            pair["ratio"] = pair["with"] / pair["without"]
            found.append(pair)
            say(
                f"drain {turn + 1}/{number}: {pair['without']:,.0f}/s, with {TABS} tabs {pair['with']:,.0f}/s: "
                f"{pair['ratio']:.3f}; tabs: {pair['tabs']}"
            )
    return {"rounds": found, "ratio": statistics.median(pair["ratio"] for pair in found)}


def restock(connection: psycopg.Connection[Any], live: int) -> None:
    """Bring the backlog back to `live` jobs, and leave no work of ours to the window."""
    row = connection.execute("SELECT count(*) FROM jobq.job").fetchone()
    assert row is not None
    if row[0] < live:
        refill(connection, live - row[0])
    connection.execute("VACUUM ANALYZE jobq.job")
    connection.execute("CHECKPOINT")


def _window(
    url: str, connection: psycopg.Connection[Any], page: Page | None, home: Path
) -> tuple[float, dict[str, Any] | None]:
    tabs: subprocess.Popen[bytes] | None = None
    if page is not None:
        tabs = subprocess.Popen(
            [sys.executable, "-m", "bench.page.tabs", page.url, str(TABS), str(BEFORE + WINDOW + 4)],
            stdout=subprocess.PIPE,
        )
    try:
        time.sleep(BEFORE - 3)
        with _worker(url, home) as finished:
            wait(lambda: finished() > 0, "the first outcomes")
            # Past its beginnings: how much is prefetched is found within a second.
            time.sleep(2)
            begun, before, spent = time.monotonic(), finished(), page.cpu(connection) if page else 0.0
            time.sleep(WINDOW)
            took = time.monotonic() - begun
            rate = (finished() - before) / took
            # Of CPUs: where worker and server take all there are, about this is what they lose.
            cores = (page.cpu(connection) - spent) / took if page else 0.0
    finally:
        if tabs is not None:
            out, _ = tabs.communicate(timeout=120)
    return rate, {**json.loads(out), "page_cores": cores} if tabs is not None else None


@contextmanager
def _worker(url: str, home: Path) -> Iterator[Callable[[], float]]:
    """A worker with its defaults; yields what tells how many outcomes it has written."""
    address = home / "health"
    address.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "jobq", "worker", "bench.page.app:q", "--log-level", "error", "--health-address",
        f"unix:{address}", "--keep-succeeded-days", "60",
    ]  # fmt: skip
    with _process(command, url) as process:
        wait(address.exists, "the worker", process)
        yield lambda: _finished(address)


def _finished(address: Path) -> float:
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(address))
    try:
        connection.request("GET", "/readyz")
        connection.getresponse().read()
        connection.close()
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(address))
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    found = re.search(r"^jobq_outcomes_recorded_total (\S+)", text, re.MULTILINE)
    if found is None:
        raise Stalled(f"the worker tells no number of outcomes: {text[:200]}")
    return float(found[1])


@dataclass(frozen=True, slots=True)
class Page:
    """`jobq web` at an address."""

    url: str
    pid: int

    def cpu(self, connection: psycopg.Connection[Any]) -> float:
        """Return the CPU seconds of its process and of its sessions in the server."""
        sessions = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'jobq web'").fetchall()
        return cpu_of(self.pid) + sum(cpu_of(pid) for (pid,) in sessions)


@contextmanager
def _web(url: str) -> Iterator[Page]:
    """`jobq web` in its own process."""
    with _process([sys.executable, "-m", "jobq", "web", "--port", "0"], url, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        until, said = time.monotonic() + _START, ""
        while (found := re.search(r"http://\S+", said)) is None:
            if not select.select([process.stderr], [], [], max(0.0, until - time.monotonic()))[0]:
                raise Stalled(f"jobq web said no address within {_START:g} s: {said}")
            said += (part := os.read(process.stderr.fileno(), 4096)).decode(errors="replace")
            if not part:
                raise Stalled(f"jobq web ended: {said}")
        yield Page(found[0], process.pid)


@contextmanager
def _process(command: list[str], url: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env={**os.environ, "JOBQ_DATABASE_URL": url}, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait(condition: Callable[[], bool], what: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait for `condition`. Raises Stalled when it does not come, or `process` ends."""
    until = time.monotonic() + _START
    while not condition():
        if time.monotonic() > until or (process is not None and process.poll() is not None):
            raise Stalled(f"{what}: not in time")
        time.sleep(0.05)
