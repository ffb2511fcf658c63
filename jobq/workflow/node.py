"""The nodes of a workflow: `Node` runs one job, `Many` one job for each item of a list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, Union, cast

from pydantic_core import to_jsonable_python

from jobq._core import json_text
from jobq._core.arguments import Arguments
from jobq._core.graphs.node_arguments import Input
from jobq._core.graphs.references import Reference, default_of, kind_of, node_of, path_of, references_in
from jobq._core.graphs.type_fit import NoSuchPart, part
from jobq._core.validation import check_text
from jobq.errors import InvalidOption, WorkflowError
from jobq.job import JobOptions
from jobq.workflow.undo import UndoTask, undo_of

if TYPE_CHECKING:
    from jobq.workflow import Workflow

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
D = TypeVar("D")

NodeState = Literal["succeeded", "failed", "cancelled", "expired", "deleted", "upstream_failed", "skipped"]


@dataclass(frozen=True, slots=True)
class NodeOutcome(Generic[R_co]):
    """How a node ended: what ``node.outcome`` passes to a task."""

    state: NodeState
    """``succeeded``, ``failed``, ``cancelled``, ``expired``, ``deleted`` (by an operator),
    ``upstream_failed`` (not run, because a node that it needs failed) or ``skipped`` (not run,
    because of a condition)."""
    result: R_co | None = None
    """What the task returned, if it succeeded."""
    error: str | None = None
    """Why it did not succeed."""

    @property
    def succeeded(self) -> bool:
        return self.state == "succeeded"


class NodeTask(Protocol):
    """What a node needs from its task."""

    @property
    def name(self) -> str: ...

    @property
    def arguments(self) -> Arguments: ...

    @property
    def app(self) -> Any: ...


def check_name(name: object, longest: int) -> str:
    """Return the name of a node or of a part, which has no slash. Raises InvalidOption."""
    found = check_text("name", name, longest)
    if "/" in found:
        raise InvalidOption(f"name={found!r}: a slash separates the parts of a workflow: use `with workflow.part(…):`")
    return found


class BaseNode:
    """One node of a workflow that is being built. Its methods return the node, so they can be chained."""

    def __init__(
        self, workflow: Workflow, task: NodeTask, options: JobOptions, args: dict[str, Any], inputs: list[Input]
    ) -> None:
        self._workflow = workflow
        self._task = task
        self._options = options
        self._args = args
        """The arguments by parameter name, JSON values, with None for each reference."""
        self._inputs = inputs
        self._after: list[tuple[BaseNode, ...]] = []
        """The nodes of each call of `after`. Equal tuples are the same object."""
        self._condition: Reference | None = None
        self._undo: tuple[JobOptions, str] | None = None
        """How to undo it: a job with these options, and the parameter that gets the result."""
        self._name, self._prefix, self._number = workflow._add(self, task.name)

    @property
    def label(self) -> str:
        """Its name within the workflow."""
        return self._name

    def _set_name(self, name: str) -> None:
        self._workflow._check_open(f"node {self.label!r}: named({name!r})")
        self._workflow._rename(self, check_name(name, 200))

    def _set_after(self, found: tuple[BaseNode | Workflow, ...]) -> None:
        self._workflow._check_open(f"node {self.label!r}: after(…)")
        nodes = cast("tuple[BaseNode, ...]", found) if self._workflow._is_shared(found) else self._flattened(found)
        if nodes:
            self._after.append(self._workflow._shared(nodes, self._check_parents))

    def _flattened(self, found: tuple[BaseNode | Workflow, ...]) -> tuple[BaseNode, ...]:
        nodes: list[BaseNode] = []
        for one in found:
            # A reference seems to have any attribute.
            is_workflow = not isinstance(one, (BaseNode, Reference)) and hasattr(one, "last_nodes")
            nodes += cast("Workflow", one).last_nodes(self) if is_workflow else [cast(BaseNode, one)]
        return tuple(nodes)

    def _check_parents(self, nodes: tuple[object, ...]) -> None:
        for each in nodes:
            if not isinstance(each, BaseNode):
                raise WorkflowError(
                    f"node {self.label!r}: after({each!r}): expected nodes of this workflow, such as other, not other.result"
                )
            self._workflow._check_own(each, f"node {self.label!r}: after")

    def _set_condition(self, condition: object) -> None:
        self._workflow._check_open(f"node {self.label!r}: when(…)")
        if not isinstance(condition, Reference):
            raise WorkflowError(
                f"node {self.label!r}: when({condition!r}): expected a reference such as other.result; "
                "if the value is known now, use an if statement"
            )
        if kind_of(condition) in ("results", "outcomes"):
            raise WorkflowError(f"node {self.label!r}: when({condition!r}): a map has no single value")
        self._workflow._check_own(node_of(condition), f"node {self.label!r}: when")
        if self._condition is not None:
            raise WorkflowError(
                f"node {self.label!r}: when({condition!r}): it has the condition {self._condition!r} already; a node has one: "
                "compute both in a task"
            )
        try:
            node_of(condition).hint_of(condition)
        except NoSuchPart as error:
            raise WorkflowError(f"node {self.label!r}: when({condition!r}): {error}") from None
        self._condition = condition

    def _set_undo(self, task: object) -> None:
        where = f"node {self.label!r}"
        self._workflow._check_open(f"{where}: undo({task!r})")
        self._undo = undo_of(where, self._task, task)

    def hint_of(self, reference: Reference) -> Any:
        """Return the type of a reference to this node. Raises NoSuchPart."""
        raise NotImplementedError

    def json_path(self, reference: Reference) -> list[str]:
        """Return where the referenced part is in the JSON of the result. Raises NoSuchPart."""
        return [str(key) for key in self._walk(reference)[1]]

    def _walk(self, reference: Reference) -> tuple[Any, list[str | int]]:
        hint, path = self._task.arguments.returned_type, []
        for key in path_of(reference):
            hint, in_json = part(hint, key)
            path.append(in_json)
        return hint, path

    def needs(self) -> set[BaseNode]:
        """Return the nodes that this one waits for."""
        return {*chain.from_iterable(self._after), *map(node_of, self._references())}

    def _references(self) -> list[Reference]:
        """Return the references to other nodes: its arguments and its condition."""
        condition = [] if self._condition is None else [self._condition]
        return [*(each.reference for each in self._inputs), *condition]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label!r} of task {self._task.name!r}>"


class Node(BaseNode, Generic[R]):
    """A node that runs one job. Made by ``task.node(…)``."""

    @property
    def result(self) -> R:
        """What the task will have returned. A node that uses it runs only if this node succeeds.

        Its attributes and items are references, too: ``order.result.addresses``.
        """
        return cast(R, Reference(self, "result"))

    @property
    def outcome(self) -> NodeOutcome[R]:
        """How this node will have ended. A node that uses it runs however this node ends."""
        return cast("NodeOutcome[R]", Reference(self, "outcome"))

    def result_or(self, default: D) -> R | D:
        """What the task will have returned, or `default` if this node does not succeed.

        A part of it is that part of the default, too. Raises WorkflowError if the default is no JSON.
        """
        where = f"node {self.label!r}: result_or({default!r})"
        if any(True for _ in references_in(default)):
            raise WorkflowError(f"{where}: the default is a value that is known now, not another node's result")
        try:
            value = json.loads(json_text.encode(to_jsonable_python(default, bytes_mode="base64"), "default"))
        except Exception as error:
            raise WorkflowError(f"{where}: the default is no JSON: {error}") from None
        return cast("R | D", Reference(self, "optional", default=value))

    def named(self, name: str) -> Node[R]:
        """Give the node a name, 1 to 200 characters, unique in the workflow. Default: its task's name."""
        self._set_name(name)
        return self

    def after(self, *nodes: BaseNode | Workflow) -> Node[R]:
        """Run this node only after `nodes` have succeeded, without using their results.

        A workflow that was built within this one stands for those of its nodes that none of its others needs.
        """
        self._set_after(nodes)
        return self

    def when(self, condition: object) -> Node[R]:
        """Run this node only if the referenced value is true, as Python sees its JSON value.

        Otherwise the node is skipped, and with it the nodes that need its result.
        """
        self._set_condition(condition)
        return self

    def undo(self, task: UndoTask[R]) -> Node[R]:
        """If the run ends as failed or cancelled, and this node has succeeded, call `task` with the node's result.

        The nodes that have succeeded are undone one after the other, the last to end first. Their jobs
        belong to a run of their own, ``<workflow> (undo)``. If one of them fails, that run is blocked
        until it is retried. Each task is called at least once. Default: nothing is undone. The price:
        a run that was undone can only be retried as a whole.

        Args:
            task: a task of this application with one parameter, or whose others have defaults. Its options
                (``task.options(queue=…)``) are those of the job.

        Raises:
            WorkflowError: `task` is no such task, or the result does not fit its parameter.

        Example::

            paid = charge.node(order.result).undo(refund)
        """
        self._set_undo(task)
        return self

    def hint_of(self, reference: Reference) -> Any:
        match kind_of(reference):
            case "outcome":
                return NodeOutcome
            case "optional":
                default = default_of(reference)
                other = type(default) if default is None or isinstance(default, (str, bool, int, float)) else Any
                return Any if other is Any else Union[self._walk(reference)[0], other]  # noqa: UP007  # of variables
            case _:
                return self._walk(reference)[0]


class Many(BaseNode, Generic[R]):
    """A node that runs one job for each item of a list. Made by ``task.map(…)``."""

    def __init__(
        self,
        workflow: Workflow,
        task: NodeTask,
        options: JobOptions,
        args: dict[str, Any],
        inputs: list[Input],
        *,
        items: Reference | Sequence[Any],
        parameter: str,
    ) -> None:
        super().__init__(workflow, task, options, args, inputs)
        self._items = items
        self._parameter = parameter
        self._min_success = 1.0

    @property
    def results(self) -> list[R]:
        """What the jobs will have returned, in the order of the items.

        A node that uses it runs only if all jobs succeed, or as many as `min_success` says; the
        results of the others are left out. The task's annotation decides how it gets them: a
        ``Sequence``, ``Iterable`` or ``Collection`` is read from the database a thousand at a time,
        so it may be larger than the memory; a ``list`` is read at once.
        """
        return cast("list[R]", Reference(self, "results"))

    @property
    def outcomes(self) -> list[NodeOutcome[R]]:
        """How the jobs will have ended, in the order of the items, like `results`.

        A node that uses it runs however they end.
        """
        return cast("list[NodeOutcome[R]]", Reference(self, "outcomes"))

    def named(self, name: str) -> Many[R]:
        """Give the node a name, 1 to 200 characters, unique in the workflow. Default: its task's name."""
        self._set_name(name)
        return self

    def after(self, *nodes: BaseNode | Workflow) -> Many[R]:
        """Run the jobs only after `nodes` have succeeded, without using their results, like ``Node.after``."""
        self._set_after(nodes)
        return self

    def when(self, condition: object) -> Many[R]:
        """Run the jobs only if the referenced value is true, like ``Node.when``."""
        self._set_condition(condition)
        return self

    def min_success(self, fraction: float) -> Many[R]:
        """Let the map succeed if at least this share of its jobs succeeds, above 0 and at most 1 (default).

        A lower share hides failures: read `outcomes` where they matter.
        """
        self._workflow._check_open(f"node {self.label!r}: min_success({fraction!r})")
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction <= 1:
            raise InvalidOption(
                f"node {self.label!r}: min_success={fraction!r}: expected a number above 0 and at most 1"
            )
        self._min_success = float(fraction)
        return self

    def undo(self, task: UndoTask[R]) -> Many[R]:
        """If the run ends as failed or cancelled, call `task` with the result of each item that has succeeded.

        These calls run side by side, also if the map has failed. The rest is as in ``Node.undo``.
        """
        self._set_undo(task)
        return self

    def _references(self) -> list[Reference]:
        own = super()._references()
        return [*own, self._items] if isinstance(self._items, Reference) else own

    def hint_of(self, reference: Reference) -> Any:
        if kind_of(reference) == "outcomes":
            return Sequence[Any]
        returned: Any = self._task.arguments.returned_type
        return Sequence[returned]
