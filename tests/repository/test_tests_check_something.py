"""No test passes because a loop had nothing to check."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import hollow
from tests.support.checks import some

TESTS = Path(__file__).resolve().parents[1]


def test_no_test_checks_nothing() -> None:
    files = sorted(TESTS.rglob("test_*.py"))
    assert len(files) > 100
    found = [f"{file.relative_to(TESTS)}, {one}" for file in files for one in hollow.find(file.read_text("utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "body",
    [
        "for one in rows(): assert one",
        "for one in re.findall('a', text): assert one",
        "for one in [one for one in (1, 2) if one > wanted]: assert one",
        "for a, b in zip((1, 2), rows()): assert a == b",
        "for one in range(count()): assert one",
        "for one in rows():\n        with pytest.raises(ValueError): int(one)",
        "for one in ():\n        if one: assert one",
        "found = rows()\n    for one in found: assert one",
        "assert all(one for one in rows())",
        "assert all(one for one in (1, 2) if one > wanted)",
        "assert not any(one for one in rows())",
        "assert x and not any(rows())",
        "def inner():\n        for one in rows(): assert one",
    ],
)
def test_what_may_be_empty_is_found(body: str) -> None:
    assert len(hollow.find(f"def test_it():\n    {body}\n")) == 1
    assert len(hollow.find(f"async def test_it():\n    {body}\n")) == 1


@pytest.mark.parametrize(
    "body",
    [
        "for one in (1, 2): assert one",
        "for one in rows(): print(one)",
        "for one in CASES: assert one",
        "for one in Color: assert one",
        "for one in some(rows()): assert one",
        "for n, one in enumerate({'a': 1}.items()): assert one",
        "for a, b in zip((1, 2), rows(), strict=True): assert a == b",
        "for one in [one + 1 for one in range(3)]: assert one",
        "found = rows()\n    assert len(found) == 3\n    for one in found: assert one",
        "found = rows()\n    assert found\n    for one in found: assert one",
        "cases = [1, 2]\n    for one in cases: assert one",
        "assert all(one > 1 for one in some(rows()))",
        "assert all(some(one > 1 for one in rows() if one))",
        "assert any(one for one in rows())",
        "assert not any(one for one in some(rows()))",
    ],
)
def test_what_is_never_empty_is_not(body: str) -> None:
    assert hollow.find(f"def test_it():\n    {body}\n") == []


def test_helpers_of_tests_may_be_given_nothing() -> None:
    assert hollow.find("def helper():\n    for one in rows(): assert one\n") == []


def test_some() -> None:
    assert list(some(iter((1, 2)))) == [1, 2]
    for nothing in ((), iter(()), filter(None, (0, 0))):
        with pytest.raises(AssertionError, match="nothing to check"):
            list(some(nothing))
    with pytest.raises(AssertionError, match="nothing to check"):
        assert all(some(list[bool]()))
