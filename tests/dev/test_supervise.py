"""The programs of `jobq dev`: how they end with their parent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobq.dev.supervise import Program
from tests.support.waiting import wait_until

OWN = os.getpid()


@pytest.mark.parametrize(
    ("own", "parent", "runs"),
    [
        pytest.param(OWN, OWN, True, id="an ordinary process"),
        pytest.param(1, 1, True, id="the first process of a container"),
        pytest.param(OWN, 1, False, id="a parent that has died"),
    ],
)
def test_a_program_runs_if_its_parent_lives(
    own: int, parent: int, runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`own` and `parent` are pretended: the parent's id as it sees it, and as its child sees it."""
    monkeypatch.setattr(os, "getpid", lambda: own)
    monkeypatch.setattr(os, "getppid", lambda: parent)
    said: list[str] = []
    command = ["touch", str(tmp_path / "ran")]
    program = Program("worker", command, environment=os.environ, patience=5, say=said.append)
    program.start()
    wait_until(lambda: not program.tick(), what="the end of the program")
    assert (tmp_path / "ran").exists() is runs
    assert said == [f"the worker exited with {0 if runs else 1}; restarting it in 0.5 s"]
