"""`chain`, `group` and `chord`: what a user of Celery expects of them, as ordinary workflows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from psycopg.rows import dict_row

from jobq import Fail, InvalidArguments, JobQ, WorkflowError, WorkflowFailed, WorkflowRun
from jobq.operations import cancel_workflow, retry_workflow
from jobq.testing import JobqTester
from jobq.workflow import Canvas, OnFailure, Workflow, chain, chord, group

q = JobQ()
# Type checkers do not know that the members of a group in a group are its own.
UNTYPED: Any = group


@dataclass
class Order:
    id: int
    total: int


@q.task
def add(left: int, right: int) -> int:
    return left + right


@q.task
def mul(left: int, right: int = 10) -> int:
    return left * right


@q.task
async def double(value: int) -> int:
    return value * 2


@q.task
def order(id: int) -> Order:
    return Order(id, id * 10)


@q.task
def worth(order: Order, *, factor: int = 1) -> int:
    return order.total * factor


@q.task
def maybe(value: int, broken: str) -> int:
    """Fails while the file `broken` exists."""
    if Path(broken).exists():
        raise Fail("it is broken")
    return value


@q.task
def listed(parts: list[int]) -> list[int]:
    return parts


@q.task
def total(parts: Sequence[int], start: int = 0) -> int:
    return sum(parts) + start


@q.task
def plus(parts: Sequence[int], more: int) -> list[int]:
    return [each + more for each in parts]


@q.task
def flat(parts: list[list[int]]) -> list[list[int]]:
    return parts


@q.task
def noop() -> None: ...


@pytest.fixture
def tester(database_url: str) -> Iterator[JobqTester]:
    q.configure(database_url=database_url)
    with JobqTester(q, database_url) as tester:
        yield tester
    q.close()


def result_of(tester: JobqTester, canvas: Canvas[Any]) -> Any:
    """Return the result of a run of `canvas`."""
    with q.workflow("canvas") as wf:
        end = canvas.node()
    run = wf.submit(end)
    tester.drain()
    return run.result(timeout=0)


def submitted(build: Callable[[], object], on_failure: OnFailure = "hold") -> WorkflowRun[None]:
    with q.workflow("canvas", on_failure=on_failure) as wf:
        build()
    return wf.submit()


def built(canvas: Canvas[Any]) -> Workflow:
    with q.workflow("canvas") as wf:
        canvas.nodes()
    return wf


# --- Results


@pytest.mark.parametrize(
    ("canvas", "expected"),
    [
        (chain(add.s(1, 2), mul.s(3)), 9),
        (add.s(1, 2) | mul.s(3), 9),
        (add.s(1, 2) | mul.s(3) | double.s(), 18),
        (chain(add.s(1, 2)), 3),
        (add.s(1, 2), 3),
        (chain([add.s(1, 2), mul.s(3)]), 9),
        (chain(each for each in (add.s(1, 2), mul.s(3))), 9),
        (chain(chain(add.s(1, 2), mul.s(3)), chain(mul.s(2), double.s())), 36),
        (chain(add.s(1, 2), mul.s(right=5)), 15),
        (chain(add.s(1, 2), mul.s()), 30),
        (chain(order.s(4), worth.s(factor=2)), 80),
        (chain(add.s(1, 2), mul.si(2, 3)), 6),
        (chain(add.s(1, 2), mul.si(2, 3), double.s()), 12),
    ],
    ids=repr,
)
def test_a_chain_passes_each_result_on_as_the_first_argument(
    tester: JobqTester, canvas: Canvas[int], expected: int
) -> None:
    assert result_of(tester, canvas) == expected


@pytest.mark.parametrize(
    ("canvas", "expected"),
    [
        (chord((double.s(n) for n in range(10)), listed.s()), [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]),
        (chord([double.options(priority=n).s(n) for n in range(10)], listed.s()), [n * 2 for n in range(10)]),
        (chord(group(double.s(1), add.s(2, 3)), listed.s()), [2, 5]),
        (chain(group(double.s(1), add.s(2, 3)), listed.s()), [2, 5]),
        (group([double.s(1), double.s(2)]) | total.s(100), 106),
        (chord([double.s(4)], listed.s()), [8]),
        (chord([], total.s(5)), 5),
        (chain(group(()), listed.s()), []),
        (chord([noop.s(), noop.s()], add.si(1, 2)), 3),
        (chord([double.s(1), double.s(2)], chain(total.s(), mul.s(3))), 18),
        (chain(chord([double.s(1), double.s(2)], total.s()), mul.s(2)), 12),
        (chain(add.s(1, 2), group(double.s(), mul.s(5), add.si(7, 8)), listed.s()), [6, 15, 15]),
        (chain(add.s(1, 2), chord([double.s(), mul.s(5)], total.s(1))), 22),
        (chain(add.s(1, 2), group([]), listed.s()), []),
        (chord([chain(add.s(1, 2), mul.s(3)), double.s(5)], listed.s()), [9, 10]),
        (group(double.s(1), double.s(2)) | group(plus.s(1), plus.s(10)) | flat.s(), [[3, 5], [12, 14]]),
        (UNTYPED(group(double.s(1), double.s(2)), double.s(3), group([])) | listed.s(), [2, 4, 6]),
        (UNTYPED(add.s(1, 2) | group(double.s(), mul.s(4)), double.s(9)) | listed.s(), [6, 12, 18]),
    ],
    ids=repr,
)
def test_what_follows_a_group_gets_the_list_of_its_results_in_order(
    tester: JobqTester, canvas: Canvas[Any], expected: Any
) -> None:
    assert result_of(tester, canvas) == expected


def test_it_mixes_with_nodes_maps_and_parts(tester: JobqTester) -> None:
    with q.workflow("canvas") as wf:
        first = order.node(3)
        with wf.part("eu"):
            priced = chain(worth.s(first.result), double.s()).node().named("priced")
        many = double.map([1, 2, 3])
        end = chord([add.s(priced.result, 1), total.s(many.results)], listed.s()).node()
    run = wf.submit(end)
    tester.drain()
    assert run.result(timeout=0) == [61, 12]
    assert set(tester.node_states(run)) == {"order", "eu/worth", "eu/priced", "double", "add", "total", "listed"}


def test_one_canvas_may_be_used_more_than_once(tester: JobqTester) -> None:
    sums = chain(add.s(1, 2), double.s())
    assert result_of(tester, chord([sums, sums, sums], total.s())) == 18


# --- Shape


def test_nodes_side_by_side_start_at_once_and_a_chain_one_after_the_other(tester: JobqTester) -> None:
    run = submitted(lambda: chord([chain(add.s(1, 2), double.s()), mul.s(3)], total.s()).node())
    assert tester.node_states(run) == {"add": "ready", "double": "waiting", "mul": "ready", "total": "waiting"}
    run = submitted(lambda: group(double.s(n) for n in range(3)).nodes())
    assert set(tester.node_states(run).values()) == {"ready"}


def test_options_are_those_of_the_task(tester: JobqTester) -> None:
    submitted(lambda: chain(add.options(queue="math", priority=9).s(1, 2), double.s()).node())
    row = tester.connection.execute("SELECT queue, priority FROM jobq.workflow_node ORDER BY number LIMIT 1").fetchone()
    assert row == ("math", 9)


def test_a_chain_of_chords_stores_each_call_once() -> None:
    """Celery nested every body in every header, so that six chords of ten calls were a gigabyte."""
    canvas: Canvas[Any] = chord([double.s(1)] * 10, total.s())
    sizes = []
    for _ in range(6):
        canvas = chain(canvas, chord([double.s()] * 10, total.s()))
        wf = built(canvas)
        sizes.append(sum(len(node._inputs) for node in wf.nodes))
        assert len(wf.nodes) == 11 * (1 + len(sizes))
    assert [later - earlier for earlier, later in pairwise(sizes)] == [20] * 5


def test_an_empty_group_adds_nothing_and_what_follows_it_waits_for_what_was_before(
    tester: JobqTester, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    for canvas in (
        chain(maybe.s(1, str(broken)), group([]), listed.s()),
        chain(maybe.s(1, str(broken)), group([]), group([]), add.si(1, 2)),
        chain(maybe.s(1, str(broken)), UNTYPED(double.s(), group([])), listed.s()),
    ):
        run = submitted(canvas.node)
        tester.drain()
        states = tester.node_states(run)
        assert states.pop("maybe") == "failed"
        assert set(states.values()) == {"waiting"}
    with q.workflow("empty") as wf:
        assert group([]).nodes() == []
    with pytest.raises(WorkflowError, match="workflow 'empty' has no nodes"):
        wf.submit()


# --- Transactions, failures, operators


def test_a_canvas_is_enqueued_in_the_callers_transaction(tester: JobqTester, database_url: str) -> None:
    wf = built(chord([double.s(1), double.s(2)], total.s()))
    with psycopg.connect(database_url) as connection:
        wf.enqueue(connection)
        connection.rollback()
        assert connection.execute("SELECT count(*) FROM jobq.workflow").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM jobq.job").fetchone() == (0,)
        run = wf.enqueue(connection)
    tester.drain()
    assert run.state() == "succeeded"


def test_a_body_waits_for_a_header_that_failed_and_gets_the_whole_list_after_a_retry(
    tester: JobqTester, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    with q.workflow("held") as wf:
        end = chord([double.s(1), maybe.s(5, str(broken)), double.s(3)], listed.s()).node()
    run = wf.submit(end)
    assert tester.drain().failed == 1
    assert tester.node_states(run) == {
        "double": "succeeded",
        "maybe": "failed",
        "double-2": "succeeded",
        "listed": "waiting",
    }
    with pytest.raises(WorkflowFailed, match="node 'maybe' is failed: it is broken"):
        run.result(timeout=0)
    broken.unlink()
    retry_workflow(tester.connection, "jobq", run.id, actor="test")
    tester.drain()
    assert run.result(timeout=0) == [2, 5, 6]


@pytest.mark.parametrize("rule", ["cancel", "continue"])
def test_a_body_never_runs_if_a_header_failed_and_the_rule_says_so(
    tester: JobqTester, tmp_path: Path, rule: OnFailure
) -> None:
    (tmp_path / "broken").touch()
    header = [maybe.s(5, str(tmp_path / "broken")), double.s(3)]
    run = submitted(lambda: chord(header, listed.s()).node(), rule)
    tester.drain()
    # With `cancel`, it depends on what came first: the end of the header, or the cancellation.
    assert tester.node_states(run)["listed"] in ("upstream_failed", *(["cancelled"] if rule == "cancel" else []))
    assert tester.connection.execute("SELECT count(*) FROM jobq.job_history WHERE task = 'listed'").fetchone() == (0,)
    assert run.state() == "failed"


def test_an_operator_cancels_all_of_it(tester: JobqTester, database_url: str) -> None:
    run = submitted(lambda: chain(add.s(1, 2), chord([double.s(), mul.s(2)], total.s())).node())
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        cancel_workflow(connection, "jobq", run.id, actor="test")
    tester.drain()
    assert set(tester.node_states(run).values()) == {"cancelled"}
    assert run.state() == "cancelled"


# --- Mistakes


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: cast(Any, chain)(),
            "chain: it has no calls: expected at least one, such as chain(fetch.s(1))",
        ),
        (lambda: chain([]), "chain: it has no calls: expected at least one, such as chain(fetch.s(1))"),
        (
            lambda: cast(Any, chain)(add.s(1, 2), double),
            "chain: argument 2 is <AsyncTask 'double'>: a task is described with its arguments: task.s(…)",
        ),
        (
            lambda: cast(Any, group)([add, double]),
            "group: argument 1 is <Task 'add'>: a task is described with its arguments: task.s(…)",
        ),
        (
            lambda: cast(Any, group)(5),
            "group: argument 1 is 5: expected what task.s(…), chain, group or chord return",
        ),
        (
            lambda: cast(Any, group)("text"),
            "group: argument 1 is 'text': expected what task.s(…), chain, group or chord return",
        ),
        (
            lambda: cast(Any, chord)([double.s(1)], total),
            "chord: argument 2 is <Task 'total'>: a task is described with its arguments: task.s(…)",
        ),
        (
            lambda: cast(Any, add.s(1, 2)) | 5,
            "|: argument 2 is 5: expected what task.s(…), chain, group or chord return",
        ),
        (
            lambda: cast(Any, chain)(add.node(1, 2), double.s()),
            "chain: argument 1 is <Node 'add' of task 'add'>: a node is in the workflow already: pass its result, "
            "task.s(node.result)",
        ),
        (
            lambda: chain(add.s(1, 2), group(double.s(), mul.s(4))).node(),
            "add.s(1, 2) | group(double.s(), mul.s(4)) ends in a group, so it has no last node: add a task that takes the list "
            "of results, or use .nodes()",
        ),
        (
            lambda: cast(Any, chain(add.s(1, 2), double.s()))(),
            "add.s(1, 2) | double.s() is not called: write `with q.workflow(…) as wf:`, add it there with .node(), then "
            "`wf.enqueue(connection)`",
        ),
        (
            lambda: cast(Any, add.si(1, right=2)).delay(),
            "add.si(1, right=2) has no .delay: write `with q.workflow(…) as wf:`, add it there with .node(), then "
            "`wf.enqueue(connection)`",
        ),
        (
            lambda: cast(Any, add.s(1, 2)).set(queue="math"),
            "add.s(1, 2) has no .set: options are the task's: task.options(queue=…, delay=…).s(…)",
        ),
        (
            lambda: cast(Any, group(noop.s() for _ in range(9))).link_error(noop.s()),
            "group(noop.s(), noop.s(), noop.s(), …) has no .link_error: let a node take the outcome of another one: "
            "task.node(other.outcome)",
        ),
    ],
)
def test_mistakes_say_what_to_write(build: Callable[[], object], message: str) -> None:
    with q.workflow("canvas"), pytest.raises(WorkflowError) as caught:
        build()
    assert str(caught.value) == message


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    canvas: Any = add.s(1, 2)
    with pytest.raises(AttributeError, match="'Canvas' object has no attribute 'freeze'"):
        canvas.freeze()
    assert not hasattr(canvas, "__len__")


@pytest.mark.parametrize(
    ("canvas", "message"),
    [
        (chain(cast(Any, add.s(1)), double.s()), r"add: missing a required argument: 'right'"),
        (chain(add.s(1, 2), cast(Any, add.s(3, 4))), r"add: too many positional arguments"),
        (chain(order.s(1), cast(Any, double.s())), r"double: value=order\.result is Order; the parameter is int"),
        (
            chain(add.s(1, 2), cast(Any, total.s())),
            r"total: parts=add\.result is int; the parameter is Sequence\[int\]",
        ),
        (
            group(order.s(1)) | cast(Any, total.s()),
            r"total: parts\[0\]=order\.result is Order; what is expected there is int",
        ),
        (chain(add.s(1, 2), cast(Any, mul.s(left=3))), r"mul: multiple values for argument 'left'"),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_refused_when_it_is_added(canvas: Canvas[Any], message: str) -> None:
    with q.workflow("canvas"), pytest.raises(InvalidArguments, match=message):
        canvas.node()


def test_it_is_added_within_a_workflow_of_its_application() -> None:
    with pytest.raises(WorkflowError, match=r"add\.node: no workflow is being built here"):
        add.s(1, 2).node()
    with JobQ().workflow("other"), pytest.raises(WorkflowError, match="belongs to another application"):
        add.s(1, 2).node()
