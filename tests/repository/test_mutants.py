"""The list of mutants keeps up with the code; and the runner tells what is caught from what is not."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants import ROOT, Mutant, load
from tests.mutants.__main__ import CAUGHT, INVALID, SURVIVED, tried

MUTANTS = load()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.source}-{mutant.name}")
def test_it_applies(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert mutant.damaged(text) != text


@pytest.mark.slow
def test_each_names_a_test_that_exists() -> None:
    if tests := sorted({mutant.test for mutant in MUTANTS}):
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *tests]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout[-2000:]


def test_an_entry_with_other_keys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.toml").write_text('[[mutant]]\nfault = "C1"\nfile = "jobq/retry.py"\n')
    with pytest.raises(ValueError, match=r"some\.toml, mutant 1"):
        load(tmp_path)


SAMPLE = Mutant(
    name="sample",
    source="none",
    fault="sample",
    file="jobq/retry.py",
    old="return min(self.cap, self.base * 2.0",
    new="return min(self.cap, self.base * 3.0",
    test="tests/values/test_tasks.py::test_backoff_is_exponential_capped_and_jittered",
)


@pytest.mark.parametrize(
    ("changes", "what", "why"),
    [
        pytest.param({}, CAUGHT, "assert", id="its test fails"),
        pytest.param({"old": "# The exponent", "new": "# It"}, SURVIVED, "passes", id="its test passes"),
        pytest.param({"new": "return ("}, INVALID, "no Python", id="it is no Python"),
        pytest.param({"old": "import"}, INVALID, "occurs ", id="it is not clear where"),
        pytest.param({"new": f"nowhere(); {SAMPLE.old}"}, INVALID, "broken", id="it breaks more than that"),
        pytest.param({"test": "tests/values/test_tasks.py::test_none"}, INVALID, "get to the test", id="no such test"),
    ],
)
def test_the_verdict(changes: dict[str, str], what: str, why: str) -> None:
    verdict = tried(replace(SAMPLE, **changes))
    assert (verdict.what, why in verdict.why) == (what, True), verdict
