"""The arena as a fixture, and what a failure prints."""

from __future__ import annotations

import re
import shutil
from collections.abc import Generator, Iterator

import pytest

from tests.chaos.scene.harness import Arena
from tests.support.workers import ROOT


@pytest.fixture
def arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    """A server, a ledger and a seed for this test alone. What a failure leaves is kept until the next run of the test."""
    options = request.config.option
    directory = ROOT / ".jobq" / "chaos" / re.sub(r"\W+", "-", f"{request.node.name} seed {options.chaos_seed}")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    made = Arena(directory, request.node.name, seed=options.chaos_seed, long=options.chaos_long)
    yield made
    made.close()
    if not getattr(request.node, "chaos_failed", False):
        shutil.rmtree(directory)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and isinstance(made := getattr(item, "funcargs", {}).get("arena"), Arena):
        item.chaos_failed = True  # type: ignore[attr-defined]
        report.sections.append(("chaos", f"seed {made.seed}{made.where()}"))
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A long scenario takes longer than a test may."""
    if config.option.chaos_long:
        for item in items:
            if "arena" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(600))
