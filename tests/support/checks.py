"""Assertions that cannot pass without having looked at anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def some(values: Iterable[T]) -> Iterator[T]:
    """Yield `values` as they come; fail at their end if there were none.

    A loop or an `all` over nothing checks nothing. Whatever a test computes and then looks at one by one goes through
    here; `tests/repository/test_tests_check_something.py` holds the tests to that.
    """
    found = False
    for value in values:
        found = True
        yield value
    assert found, "there is nothing to check"
