"""Builds a workflow: its nodes, their names, and what may depend on what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, overload

from jobq._core.validation import check_choice, check_key, check_text
from jobq.errors import WorkflowError
from jobq.workflow.node import BaseNode, Many, Node, check_name
from jobq.workflow.run import WorkflowRun

if TYPE_CHECKING:
    from jobq._postgres.adapters import AnyAsyncConnection, AnyConnection

R = TypeVar("R")

OnFailure = Literal["hold", "cancel", "continue"]
ON_FAILURE = get_args(OnFailure)

MAX_NODES = 100_000
"""Most nodes of one run. A map is one node, with up to `MAX_ITEMS` jobs."""
MAX_ITEMS = 1_000_000
"""Most items of one map."""
_LONGEST_NAME = 500

_building: ContextVar[Workflow | None] = ContextVar("jobq_building", default=None)


class Workflow:
    """A graph of jobs that is being built. Made by ``q.workflow(…)``.

    Inside its ``with`` block, ``task.node(…)`` and ``task.map(…)`` add nodes. `jobq.app.JobQ.workflow`
    describes its parameters.

    A workflow that is begun within another one is a part of it: its nodes belong to the other's
    run, so that is cancelled, retried and held with them. ``node.after(inner)`` waits for all of it::

        def order(order_id: int) -> Node[str]:
            with q.workflow("order"):
                return charge.node(fetch.node(order_id).result)

        with q.workflow("orders") as wf:
            report.node([order(7).result, order(8).result])
    """

    def __init__(
        self,
        app: Any,
        name: str,
        *,
        key: str | None = None,
        on_failure: OnFailure = "hold",
        deadline: float | None = None,
    ) -> None:
        self._app = app
        self.name = check_text("name", name, 200)
        self.key = None if key is None else check_key(key, self.name, "workflow")
        check_choice("on_failure", on_failure, ON_FAILURE)
        self.on_failure: OnFailure = on_failure
        self.deadline = deadline
        self.nodes: list[BaseNode] = []
        """The nodes, in the order in which they were made."""
        self._names: dict[str, BaseNode] = {}
        self._prefixes: list[str] = []
        self._numbers: Counter[str] = Counter()
        """How many nodes have begun with a name: the number for the next of the same task."""
        self._parents: dict[tuple[BaseNode, ...], tuple[BaseNode, ...]] = {}
        """What `after` was called with, each combination of nodes once: many nodes may share their parents."""
        self._inner: Counter[str] = Counter()
        """How many workflows have been begun within it, by their paths."""
        self._enqueued = False
        self._error: BaseException | None = None
        """What ended its `with` block before its end."""
        self._adds = False
        """Whether its nodes are added to the run of a job: see `JobQ.add_nodes`."""
        self._outer: Workflow | None = None
        """The workflow that it is a part of, which is no part of another."""
        self._from = 0
        """The number of nodes that the outer workflow had before."""

    def __enter__(self) -> Workflow:
        self._check_open("its `with` block")
        if (outer := _building.get()) is None:
            _building.set(self)
        else:
            self._begin_within(outer)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._error = error or self._error
        if self._outer is None:
            _building.set(None)
        else:
            self._outer._prefixes.pop()
            self.nodes = self._outer.nodes[self._from :]

    def _begin_within(self, outer: Workflow) -> None:
        where = f"workflow {self.name!r} is begun within {outer.name!r}"
        if self is outer or self.nodes or self._outer is not None:
            raise WorkflowError(f"{where}: it has been begun already: build another")
        if self._app is not outer._app:
            raise WorkflowError(f"{where}: it belongs to another application")
        if (self.key, self.on_failure, self.deadline) != (None, "hold", None):
            raise WorkflowError(
                f"{where}, so its nodes belong to the same run: key, on_failure and deadline are options of {outer.name!r}"
            )
        name = check_name(self.name, 100)
        # A function that builds it may be called again, and names its nodes as before.
        path = "/".join([*outer._prefixes, name])
        outer._inner[path] += 1
        number = outer._inner[path]
        outer._prefixes.append(name if number == 1 else f"{name}-{number}")
        self._outer, self._from = outer, len(outer.nodes)

    def part(self, name: str) -> Part:
        """Return a context manager that puts ``name/`` before the names of the nodes made within it.

        Parts may be nested. They are shown as boxes, and make it safe to call a function that adds
        nodes more than once. Raises InvalidOption unless the name is text of 1 to 100 characters without
        a slash.
        """
        return Part(self._outer or self, check_name(name, 100))

    @overload
    def enqueue(self, connection: AnyConnection, returns: None = None) -> WorkflowRun[None]: ...

    @overload
    def enqueue(self, connection: AnyConnection, returns: Node[R]) -> WorkflowRun[R]: ...

    def enqueue(self, connection: AnyConnection, returns: Node[Any] | None = None) -> WorkflowRun[Any]:
        """Insert a run on `connection`, inside its transaction, by one statement.

        The run starts if and when that transaction commits. If `key` is held by an earlier run of
        this name, nothing is inserted and the result refers to that run. Otherwise each call inserts
        another run, for example when a transaction is repeated after a conflict.

        Args:
            connection: as for ``task.enqueue``.
            returns: the node whose result ``run.result()`` returns. Default: it returns None.

        Raises:
            WorkflowError: the graph has no nodes or a cycle, its `with` block was left by an
                exception, or `returns` is a node of another workflow.
        """
        run: WorkflowRun[Any] = self._app.insert_workflow(connection, self, returns)
        self._enqueued = True
        return run

    @overload
    async def enqueue_async(self, connection: AnyAsyncConnection, returns: None = None) -> WorkflowRun[None]: ...

    @overload
    async def enqueue_async(self, connection: AnyAsyncConnection, returns: Node[R]) -> WorkflowRun[R]: ...

    async def enqueue_async(self, connection: AnyAsyncConnection, returns: Node[Any] | None = None) -> WorkflowRun[Any]:
        """Insert a run on an asynchronous connection, like `enqueue`."""
        run: WorkflowRun[Any] = await self._app.insert_workflow_async(connection, self, returns)
        self._enqueued = True
        return run

    @overload
    def submit(self, returns: None = None) -> WorkflowRun[None]: ...

    @overload
    def submit(self, returns: Node[R]) -> WorkflowRun[R]: ...

    def submit(self, returns: Node[Any] | None = None) -> WorkflowRun[Any]:
        """Insert a run in a separate transaction, on a connection of jobq's pool. Raises DatabaseUnavailable."""
        run: WorkflowRun[Any] = self._app.submit_workflow(self, returns)
        self._enqueued = True
        return run

    @overload
    async def submit_async(self, returns: None = None) -> WorkflowRun[None]: ...

    @overload
    async def submit_async(self, returns: Node[R]) -> WorkflowRun[R]: ...

    async def submit_async(self, returns: Node[Any] | None = None) -> WorkflowRun[Any]:
        """Insert a run in a separate transaction, like `submit`."""
        run: WorkflowRun[Any] = await self._app.submit_workflow_async(self, returns)
        self._enqueued = True
        return run

    def _check(self, returns: object = None) -> None:
        """Raise WorkflowError if the graph cannot be enqueued."""
        if self._adds:
            raise WorkflowError(
                f"workflow {self.name!r}: its nodes are added to the job's run when the job succeeds: do not enqueue it"
            )
        self._check_built(returns)

    def _check_built(self, returns: object = None) -> None:
        if self._outer is not None:
            raise WorkflowError(
                f"workflow {self.name!r} is a part of {self._outer.name!r}, and its nodes are in that run: enqueue "
                f"{self._outer.name!r}"
            )
        if self._error is not None:
            raise WorkflowError(
                f"workflow {self.name!r}: its `with` block was left by {type(self._error).__name__}: {self._error}; "
                "nodes may be missing: build it again"
            ) from self._error
        if not self.nodes:
            raise WorkflowError(f"workflow {self.name!r} has no nodes: add them in its `with` block")
        if returns is None:
            return
        if not isinstance(returns, Node):
            raise WorkflowError(
                f"workflow {self.name!r}: returns={returns!r}: expected a node made by task.node(…)"
                + (
                    "; a map has many results: return the node of a task that takes them"
                    if isinstance(returns, Many)
                    else ""
                )
            )
        self._check_own(returns, "returns")

    def last_nodes(self, of: BaseNode) -> list[BaseNode]:
        """Return the nodes that none of its others needs, for ``of.after(self)``. Raises WorkflowError."""
        if self._outer is None or self._outer is not of._workflow:
            raise WorkflowError(
                f"node {of.label!r}: after({self!r}): expected a workflow that was built within {of._workflow.name!r}"
            )
        if not self.nodes:
            raise WorkflowError(
                f"node {of.label!r}: after({self!r}): it has no nodes, or its `with` block has not ended"
            )
        needed = set().union(*(each.needs() for each in self.nodes))
        return [each for each in self.nodes if each not in needed]

    def _check_open(self, what: str) -> None:
        if self._enqueued:
            raise WorkflowError(
                f"workflow {self.name!r}: {what}: it has been enqueued, and runs do not change: do it before, or build another"
            )

    def _add(self, node: BaseNode, wanted: str) -> tuple[str, str, int]:
        """Add a node; return its name, the parts before its name, and its place."""
        prefix = "".join(f"{each}/" for each in self._prefixes)
        base = self._checked_name(prefix + wanted)
        number = self._numbers[base] + 1
        name = base if number == 1 else f"{base}-{number}"
        while name in self._names:
            number += 1
            name = f"{base}-{number}"
        self._numbers[base] = number
        self._names[name] = node
        self.nodes.append(node)
        return name, prefix, len(self.nodes) - 1

    def _is_shared(self, found: tuple[object, ...]) -> bool:
        """Whether `_shared` knows these nodes."""
        try:
            return found in self._parents
        except TypeError:
            return False

    def _shared(self, nodes: tuple[BaseNode, ...], check: Callable[[tuple[object, ...]], None]) -> tuple[BaseNode, ...]:
        """Return the one tuple of these nodes, checked when it is first seen.

        So a thousand nodes after the same thousand cost a hash each, and no loop over their parents.
        """
        try:
            known = self._parents.get(nodes)
        except TypeError:  # something in it has no hash, so it is no node
            known = None
        if known is None:
            check(nodes)
            known = self._parents[nodes] = nodes
        return known

    def _rename(self, node: BaseNode, wanted: str) -> None:
        name = self._checked_name(node._prefix + wanted)
        if (other := self._names.get(name, node)) is not node:
            raise WorkflowError(
                f"node {node.label!r}: named({wanted!r}): workflow {self.name!r} has a node {name!r} already, of task "
                f"{other._task.name!r}: give each its own name, or use parts"
            )
        del self._names[node._name]
        node._name = name
        self._names[name] = node

    def _checked_name(self, name: str) -> str:
        if len(name) > _LONGEST_NAME:
            raise WorkflowError(
                f"workflow {self.name!r}: the name {name[:60]!r}… has {len(name)} characters with its parts; "
                f"at most {_LONGEST_NAME} are allowed: nest fewer parts"
            )
        return name

    def _check_own(self, node: BaseNode, where: str) -> None:
        if node._workflow is not self:
            raise WorkflowError(
                f"{where}: node {node.label!r} belongs to workflow {node._workflow.name!r}, not to {self.name!r}"
            )

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r} of {len(self.nodes)} nodes>"


class Part:
    """A part of a workflow, made by ``workflow.part(name)``."""

    def __init__(self, workflow: Workflow, name: str) -> None:
        self._workflow = workflow
        self._name = name

    def __enter__(self) -> Workflow:
        if _building.get() is not self._workflow:
            raise WorkflowError(
                f"part {self._name!r}: use it within the `with` block of workflow {self._workflow.name!r}"
            )
        self._workflow._prefixes.append(self._name)
        return self._workflow

    def __exit__(self, *_: object) -> None:
        self._workflow._prefixes.pop()


def current_workflow(of: str) -> Workflow:
    """Return the workflow that is being built here. Raises WorkflowError."""
    if (found := _building.get()) is None:
        raise WorkflowError(f"{of}: no workflow is being built here: write `with q.workflow(…):` around it")
    return found
