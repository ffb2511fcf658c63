"""Building workflows: options, names, graphs, the `with` block, and what cannot be done after the enqueue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import psycopg
import pytest

from jobq import InvalidOption, JobQ, Node
from jobq.errors import JobqError, WorkflowError
from jobq.workflow import Workflow
from tests.apps import workflows as apps
from tests.support.jobs import Jobs

q = apps.q


@pytest.fixture
def wf() -> Iterator[Workflow]:
    with q.workflow("order") as workflow:
        yield workflow


def refused(error: type[JobqError], text: str, call: Callable[[], object]) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == text


def lambda_of(name: str) -> Callable[[str], str]:
    def store(value: str) -> str:
        return value

    store.__name__ = name
    return store


# --- Options


def test_options_that_a_node_cannot_have(wf: Workflow) -> None:
    with pytest.raises(WorkflowError, match=r"noop\.node: a node has no key of its own: give the workflow a key"):
        apps.noop.options(key="k").node()
    with pytest.raises(WorkflowError, match=r"number\.map: a node has no key of its own"):
        apps.number.options(key="k").map([1])
    from datetime import UTC, datetime

    with pytest.raises(WorkflowError, match=r"run_at is a time, and a node starts when .* use delay=…"):
        apps.noop.options(run_at=datetime(2030, 1, 1, tzinfo=UTC)).node()
    assert wf.nodes == []


def test_options_of_a_workflow() -> None:
    with pytest.raises(InvalidOption, match="on_failure='ignore': expected one of hold, cancel, continue"):
        q.workflow("order", on_failure=cast(Any, "ignore"))
    with pytest.raises(InvalidOption, match="name of 201 characters: expected text of 1 to 200 characters"):
        q.workflow("x" * 201)
    with pytest.raises(InvalidOption, match="name='': expected text"):
        q.workflow("")
    with pytest.raises(InvalidOption, match="key=17: expected text"):
        q.workflow("order", key=cast(Any, 17))
    with pytest.raises(InvalidOption, match="deadline="):
        q.workflow("order", deadline=-1)


# --- Names


def test_names(wf: Workflow) -> None:
    first, second = apps.noop.node(), apps.noop.node()
    assert [first.label, second.label] == ["noop", "noop-2"]
    assert first.named("first").label == first.named("first").label == "first"
    refused(
        WorkflowError,
        "node 'noop-2': named('first'): workflow 'order' has a node 'first' already, of task 'noop': "
        "give each its own name, or use parts",
        lambda: second.named("first"),
    )
    with pytest.raises(InvalidOption, match="name='a/b': a slash separates the parts of a workflow"):
        second.named("a/b")
    with pytest.raises(InvalidOption, match="name of 201 characters"):
        second.named("x" * 201)
    with pytest.raises(InvalidOption, match="name=''"):
        second.named("")
    assert second.label == "noop-2"
    second.named("noop")
    assert apps.noop.node().label == "noop-3"


def test_parts(wf: Workflow) -> None:
    with wf.part("left"):
        inner = apps.noop.node()
        with wf.part("deep"):
            assert apps.noop.node().label == "left/deep/noop"
    with wf.part("right"):
        assert apps.noop.node().named("end").label == "right/end"
    # The name is given later, and the part is that in which the node was made.
    assert inner.named("end").label == "left/end"
    with pytest.raises(InvalidOption, match="name='a/b': a slash"):
        wf.part("a/b")
    with pytest.raises(ValueError, match="stop"), wf.part("left"):
        raise ValueError("stop")
    assert apps.noop.node().label == "noop"
    other = q.workflow("other")
    with (
        pytest.raises(WorkflowError, match=r"part 'x': use it within the `with` block of workflow 'other'"),
        other.part("x"),
    ):
        pass


def test_a_name_that_is_too_long_with_its_parts(wf: Workflow) -> None:
    from contextlib import ExitStack

    with ExitStack() as parts:
        for _ in range(5):
            parts.enter_context(wf.part("x" * 99))
        with pytest.raises(
            WorkflowError, match=r"has 504 characters with its parts; at most 500 are allowed: nest fewer"
        ):
            apps.noop.node()
    assert wf.nodes == []


def test_many_nodes_of_a_task_are_numbered_in_linear_time(wf: Workflow) -> None:
    for _ in range(20_000):
        apps.noop.node()
    assert wf.nodes[-1].label == "noop-20000"


# --- The graph


def test_a_cycle(jobs: Jobs) -> None:
    with q.workflow("circle") as workflow:
        first = apps.noop.node().named("first")
        second = apps.noop.node().named("second").after(first)
        first.after(apps.noop.node().named("third").after(second))
    with pytest.raises(
        WorkflowError, match=r"workflow 'circle' has a cycle: .* → .*: remove one of these dependencies"
    ) as found:
        workflow.enqueue(jobs.connection)
    assert {"first", "second", "third"} <= set(str(found.value).replace(":", "").split())
    with q.workflow("self") as alone:
        node = apps.noop.node()
        node.after(node)
    with pytest.raises(WorkflowError, match="has a cycle: noop → noop"):
        alone.enqueue(jobs.connection)
    assert nothing_inserted(jobs)


def test_a_node_of_another_workflow(jobs: Jobs) -> None:
    with q.workflow("other"):
        foreign = apps.number.node(1).named("foreign")
        foreign_list = apps.numbers.node(1).named("foreign_list")
    belongs = "node 'foreign' belongs to workflow 'other', not to 'order'"
    with q.workflow("order") as workflow:
        own = apps.noop.node()
        for call, where in (
            (lambda: apps.number.node(foreign.result), "number: value=foreign.result"),
            (lambda: apps.as_list.node([foreign.result]), "as_list: parts=foreign.result"),
            (lambda: own.after(foreign), "node 'noop': after"),
            (lambda: own.when(foreign.result), "node 'noop': when"),
        ):
            with pytest.raises(WorkflowError) as caught:
                call()
            assert str(caught.value) == f"{where}: {belongs}"
        with pytest.raises(WorkflowError, match="node 'foreign_list' belongs to workflow 'other'"):
            apps.number.map(foreign_list.result)
    with pytest.raises(WorkflowError, match=f"returns: {belongs}"):
        workflow.enqueue(jobs.connection, foreign)
    with q.workflow("mapped") as mapped:
        many = apps.number.map([1])
    with pytest.raises(WorkflowError, match=r"returns=.*: expected a node made by .*; a map has many results"):
        mapped.enqueue(jobs.connection, cast(Any, many))
    with pytest.raises(WorkflowError, match=r"returns=noop\.result: expected a node made by task\.node"):
        workflow.enqueue(jobs.connection, cast(Any, own.result))
    assert nothing_inserted(jobs)


def test_after_and_when_take_what_they_say(wf: Workflow) -> None:
    node, order = apps.noop.node(), apps.fetch.node(1)
    with pytest.raises(
        WorkflowError, match=r"node 'noop': after\(fetch\.result\): expected nodes .* not other\.result"
    ):
        node.after(cast(Any, order.result))
    with pytest.raises(WorkflowError, match=r"when\(True\): expected a reference .* use an if statement"):
        node.when(True)
    with pytest.raises(WorkflowError, match=r"when\(number\.results\): a map has no single value"):
        node.when(apps.number.map([1]).results)
    with pytest.raises(WorkflowError, match=r"when\(fetch\.result\.paid\): Order has no field 'paid'"):
        node.when(cast(Any, order.result).paid)
    node.when(order.result.gift)
    with pytest.raises(WorkflowError, match=r"it has the condition fetch\.result\.gift already; a node has one"):
        node.when(order.result.total)


def test_a_workflow_without_nodes(jobs: Jobs) -> None:
    with q.workflow("empty") as workflow:
        pass
    with pytest.raises(WorkflowError, match=r"workflow 'empty' has no nodes: add them in its `with` block"):
        workflow.enqueue(jobs.connection)


# --- The `with` block


def test_a_node_outside_of_a_workflow() -> None:
    with pytest.raises(WorkflowError, match=r"noop\.node: no workflow is being built here: write `with q\.workflow"):
        apps.noop.node()
    with pytest.raises(WorkflowError, match=r"number\.map: no workflow is being built here"):
        apps.number.map([1])


def square(value: int) -> Node[int]:
    """A graph that is a workflow of its own, and a part of others."""
    with q.workflow("square") as inner, inner.part("in"):
        first = apps.number.node(value)
        apps.noop.node().after(first)
        return apps.add.node(first.result, first.result).named("both")


def test_a_workflow_within_a_workflow_is_a_part_of_it(jobs: Jobs) -> None:
    with q.workflow("order") as wf:
        left, right = square(2), square(3)
        with wf.part("last"), q.workflow("inner") as inner:
            both = apps.add.node(left.result, right.result)
            apps.noop.node().after(apps.number.node(1))
        after = apps.noop.node().named("after").after(inner, left)
    assert [node.label for node in wf.nodes] == [
        "square/in/number", "square/in/noop", "square/in/both", "square-2/in/number", "square-2/in/noop", "square-2/in/both",
        "last/inner/add", "last/inner/noop", "last/inner/number", "after",
    ]  # fmt: skip
    assert [node.label for node in inner.nodes] == ["last/inner/add", "last/inner/noop", "last/inner/number"]
    # The nodes that none of its others needs.
    assert [node.label for nodes in after._after for node in nodes] == [
        "last/inner/add",
        "last/inner/noop",
        "square/in/both",
    ]
    for call in (inner.submit, partial(inner.enqueue, jobs.connection)):
        with pytest.raises(WorkflowError, match=r"workflow 'inner' is a part of 'order', .*: enqueue 'order'"):
            call()
    run = wf.enqueue(jobs.connection, both)
    assert jobs.one("SELECT count(*) FROM jobq.workflow") == 1
    assert jobs.one(f"SELECT count(*) FROM jobq.workflow_node WHERE workflow_id = {run.id}") == 10


def test_what_cannot_be_within_a_workflow(wf: Workflow) -> None:
    same = "so its nodes belong to the same run: key, on_failure and deadline are options of 'order'"
    options: dict[str, Any]
    for options in ({"key": "k"}, {"on_failure": "cancel"}, {"deadline": 5}):
        with pytest.raises(WorkflowError, match=same), q.workflow("inner", **options):
            pass
    with pytest.raises(WorkflowError, match="it belongs to another application"), JobQ().workflow("inner"):
        pass
    with pytest.raises(InvalidOption, match="a slash separates"), q.workflow("in/ner"):
        pass
    with q.workflow("inner") as inner:
        with pytest.raises(WorkflowError, match="it has been begun already"), inner:
            pass
        node = apps.noop.node()
        with pytest.raises(WorkflowError, match="it has no nodes, or its `with` block has not ended"):
            node.after(inner)
    with pytest.raises(WorkflowError, match="it has been begun already"), inner:
        pass
    with pytest.raises(WorkflowError, match="it has been begun already"), wf:
        pass
    with pytest.raises(WorkflowError, match="expected a workflow that was built within 'order'"):
        node.after(wf)
    assert apps.noop.node() in wf.nodes


def test_a_task_of_another_application(wf: Workflow) -> None:
    foreign = JobQ().task(name="foreign")(lambda_of("foreign"))
    with pytest.raises(
        WorkflowError, match=r"foreign\.node: the task belongs to another application than workflow 'order'"
    ):
        foreign.node("a")


def test_a_block_left_by_an_exception(jobs: Jobs) -> None:
    workflow = q.workflow("broken")
    with pytest.raises(AttributeError, match="fail"), workflow:
        cast(Any, apps.noop).node().fail()
    with pytest.raises(WorkflowError, match=r"its `with` block was left by AttributeError: .*; nodes may be missing"):
        workflow.enqueue(jobs.connection)
    with pytest.raises(WorkflowError, match="no workflow is being built here"):
        apps.noop.node()
    with q.workflow("next") as following:
        apps.noop.node()
    assert following.enqueue(jobs.connection).created


def test_threads_and_tasks_do_not_mix() -> None:
    barrier = threading.Barrier(4)

    def build(name: str) -> list[str]:
        with q.workflow(name) as workflow:
            for number in range(50):
                barrier.wait(10)
                apps.noop.node().named(f"{name}-{number}")
        return [node.label for node in workflow.nodes]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(build, "abcd")) == [[f"{name}-{number}" for number in range(50)] for name in "abcd"]

    async def build_async(name: str) -> list[str]:
        with q.workflow(name) as workflow:
            for number in range(50):
                await asyncio.sleep(0)
                apps.noop.node().named(f"{name}-{number}")
        return [node.label for node in workflow.nodes]

    async def all_of() -> list[list[str]]:
        return await asyncio.gather(*map(build_async, "abcd"))

    assert asyncio.run(all_of()) == [[f"{name}-{number}" for number in range(50)] for name in "abcd"]


# --- After the enqueue


def test_nodes_after_the_enqueue(jobs: Jobs) -> None:
    with q.workflow("done") as workflow:
        first, many = apps.noop.node(), apps.number.map([1])
        workflow.enqueue(jobs.connection)
        with pytest.raises(
            WorkflowError, match=r"workflow 'done': .*noop\.node: it has been enqueued, and runs do not change"
        ):
            apps.noop.node()
    calls: list[Callable[[], object]] = [
        lambda: first.named("a"),
        lambda: first.after(many),
        lambda: first.when(True),
        lambda: many.min_success(0.5),
        lambda: workflow.__enter__(),
    ]
    for call in calls:
        with pytest.raises(
            WorkflowError, match="it has been enqueued, and runs do not change: do it before, or build another"
        ):
            call()


def test_each_enqueue_is_a_run_and_a_rolled_back_one_can_be_repeated(jobs: Jobs, database_url: str) -> None:
    with q.workflow("again") as workflow:
        end = apps.add.node(apps.number.node(1).result, 2)
    with psycopg.connect(database_url) as connection:
        workflow.enqueue(connection, end)
        connection.rollback()
        run = workflow.enqueue(connection, end)
    assert jobs.all("SELECT id FROM jobq.workflow") == [{"id": run.id}]
    second = workflow.enqueue(jobs.connection, end)
    assert second.created
    assert second.id != run.id
    assert jobs.one("SELECT count(*) FROM jobq.workflow_node") == 4


def test_one_failure_inserts_nothing(jobs: Jobs) -> None:
    with q.workflow("half") as workflow:
        apps.noop.node()
        apps.number.map(range(10))
        node: Node[int] = apps.number.node(1)
    # A value that no check of the builder lets through, to have PostgreSQL refuse the statement.
    node._args = {"value": "\0"}
    with pytest.raises(psycopg.Error):
        workflow.enqueue(jobs.connection)
    assert nothing_inserted(jobs)


def nothing_inserted(jobs: Jobs) -> bool:
    tables = ("workflow", "workflow_node", "workflow_join", "workflow_turn", "job")
    return all(jobs.one(f"SELECT count(*) FROM jobq.{table}") == 0 for table in tables)
