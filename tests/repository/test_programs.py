"""What tests need and Python does not bring: how a missing program is told, and that a skip cannot hide it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Literal

import pytest

from tests.support import programs

ROOT = Path(__file__).resolve().parents[2]
SETUP = ROOT / "requirements" / "programs"


def report(outcome: Literal["passed", "skipped"], reason: str = "") -> pytest.TestReport:
    longrepr = ("test_it.py", 1, f"Skipped: {reason}") if reason else None
    return pytest.TestReport("test_it.py::test_it", ("test_it.py", 1, "test_it"), {}, outcome, longrepr, "setup")


def test_the_set_up_installs_every_program() -> None:
    found = {
        program: packages
        for packages, names in re.findall(r'^need "([^"]+)" (.+)$', SETUP.read_text(), flags=re.MULTILINE)
        for program in names.split()
    }
    assert found.keys() >= programs.PACKAGES.keys()
    for program, packages in programs.PACKAGES.items():
        assert set(packages.split()) <= set(found[program].split())
    assert subprocess.run(["bash", "-n", SETUP], check=False).returncode == 0


def test_what_a_change_must_pass_has_every_program(tmp_path: Path) -> None:
    """The programs come first, and a quick test that is skipped without one fails; a failure on the way ends nothing."""
    done = tmp_path / "done"
    for place in (".ci", "requirements"):
        (tmp_path / place).mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    for program in (tmp_path / "requirements" / "programs", tmp_path / "make"):
        program.write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >> {done}\n[ "${{0##*/}} $*" != "make check" ]\n')
        program.chmod(0o755)
    ended = subprocess.run(
        ["bash", tmp_path / ".ci" / "run"], check=False, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    )
    assert ended.returncode == 1
    assert done.read_text().splitlines() == [
        "make check",
        "programs ",
        "make test ARGS=--require-programs",
        "make test-all ARGS=--suite=rest",
    ]


def test_a_program_is_found_where_a_user_has_no_path_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "google-chrome"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.delenv("JOBQ_CHROMIUM", raising=False)
    monkeypatch.setattr(programs, "_PLACES", str(tmp_path))
    assert programs.find("chromium") == str(program)
    assert programs.find("pgbouncer") is None
    assert "apt-get install pgbouncer" in programs.missing("pgbouncer")


def test_a_test_that_needs_a_missing_program_is_skipped(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "find", lambda name: None if name == "pgbouncer" else "/bin/true")
    request.node.add_marker(pytest.mark.needs("cc", "nsenter"))
    programs.check(request.node)
    request.node.add_marker(pytest.mark.needs("cc", "pgbouncer"))
    with pytest.raises(pytest.skip.Exception, match="pgbouncer is not installed"):
        programs.check(request.node)


@pytest.mark.parametrize("reason", [programs.missing("pgbouncer"), "not today", "see: only root drops privileges"])
def test_such_a_skip_can_be_refused(reason: str) -> None:
    refused = report("skipped", reason)
    programs.refuse(refused)
    assert refused.failed
    assert reason in str(refused.longrepr)


def test_a_skip_for_a_true_reason_stays() -> None:
    for allowed in (report("skipped", "only root drops privileges"), report("skipped", "this server has none")):
        programs.refuse(allowed)
        assert allowed.skipped
    passed = report("passed")
    programs.refuse(passed)
    assert passed.passed
