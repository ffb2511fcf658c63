"""mypy and pyright accept every line of accepted*.py, and reject of rejected*.py exactly the lines that say so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ACCEPTED = sorted(HERE.glob("accepted*.py"))
REJECTED = sorted(HERE.glob("rejected*.py"))
LEAST = {
    "rejected.py": 80,
    "rejected_workflows.py": 75,
    "rejected_canvas.py": 35,
    "rejected_iterations.py": 8,
    "rejected_steps.py": 60,
}


def mypy(tmp_path: Path) -> dict[Path, set[int]]:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file",
        os.devnull,
        "--cache-dir",
        tmp_path / "mypy",
    ]
    done = subprocess.run(
        [*command, "--no-error-summary", "--show-absolute-path", *ACCEPTED, *REJECTED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[Path, set[int]] = {}
    for path, line in re.findall(r"^(.+?):(\d+): error:", done.stdout, flags=re.MULTILINE):
        found.setdefault(Path(path), set()).add(int(line))
    return found


def pyright(tmp_path: Path) -> dict[Path, set[int]]:
    # A project of its own: that of pyproject.toml excludes the rejected ones, even where the command line names it.
    project = tmp_path / "pyrightconfig.json"
    settings = {
        "include": [os.path.relpath(path, tmp_path) for path in ACCEPTED + REJECTED],
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
    }
    project.write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--project", project, "--pythonpath", sys.executable, "--outputjson"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[Path, set[int]] = {}
    for entry in json.loads(done.stdout)["generalDiagnostics"]:
        if entry["severity"] == "error":
            found.setdefault(Path(entry["file"]), set()).add(entry["range"]["start"]["line"] + 1)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_checkers_reject_exactly_the_wrong_calls(
    checker: Callable[[Path], dict[Path, set[int]]], tmp_path: Path
) -> None:
    found = checker(tmp_path)
    for path in ACCEPTED:
        assert found.get(path, set()) == set()
    for path in REJECTED:
        lines = enumerate(path.read_text().splitlines(), 1)
        marked = {number for number, line in lines if re.search(r"\s# error$", line)}
        assert len(marked) >= LEAST[path.name]
        rejected = found.get(path, set())
        wrong = {"not rejected": marked - rejected, "rejected": rejected - marked}
        assert (path.name, wrong) == (path.name, {"not rejected": set(), "rejected": set()})
