"""Celery's names for graphs: `chain`, `group` and `chord`, on top of the builder.

They are for code that moves from Celery. ``task.s(…)`` and ``task.si(…)`` describe a call, the
functions here describe a graph of them, and ``.node()`` adds it to the workflow that is being
built::

    from jobq.workflow import chain, chord, group

    with q.workflow("page") as wf:
        stored = chain(fetch.s("example.org"), count.s(), store.s("example.org")).node()
    run = wf.enqueue(session, stored)

A chain passes the result of each task to the next one, as its first argument. After a group, that
is the list of the group's results, in the order of its members, also if there is one member or
none. So a group in the middle of a chain is a chord::

    chord((count.s(page) for page in pages), total.s())
    group(count.s(page) for page in pages) | total.s()

Nothing is inserted before the workflow is enqueued. Its nodes are ordinary ones: the types of
results and parameters are compared when they are added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

from jobq._core.text import brief
from jobq.errors import WorkflowError
from jobq.job import JobOptions
from jobq.workflow.making import make_node
from jobq.workflow.node import BaseNode, Node, NodeTask

__all__ = ["Canvas", "Partial", "chain", "chord", "group"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
R = TypeVar("R")
S = TypeVar("S")
A_contra = TypeVar("A_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

_IN_A_WORKFLOW = "write `with q.workflow(…) as wf:`, add it there with .node(), then `wf.enqueue(connection)`"
_INSTEAD = {
    "apply_async": _IN_A_WORKFLOW,
    "delay": _IN_A_WORKFLOW,
    "apply": "call the tasks as functions, or let the fixture `jobq` drain the queue",
    "set": "options are the task's: task.options(queue=…, delay=…).s(…)",
    "link": "write first | second",
    "link_error": "let a node take the outcome of another one: task.node(other.outcome)",
    "on_error": "let a node take the outcome of another one: task.node(other.outcome)",
    "stamp": "give the tasks headers: task.options(headers={…}).s(…)",
    "set_immutable": "write task.si(…)",
    "clone": "use it again: each use adds nodes of its own",
    "replace": "write another call",
}
"""What Celery's signatures have, and these have not."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a task."""

    task: NodeTask
    options: JobOptions
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    immutable: bool


@dataclass(frozen=True, slots=True)
class _Members:
    """The members of a group."""

    members: tuple[Partial[Any, Any], ...]


@dataclass(frozen=True, slots=True)
class _Before:
    """What has been added so far, as the next step sees it."""

    nodes: tuple[Node[Any], ...] = ()
    """Those whose results it takes."""
    is_list: bool = False
    waits: tuple[BaseNode, ...] = ()
    """Those that must succeed before it, because an empty group stands between."""

    @property
    def is_start(self) -> bool:
        return not (self.nodes or self.is_list)

    @property
    def value(self) -> Any:
        results = [node.result for node in self.nodes]
        return results if self.is_list else results[0]


class Partial(Generic[A_contra, R_co]):
    """Calls whose first one needs the result of what stands before it, of type `A_contra`, as its first argument.

    Type checkers see this class; `Canvas` is the one that is used.
    """

    def __init__(self, *steps: _Call | _Members) -> None:
        self._steps = steps

    def __or__(self, other: Partial[R_co, S]) -> Partial[A_contra, S]:
        """Return a chain of both: ``fetch.s(url) | count.s()``."""
        return _joined("|", (self, other))

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise WorkflowError(f"{self!r} is not called: {_IN_A_WORKFLOW}")

    def __repr__(self) -> str:
        return " | ".join(map(_shown, self._steps))

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if (hint := _INSTEAD.get(name)) is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            raise WorkflowError(f"{self!r} has no .{name}: {hint}")


class Canvas(Partial[Any, R_co]):
    """A graph of calls that needs nothing before it. Made by ``task.s``, `chain`, `group` and `chord`.

    It may be used more than once: each use adds nodes of its own.
    """

    if TYPE_CHECKING:

        def __or__(self, other: Partial[R_co, S]) -> Canvas[S]: ...

    def node(self) -> Node[R_co]:
        """Add the nodes to the workflow that is being built, and return the last one.

        Raises:
            WorkflowError: it ends in a group, which has many last nodes: use `nodes`. Or as for
                ``task.node``.
            InvalidArguments: arguments, or the type of a result, do not fit a task's signature.
        """
        if isinstance(self._steps[-1], _Members):
            raise WorkflowError(
                f"{self!r} ends in a group, so it has no last node: add a task that takes the list of results, or use .nodes()"
            )
        return self.nodes()[0]

    def nodes(self) -> list[Node[Any]]:
        """Add the nodes to the workflow that is being built, and return the last ones, in the order of their results.

        They are none for an empty group. Raises WorkflowError and InvalidArguments, like `node`.
        """
        return list(_add(self._steps, _Before()).nodes)


def call(task: NodeTask, options: JobOptions, args: tuple[Any, ...], kwargs: Mapping[str, Any], immutable: bool) -> Any:
    """Return the canvas of one call: what ``task.s`` and ``task.si`` return."""
    return Canvas[Any](_Call(task, options, args, dict(kwargs), immutable))


@overload
def chain(first: Canvas[A], /) -> Canvas[A]: ...


@overload
def chain(first: Canvas[A], second: Partial[A, B], /) -> Canvas[B]: ...


@overload
def chain(first: Canvas[A], second: Partial[A, B], third: Partial[B, C], /) -> Canvas[C]: ...


@overload
def chain(first: Canvas[A], second: Partial[A, B], third: Partial[B, C], fourth: Partial[C, D], /) -> Canvas[D]: ...


@overload
def chain(
    first: Canvas[A],
    second: Partial[A, B],
    third: Partial[B, C],
    fourth: Partial[C, D],
    fifth: Partial[D, E],
    /,
) -> Canvas[E]: ...


@overload
def chain(
    first: Canvas[A],
    second: Partial[A, B],
    third: Partial[B, C],
    fourth: Partial[C, D],
    fifth: Partial[D, E],
    sixth: Partial[E, Any],
    /,
    *others: Partial[Any, Any],
) -> Canvas[Any]: ...


@overload
def chain(first: Partial[S, A], /) -> Partial[S, A]: ...


@overload
def chain(first: Partial[S, A], second: Partial[A, B], /) -> Partial[S, B]: ...


@overload
def chain(first: Partial[S, A], second: Partial[A, B], third: Partial[B, C], /) -> Partial[S, C]: ...


@overload
def chain(calls: Iterable[Partial[Any, Any]], /) -> Canvas[Any]: ...


def chain(*calls: Any) -> Any:
    """Return calls one after the other; each gets the result of the one before as its first argument.

    ``task.si(…)`` does not: it only runs afterwards. A chain of one call is that call. A chain may
    contain chains, groups and chords.

    Args:
        *calls: what ``task.s``, ``task.si``, `chain`, `group` and `chord` return; or one iterable
            of them.

    Raises:
        WorkflowError: there is no call, or an argument is none.
    """
    found = _listed("chain", calls)
    if not found:
        raise WorkflowError("chain: it has no calls: expected at least one, such as chain(fetch.s(1))")
    return _joined("chain", found)


@overload
def group(*calls: Canvas[A]) -> Canvas[list[A]]: ...


@overload
def group(calls: Iterable[Canvas[A]], /) -> Canvas[list[A]]: ...


@overload
def group(*calls: Partial[S, A]) -> Partial[S, list[A]]: ...


@overload
def group(calls: Iterable[Partial[S, A]], /) -> Partial[S, list[A]]: ...


def group(*calls: Any) -> Any:
    """Return calls side by side. What follows gets the list of their results, in their order.

    In a chain, each gets the result before it. A group in a group adds its members to it, and so
    does a chain that ends in a group. For many calls of one task use ``task.map``: it is one node.

    Args:
        *calls: what ``task.s``, ``task.si``, `chain`, `group` and `chord` return; or one iterable
            of them, which is read at once.

    Raises:
        WorkflowError: an argument is no call.
    """
    found = _listed("group", calls)
    for place, each in enumerate(found, 1):
        _check("group", place, each)
    return Canvas[Any](_Members(tuple(found)))


@overload
def chord(header: Canvas[list[A]] | Iterable[Canvas[A]], body: Partial[list[A], R]) -> Canvas[R]: ...


@overload
def chord(header: Partial[S, list[A]] | Iterable[Partial[S, A]], body: Partial[list[A], R]) -> Partial[S, R]: ...


def chord(header: Any, body: Any) -> Any:
    """Return `body`, which gets the list of the results of `header`: ``group(header) | body``.

    If `header` is empty, the body runs at once, with an empty list. If a member fails, the rule of
    the workflow (`on_failure`) decides; with ``hold``, the body runs after the member was retried.

    Args:
        header: an iterable of calls, or a group.
        body: the call that gets the list as its first argument, or nothing if it is ``task.si(…)``.

    Raises:
        WorkflowError: an argument is no call.
    """
    return _joined("chord", (group(header), body))


def _listed(what: str, given: tuple[Any, ...]) -> list[Any]:
    """Return the calls that were given one by one, or as one iterable."""
    if len(given) == 1 and isinstance(given[0], Iterable) and not isinstance(given[0], (str, bytes)):
        return list(given[0])
    return list(given)


def _joined(what: str, calls: Iterable[Any]) -> Canvas[Any]:
    found = [_check(what, place, each) for place, each in enumerate(calls, 1)]
    return Canvas[Any](*(step for each in found for step in each._steps))


def _check(what: str, place: int, given: Any) -> Partial[Any, Any]:
    if isinstance(given, Partial):
        return given
    if isinstance(given, BaseNode):
        hint = "a node is in the workflow already: pass its result, task.s(node.result)"
    elif hasattr(given, "s"):
        hint = "a task is described with its arguments: task.s(…)"
    else:
        hint = "expected what task.s(…), chain, group or chord return"
    raise WorkflowError(f"{what}: argument {place} is {brief(given)}: {hint}")


def _add(steps: Iterable[_Call | _Members], before: _Before) -> _Before:
    """Add nodes for the steps, and return what the next step sees."""
    for step in steps:
        before = _add_call(step, before) if isinstance(step, _Call) else _add_members(step, before)
    return before


def _add_call(step: _Call, before: _Before) -> _Before:
    takes = not (step.immutable or before.is_start)
    args = (before.value, *step.args) if takes else step.args
    node = make_node(step.task, step.options, args, dict(step.kwargs))
    if waits := before.waits if takes else (*before.nodes, *before.waits):
        node.after(*waits)
    return _Before((node,))


def _add_members(step: _Members, before: _Before) -> _Before:
    ends = [_add(each._steps, before) for each in step.members]
    return _Before(
        tuple(node for each in ends for node in each.nodes),
        is_list=True,
        waits=tuple(node for each in ends for node in each.waits) if ends else (*before.nodes, *before.waits),
    )


def _shown(step: _Call | _Members) -> str:
    if isinstance(step, _Call):
        given = [*map(brief, step.args), *(f"{name}={brief(value)}" for name, value in step.kwargs.items())]
        return f"{step.task.name}.{'si' if step.immutable else 's'}({', '.join(given)})"
    shown = [repr(each) for each in step.members[:3]]
    return f"group({', '.join(shown)}{', …' if len(step.members) > len(shown) else ''})"
