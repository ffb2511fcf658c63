"""Which tests the quick suite has."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from tests.support import suites
from tests.support.workers import WorkerProcess


class Item:
    """As much of a collected test as is looked at."""

    nodeid = "tests/test_it.py::test_it"

    def __init__(self, folder: str = "unit", fixtures: tuple[str, ...] = (), marks: tuple[str, ...] = ()) -> None:
        self.path = suites.TESTS / folder / "test_it.py"
        self.fixturenames = fixtures
        self.marks = [getattr(pytest.mark, name).mark for name in marks]

    def add_marker(self, marker: str | pytest.MarkDecorator) -> None:
        self.marks.append(getattr(pytest.mark, marker).mark if isinstance(marker, str) else marker.mark)

    def iter_markers(self, name: str | None = None) -> list[pytest.Mark]:
        return [mark for mark in self.marks if name in (None, mark.name)]

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return next(iter(self.iter_markers(name)), None)


def marked(*args: Any, **options: Any) -> pytest.Item:
    item = cast(pytest.Item, Item(*args, **options))
    suites.mark(item)
    return item


@pytest.mark.parametrize(
    ("item", "quick"),
    [
        (marked(), True),
        (marked("integration", ("database_url", "conn")), True),
        (marked("integration", ("database_url", "worker")), False),
        (marked("integration", ("database_url", "worker"), marks=("essential",)), True),
        (marked("integration", ("own_server",)), False),
        (marked("browser"), False),
        (marked("chaos", ("arena",)), False),
        (marked("chaos"), True),
        (marked("unit", ("wheel",)), False),
        (marked(marks=("slow",)), False),
        (marked(marks=("parametrize",)), True),
    ],
)
def test_what_a_test_is_follows_from_what_it_uses(item: pytest.Item, quick: bool) -> None:
    assert suites.is_quick(item) is quick


def test_a_browser_test_needs_a_browser() -> None:
    (needs,) = marked("browser", ("chrome",)).iter_markers("needs")
    assert needs.args == ("chromium",)


def test_a_fixture_named_clock_needs_no_compiler() -> None:
    assert not marked("worker", ("clock",)).iter_markers("needs")


def test_a_quick_test_starts_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "_current", marked())
    with pytest.raises(AssertionError, match=r"mark it with pytest\.mark\.process"):
        WorkerProcess("postgresql://nowhere", tmp_path / "log")
    monkeypatch.setattr(suites, "_current", marked(marks=("process",)))
    suites.expect("process")
    monkeypatch.setattr(suites, "_current", marked("chaos", ("arena",)))
    suites.expect("process")
