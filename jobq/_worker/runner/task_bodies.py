"""The callables that execute the jobs of each task: its function with resources and middleware."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from jobq._app.resources import ResourceFunction
from jobq._worker.runner.batch_executor import single
from jobq._worker.runner.open_resources import OpenResources
from jobq.app import JobQ
from jobq.batch_task import AnyBatchTask
from jobq.task import BaseTask


class TaskBodies(dict[str, Callable[..., Any]]):
    """Callables by task name, each called with a job's arguments.

    Each is resolved once per task, so a job costs one lookup. A task without resources and
    middleware uses its own function. That of a batch task runs one job; `batch` returns the one
    that runs many. If `keep` is False, a callable is resolved for each job. Tests need this, because
    they override resources at any time.
    """

    def __init__(self, app: JobQ, resources: OpenResources, *, keep: bool) -> None:
        super().__init__()
        self._app = app
        self._keep = keep
        self._batches: dict[str, Callable[..., Any]] = {}
        self.resources = resources

    def needed(self, task: BaseTask[..., Any]) -> dict[str, ResourceFunction]:
        """Return the resources of `task` by parameter. Raises TaskDefinitionError."""
        wanted = task.arguments.resources
        return self._app.resources.find(wanted, f"task {task.name}") if wanted else {}

    def __missing__(self, name: str) -> Callable[..., Any]:
        task = self._app.get_task(name)
        if isinstance(task, AnyBatchTask):
            body = single(task, self.batch(name))
        else:
            body = self._app.middlewares.around(task, self._function(task))
        if self._keep:
            self[name] = body
        return body

    def batch(self, name: str) -> Callable[..., Any]:
        """Return the callable of a batch task, which is called with many items."""
        if (body := self._batches.get(name)) is None:
            task = self._app.get_task(name)
            body = self._app.middlewares.around_batch(task, self._function(task))
            if self._keep:
                self._batches[name] = body
        return body

    def _function(self, task: BaseTask[..., Any]) -> Callable[..., Any]:
        function: Callable[..., Any] = task.function
        if needed := self.needed(task):
            self.resources.open(needed.values())
            function = partial(function, **self.resources.values(needed))
        return function
