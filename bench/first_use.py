"""The first use of jobq, timed: `python -m bench.first_use`. Each application of examples/orders, in an empty folder.

A virtual environment, the installation (of this checkout; what it needs comes from the package index), `jobq dev`, the
application, an order, and its job. Prints the seconds of each step; ends with 1 where an application does not get there.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.brokers import free_port

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("environment", "installation", "jobq dev", "application", "job done")


@dataclass(frozen=True, slots=True)
class Application:
    """One file of examples/orders, what it needs beside jobq, and how it is started: none for a script."""

    name: str
    needs: tuple[str, ...]
    serve: tuple[str, ...] = ()
    job: str = ""


APPLICATIONS = (
    Application("script_orders", ()),
    Application("flask_orders", (), ("flask", "--app", "flask_orders", "run", "--port"), "/orders/jobs/{}"),
    Application(
        "fastapi_orders",
        ("fastapi", "uvicorn", "sqlalchemy[asyncio]"),
        ("uvicorn", "fastapi_orders:app", "--port"),
        "/jobs/{}",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.first_use", description=__doc__)
    parser.add_argument("--only", help="applications whose name has this in it")
    given = parser.parse_args()
    console = Console(width=120)
    table = Table("application", *STEPS, "in all", title="seconds")
    held = True
    for application in APPLICATIONS:
        if given.only and given.only not in application.name:
            continue
        with tempfile.TemporaryDirectory(prefix="jobq-first-") as folder:
            Path(folder).chmod(0o755)
            try:
                seconds = use(application, Path(folder))
            except Exception as error:
                held = False
                console.print(f"{application.name}: {error}", style="red", highlight=False, markup=False)
                continue
        table.add_row(application.name, *(f"{one:.1f}" for one in seconds), f"{sum(seconds):.1f}")
    console.print(table)
    if not held:
        raise SystemExit(1)


def use(application: Application, folder: Path) -> list[float]:
    """Do as its README says, in `folder`; return the seconds of each step."""
    laps = [time.monotonic()]

    def lap() -> None:
        laps.append(time.monotonic())

    shutil.copy(ROOT / "examples" / "orders" / f"{application.name}.py", folder)
    _run(folder, sys.executable, "-m", "venv", ".venv")
    lap()
    programs = folder / ".venv" / "bin"
    _run(folder, programs / "pip", "install", "--quiet", f"{ROOT}[embedded,web]", *application.needs)
    lap()
    log = folder / "dev.log"
    with _program(folder, log, programs / "jobq", "dev", f"{application.name}:q", "--port", str(free_port())):
        url = _until(lambda: re.search(r"postgresql://\S+", log.read_text()), "the database's URL", log)[0]
        _until(lambda: "working" in log.read_text(), "the worker", log)
        lap()
        environment = {"JOBQ_DATABASE_URL": url.rstrip("'\".,")}
        if not application.serve:
            lap()
            told = _run(folder, programs / "python", f"{application.name}.py", "a book", **environment)
            if told != "receipt for order 1\n":
                raise RuntimeError(f"the script said {told!r}")
            lap()
            return [after - before for before, after in itertools.pairwise(laps)]
        port = str(free_port())
        server, *options = application.serve
        served = folder / "serve.log"
        with _program(folder, served, programs / server, *options, port, **environment):
            made = _until(lambda: _ask(port, "/orders", {"item": "a book"}), "the application", served)
            lap()
            address = application.job.format(made["job"])
            _until(lambda: (_ask(port, address) or {}).get("state") == "succeeded", "the end of the job", log)
            lap()
    return [after - before for before, after in itertools.pairwise(laps)]


def _run(folder: Path, *command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [*map(str, command)], check=False, cwd=folder, capture_output=True, text=True, env=_environment(environment)
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def _program(folder: Path, log: Path, *command: str | Path, **environment: str) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*map(str, command)], cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=_environment(environment)
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(more: dict[str, str]) -> dict[str, str]:
    """As a new user's: none of this checkout's variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JOBQ_", "PG", "PYTHON"))}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


def _ask(port: str, path: str, body: dict[str, str] | None = None) -> dict[str, Any] | None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            found: dict[str, Any] = json.load(response)
            return found
    except (urllib.error.URLError, ConnectionError):
        return None


def _until(look: Callable[[], Any], what: str, log: Path, seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise RuntimeError(f"no {what} after {seconds:.0f} s: {log.read_text()[-2000:]}")
        time.sleep(0.05)
    return found


if __name__ == "__main__":
    main()
