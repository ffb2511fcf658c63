"""The arena as a fixture, and what a failure prints."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.chaos.harness import Arena


@pytest.fixture
def arena(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Arena]:
    """A server, a ledger and a seed for this test alone."""
    options = request.config.option
    made = Arena(tmp_path, request.node.name, seed=options.chaos_seed, long=options.chaos_long)
    yield made
    made.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and isinstance(made := getattr(item, "funcargs", {}).get("arena"), Arena):
        report.sections.append(("chaos", f"seed {made.seed}{made.where()}"))
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A long scenario takes longer than a test may."""
    if config.option.chaos_long:
        for item in items:
            if "arena" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(600))
