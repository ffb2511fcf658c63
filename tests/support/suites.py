"""Which tests `make test` runs: what a test is follows from its folder, its fixtures and its marks.

`make test` runs the quick suite: every test that has none of the kinds in `LEFT_OUT`, and those whole-process tests that
are marked `essential`. `make test-all` runs everything. A test that starts a whole worker without the fixture that says so
is found when it does: see `expect`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

# What a test is, by a fixture that it uses, directly or through others …
KIND_OF_FIXTURE = {
    "worker": "process",
    "chrome": "browser",
    "arena": "chaos",
    "wheel": "packaging",
    "own_server": "own_server",
    "pair": "own_server",
    "logical": "own_server",
    # Hundreds of thousands of jobs, and more.
    "full_database": "slow",
}
# … and by the folder that it is in.
KIND_OF_FOLDER = {"browser": "browser"}
# A program that every test with this fixture needs.
PROGRAM_OF_FIXTURE = {"chrome": "chromium"}
LEFT_OUT = frozenset({"process", "browser", "chaos", "packaging", "own_server", "slow"})
# A test that takes longer than this many seconds and is part of the quick suite is named in the summary.
LONG = 5.0
# The name of the report's property that says so.
QUICK = "quick"

_current: pytest.Item | None = None


def mark(item: pytest.Item) -> None:
    """Give the test the marks that follow from its folder and its fixtures."""
    fixtures = getattr(item, "fixturenames", ())
    kinds = {KIND_OF_FIXTURE[name] for name in fixtures if name in KIND_OF_FIXTURE}
    folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
    for kind in kinds | {KIND_OF_FOLDER[each] for each in (folder,) if each in KIND_OF_FOLDER}:
        item.add_marker(kind)
    for fixture, program in PROGRAM_OF_FIXTURE.items():
        if fixture in fixtures:
            item.add_marker(pytest.mark.needs(program))


def group(item: pytest.Item) -> None:
    """Let one process of xdist run all tests that share a fixture, so that it is made once (--dist loadgroup)."""
    if _shares_a_fixture(item):
        name = item.path.parent.name if "browser" in kinds_of(item) else item.path.stem
        item.add_marker(pytest.mark.xdist_group(name))


def kinds_of(item: pytest.Item) -> set[str]:
    """Return the names of the test's marks."""
    return {mark.name for mark in item.iter_markers()}


def _shares_a_fixture(item: pytest.Item) -> bool:
    """Tell whether the test uses a fixture that is made once for its module or its folder."""
    info = getattr(item, "_fixtureinfo", None)
    definitions = info.name2fixturedefs.values() if info is not None else ()
    return any(found[-1].scope in ("module", "package") for found in definitions if found)


def is_quick(item: pytest.Item) -> bool:
    """Tell whether the test belongs to the quick suite."""
    marks = kinds_of(item)
    return "essential" in marks or not marks & LEFT_OUT


def begin(item: pytest.Item | None) -> None:
    """Remember which test runs."""
    global _current
    _current = item


def expect(kind: str) -> None:
    """Fail if the test that runs is not of this kind: it would be taken for a quick one.

    Called by what costs the time, such as the start of a worker.
    """
    if _current is not None and is_quick(_current) and _current.get_closest_marker(kind) is None:
        raise AssertionError(
            f"{_current.nodeid} does what a {kind} test does: mark it with pytest.mark.{kind}, or use the fixture"
        )


def summarize(terminal: pytest.TerminalReporter) -> None:
    """Name the tests of the quick suite that took long: they want the mark `slow`, or to be made faster.

    It is said and not asserted, since a busy machine makes every test slow.
    """
    reports = [report for name in ("passed", "failed") for report in terminal.stats.get(name, [])]
    slow = sorted(
        ((report.duration, report.nodeid) for report in reports
         if report.duration > LONG and (QUICK, True) in report.user_properties),
        reverse=True,
    )  # fmt: skip
    if slow:
        terminal.section(f"quick tests that took more than {LONG:g} s: mark them slow, or make them faster")
        for duration, nodeid in slow[:20]:
            terminal.line(f"{duration:6.1f} s  {nodeid}")
        if len(slow) > 20:
            terminal.line(f"and {len(slow) - 20} more")
