"""The results of a map as an argument: for every annotation that a type checker accepts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import pytest

from jobq import Fail, JobQ, NodeOutcome
from jobq.testing import JobqTester

q = JobQ()


@q.task
def odd(value: int) -> int:
    if value % 2 == 0:
        raise Fail(f"{value} is even")
    return value


@q.task
def as_sequence(parts: Sequence[int]) -> list[Any]:
    return [type(parts).__name__, *parts, parts[-1], len(parts), parts[1:2]]


@q.task
def as_iterable(parts: Iterable[int]) -> list[Any]:
    return [type(parts).__name__, *parts]


@q.task
def as_collection(parts: Collection[int]) -> list[Any]:
    return [type(parts).__name__, *parts]


@q.task
def as_list(parts: list[int]) -> list[Any]:
    return [type(parts).__name__, *parts]


@q.task
def as_tuple(parts: tuple[int, ...]) -> list[Any]:
    return [type(parts).__name__, *parts]


@q.task
def as_perhaps(parts: Sequence[int] | None = None) -> list[Any]:
    return [type(parts).__name__, *(parts or ())]


@q.task
def as_anything(parts: Any) -> list[Any]:
    return [type(parts).__name__, *parts]


@q.task
def outcomes(parts: Sequence[NodeOutcome[int]]) -> list[Any]:
    return [type(parts).__name__, *([each.state, each.result, each.error] for each in parts)]


@q.task
def listed_outcomes(parts: list[NodeOutcome[int]]) -> list[Any]:
    return [type(parts).__name__, *([each.state, each.result, each.error] for each in parts)]


@q.task
def perhaps_outcomes(parts: list[NodeOutcome[int]] | None) -> list[Any]:
    return [type(parts).__name__, *([each.state, each.result, each.error] for each in parts or ())]


@pytest.fixture
def tester(database_url: str) -> Iterator[JobqTester]:
    q.configure(database_url=database_url)
    with JobqTester(q, database_url) as tester:
        yield tester
    q.close()


ENDS = [["succeeded", 1, None], ["failed", None, "2 is even"], ["succeeded", 3, None]]


@pytest.mark.parametrize(
    ("task", "result"),
    [
        (as_sequence, ["MapResults", 1, 3, 3, 2, [3]]),
        (as_iterable, ["MapResults", 1, 3]),
        (as_collection, ["MapResults", 1, 3]),
        (as_list, ["list", 1, 3]),
        (as_tuple, ["tuple", 1, 3]),
        (as_perhaps, ["list", 1, 3]),
        (as_anything, ["list", 1, 3]),
    ],
)
def test_results(tester: JobqTester, task: Any, result: list[Any]) -> None:
    with q.workflow("results") as wf:
        end = task.node(odd.map([1, 2, 3]).min_success(0.5).results)
    run = wf.submit(end)
    tester.drain()
    assert run.result() == result


@pytest.mark.parametrize(
    ("task", "kind"), [(outcomes, "MapResults"), (listed_outcomes, "list"), (perhaps_outcomes, "list")]
)
def test_outcomes(tester: JobqTester, task: Any, kind: str) -> None:
    with q.workflow("outcomes", on_failure="continue") as wf:
        end = task.node(odd.map([1, 2, 3]).outcomes)
    run = wf.submit(end)
    tester.drain()
    row = tester.connection.execute(
        "SELECT result, error FROM jobq.workflow_result WHERE item = 0 AND node_id = (SELECT max(id) FROM jobq.workflow_node)"
    ).fetchone()
    assert row is not None
    assert row[1] is None
    found = row[0]
    assert found[0] == kind
    assert [[state, value, error and error.removeprefix("Fail: ")] for state, value, error in found[1:]] == ENDS
    # What takes the outcomes has dealt with the failure.
    assert run.state() == "succeeded"
