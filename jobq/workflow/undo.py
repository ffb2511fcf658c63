"""How a node is undone, if its run ends as failed or cancelled: by a task that takes its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from jobq._core.graphs.type_fit import fits, name
from jobq._core.text import brief
from jobq.errors import InvalidArguments, WorkflowError
from jobq.job import JobOptions

if TYPE_CHECKING:
    from jobq.workflow.node import Node, NodeTask

R_contra = TypeVar("R_contra", contravariant=True)


class UndoTask(Protocol[R_contra]):
    """A task, or a task with options, that can be called with a value of this type alone."""

    def node(self, result: R_contra, /) -> Node[Any]: ...


def undo_of(where: str, of: NodeTask, task: object) -> tuple[JobOptions, str]:
    """Return the options of the job that undoes a node of the task `of`, and the parameter that gets the result.

    Raises WorkflowError if `task` cannot be called with that result alone.
    """
    bound: tuple[Any, JobOptions] | None = getattr(task, "_bound", None)
    if bound is None:
        raise WorkflowError(f"{where}: undo({brief(task)}): expected a task that takes the result, such as refund")
    found, options = bound
    where = f"{where}: undo({found.name})"
    if found.app is not of.app:
        raise WorkflowError(f"{where}: the task belongs to another application than the workflow")
    if options.key is not None or options.run_at is not None:
        raise WorkflowError(f"{where}: key= and run_at= are options of single jobs: leave them out, or use delay=…")
    try:
        found.arguments.bind((None,), {})
    except InvalidArguments as error:
        raise WorkflowError(f"{where}: it is called with the result alone: {error}") from None
    parameter: str = found.arguments.names[0]
    produced, expected = of.arguments.returned_type, found.arguments.hint(parameter)
    if not fits(produced, expected):
        raise WorkflowError(f"{where}: {of.name} returns {name(produced)}; {parameter} is {name(expected)}")
    return options, parameter
