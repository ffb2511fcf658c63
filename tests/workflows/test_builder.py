"""Building workflows: a mistake in arguments, references or maps is an error that names the node, the value and a way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from jobq import InvalidArguments, InvalidOption, JobQ
from jobq.errors import JobqError, WorkflowError
from jobq.workflow import MAX_ITEMS, Workflow
from tests.apps import workflows as apps

q = apps.q


@pytest.fixture
def wf() -> Iterator[Workflow]:
    with q.workflow("order") as workflow:
        yield workflow


def refused(error: type[JobqError], text: str, call: Callable[[], object]) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == text


# --- Arguments


def test_arguments_that_do_not_fit_the_signature(wf: Workflow) -> None:
    node: Any = apps.charge.node
    with pytest.raises(InvalidArguments, match=r"charge: missing a required argument: 'currency'; it takes \(order"):
        node(apps.fetch.node(3).result)
    with pytest.raises(InvalidArguments, match=r"got an unexpected keyword argument 'curency'"):
        node(apps.fetch.node(3).result, currency="CHF", curency="CHF")
    with pytest.raises(InvalidArguments, match="too many positional arguments"):
        node(apps.fetch.node(3).result, "CHF", 1)
    with pytest.raises(InvalidArguments, match=r"currency=5: Input should be a valid string"):
        node(apps.fetch.node(3).result, 5)
    assert [each.label for each in wf.nodes] == ["fetch", "fetch-2", "fetch-3", "fetch-4"]


def test_results_of_another_type(wf: Workflow) -> None:
    order = apps.fetch.node(3)
    refused(
        InvalidArguments,
        "add: left=fetch.result.total is float; the parameter is int",
        lambda: apps.add.node(cast(Any, order.result.total), 1),
    )
    refused(
        InvalidArguments,
        "add: left=fetch.outcome is NodeOutcome; the parameter is int",
        lambda: apps.add.node(cast(Any, order.outcome), 1),
    )
    refused(
        InvalidArguments,
        "text: value=fetch.result.nummer: Order has no field 'nummer' in JSON; it has id, addresses, total, gift",
        lambda: apps.text.node(cast(Any, order.result).nummer),
    )
    refused(
        InvalidArguments,
        "text: value=fetch.result.total.hex: float has no parts in JSON: pass it on whole",
        lambda: apps.text.node(cast(Any, order.result.total).hex),
    )
    refused(
        InvalidArguments,
        "add: left=fetch.result_or(…).id is int | None; the parameter is int",
        lambda: apps.add.node(cast(Any, order.result_or(None)).id, 1),
    )
    refused(
        InvalidArguments,
        "join: parts[1]=fetch.result.id is int; what is expected there is str",
        lambda: apps.join.node(["a", cast(Any, order.result.id)]),
    )
    results = apps.text.map(["a"]).results
    refused(
        InvalidArguments,
        "total: parts=text.results is Sequence[str]; the parameter is Sequence[int]",
        lambda: apps.total.node(cast(Any, results)),
    )


def test_references_only_where_they_can_be_replaced(wf: Workflow) -> None:
    order = apps.fetch.node(3)
    where = "references can be arguments, or stand in lists, tuples and the values of dicts; let a task make the object"
    for value, kind in (
        ({order.result.addresses[0]}, "set"),
        ({order.result.addresses[0]: 1}, "dict"),
        ([apps.Order(order.result.id, [], 1.0)], "list"),
    ):
        with pytest.raises(InvalidArguments) as caught:
            apps.as_list.node(cast(Any, value))
        assert str(caught.value).startswith("as_list: parts: fetch.result.")
        assert f"is within a {kind}, or an object in it: {where}" in str(caught.value)


def test_arguments_that_are_too_large() -> None:
    small = JobQ(max_args_bytes=1000)
    store = small.task(name="store")(lambda_of("store"))
    with small.workflow("large") as workflow:
        with pytest.raises(
            InvalidArguments, match=r"store: arguments: \d+ bytes as JSON, and at most 1000 are allowed"
        ):
            store.node("x" * 1000)
        with pytest.raises(InvalidArguments, match=r"at most 1000 are allowed.* \(item 1 of the map\)"):
            store.map(["x", "x" * 1000])
        assert workflow.nodes == []


def lambda_of(name: str) -> Callable[[str], str]:
    def store(value: str) -> str:
        return value

    store.__name__ = name
    return store


# --- References are no values


@pytest.mark.parametrize(
    "use",
    [
        bool,
        len,
        list,
        int,
        float,
        str.format,
        lambda value: value == 1,
        lambda value: value != 1,
        lambda value: value < 1,
        lambda value: value <= 1,
        lambda value: value + 1,
        lambda value: 1 + value,
        lambda value: "a" + value,
        lambda value: -value,
        lambda value: value(),
        lambda value: f"{value}",
        lambda value: 1 in value,
        lambda value: [*value],
        lambda value: {**value},
        lambda value: value[1:2],
        lambda value: [0][value],
    ],
)
def test_a_reference_has_no_value_yet(wf: Workflow, use: Callable[[Any], object]) -> None:
    reference = apps.number.node(1).result
    if use is str.format:
        use = "{}".format
    with pytest.raises(TypeError):
        use(reference)
    assert len(wf.nodes) == 1


def test_what_the_error_says(wf: Workflow) -> None:
    reference = apps.fetch.node(1).result.addresses[0]
    with pytest.raises(TypeError) as caught:
        bool(reference)
    assert str(caught.value) == (
        "fetch.result.addresses[0] has no value yet: it is known when 'fetch' has ended. "
        "Pass it to a task, use .when(…) for a condition, or task.map(…) for a loop"
    )


async def test_a_reference_cannot_be_awaited(wf: Workflow) -> None:
    with pytest.raises(TypeError, match="has no value yet"):
        await cast(Any, apps.number.node(1).result)


def test_a_reference_may_be_shown_and_kept(wf: Workflow) -> None:
    reference = apps.fetch.node(1).result.total
    assert repr(reference) == "fetch.result.total"
    assert len({reference, reference}) == 1


def test_outcomes_and_maps_have_no_parts(wf: Workflow) -> None:
    with pytest.raises(TypeError, match=r"fetch\.outcome\.state: only a result has parts"):
        apps.text.node(apps.fetch.node(1).outcome.state)
    with pytest.raises(TypeError, match="only a result has parts"):
        apps.text.node(apps.text.map(["a"]).results[0])


# --- Defaults


def test_a_default_is_json_and_has_the_same_parts(wf: Workflow) -> None:
    order = apps.fetch.node(1)
    with pytest.raises(WorkflowError, match=r"node 'fetch': result_or\(<object.*>\): the default is no JSON"):
        order.result_or(object())
    with pytest.raises(WorkflowError, match=r"result_or\(nan\): the default is no JSON"):
        order.result_or(float("nan"))
    with pytest.raises(WorkflowError, match=r"result_or\(fetch-2\.result\): the default is a value that is known now"):
        order.result_or(apps.fetch.node(2).result)
    default = apps.Order(7, ["ann"], 1.5)
    apps.text.node(order.result_or(default).addresses[0])
    with pytest.raises(TypeError, match=r"fetch\.result_or\(…\): the default has no part 'addresses'"):
        apps.text.node(cast(Any, order.result_or(5)).addresses)


# --- Maps


def test_items_that_do_not_fit(wf: Workflow) -> None:
    bad: Any = apps.number.map
    with pytest.raises(InvalidArguments, match=r"value='x': Input should be a valid integer.*\(item 2 of the map\)"):
        bad([1, 2, "x"])
    with pytest.raises(WorkflowError, match=r"number\.map\(17\): expected an iterable of items, or a reference"):
        bad(17)
    with pytest.raises(WorkflowError, match=r"number\.map\('12'\): expected an iterable"):
        bad("12")
    with pytest.raises(WorkflowError, match="for its results, use a task that takes them"):
        bad(apps.number.map([1]))
    with pytest.raises(WorkflowError, match=r"noop\.map: the task has no parameter for the items"):
        cast(Any, apps.noop).map([1])
    refused(
        InvalidArguments,
        "number.map: item 1 has a reference: map over a reference to a list, or make nodes",
        lambda: bad([1, apps.number.node(1).result]),
    )


def test_a_map_over_a_result_of_another_kind(wf: Workflow) -> None:
    order = apps.fetch.node(1)
    number: Any = apps.number.map
    refused(
        InvalidArguments,
        "number.map(fetch.result.addresses): its elements are str; value is int",
        lambda: number(order.result.addresses),
    )
    refused(
        InvalidArguments,
        "number.map(fetch.result): Order is no list",
        lambda: number(order.result),
    )
    refused(
        InvalidArguments,
        "number.map(fetch.result.id): int is no list",
        lambda: number(order.result.id),
    )
    with pytest.raises(WorkflowError, match=r"number\.map\(number\.results\): map over other\.result or a part of it"):
        number(number([1]).results)


def test_a_map_of_a_million_items_and_one_more(wf: Workflow) -> None:
    with pytest.raises(WorkflowError, match=r"number\.map: more than 1,000,000 items: .* use several maps"):
        apps.number.map(range(MAX_ITEMS + 1))
    # It may be endless.
    with pytest.raises(WorkflowError, match="more than 1,000,000 items"):
        apps.number.map(iter(int, 1))
    assert wf.nodes == []


def test_min_success(wf: Workflow) -> None:
    numbers = apps.number.map([1])
    for wrong in (0, -1, 1.01, True, "1", float("nan")):
        with pytest.raises(
            InvalidOption, match=r"node 'number': min_success=.*expected a number above 0 and at most 1"
        ):
            numbers.min_success(cast(Any, wrong))
