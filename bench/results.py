"""The file of results: the figures of each run, with its machine and versions. Tables and plots are made from it alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bench.figures import Figures

Results = dict[str, Any]


def begin(machine: dict[str, Any], *, quick: bool) -> Results:
    """Return results without a run."""
    return {"machine": machine, "quick": quick, "versions": {}, "skipped": {}, "runs": []}


def add(results: Results, workload: str, peer: str, config: str, number: int, found: Figures | str) -> None:
    """Add a run of a round: its figures, or the reason why it has none."""
    what = {"error": found} if isinstance(found, str) else {"figures": found}
    results["runs"].append({"workload": workload, "peer": peer, "config": config, "round": number, **what})


def write(results: Results, path: Path) -> None:
    """Write the file, whole or not at all: it is written after each run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".new")
    half.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(half, path)


def read(path: Path) -> Results:
    """Return the results in a file. Raises ValueError for a file that holds none."""
    found = json.loads(path.read_text())
    if not isinstance(found, dict) or not isinstance(found.get("runs"), list):
        raise ValueError(f"{path} holds no results: it has no list of runs")
    return found
