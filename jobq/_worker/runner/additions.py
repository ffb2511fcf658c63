"""The nodes that a job adds to the workflow's run to which it belongs: `JobQ.add_nodes`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from jobq._worker.runner.execution import Execution
from jobq.task import BaseTask

if TYPE_CHECKING:
    from jobq.workflow import Workflow


class Additions:
    """What one execution adds. `workflow` is None until the task asks for it."""

    __slots__ = ("_app", "_execution", "workflow")

    def __init__(self, task: BaseTask[..., Any], execution: Execution) -> None:
        self._app: Any = task.app
        self._execution = execution
        self.workflow: Workflow | None = None

    def begin(self) -> Workflow:
        """Return the workflow that collects the nodes."""
        if self.workflow is None:
            self.workflow = self._app.additions()
        return cast("Workflow", self.workflow)

    def insert(self, execute: Callable[[bytes, dict[str, Any]], Any] | None) -> None:
        """Insert the nodes by `execute`; None: in a transaction of their own. Raises what makes that impossible."""
        self._app.insert_additions(self.workflow, self._fence(), execute)

    async def insert_async(self) -> None:
        """Insert the nodes in a transaction of their own, on an event loop."""
        await self._app.insert_additions_async(self.workflow, self._fence())

    def _fence(self) -> dict[str, Any]:
        job = self._execution.job
        return {"job": job.id, "claims": job.claims, "worker": self._execution.worker, "started": job.started}
