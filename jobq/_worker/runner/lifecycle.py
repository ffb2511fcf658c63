"""The start and end of a runner for the application: its hook functions and its resources."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from jobq._app.lifecycle import Hook, name_of
from jobq._worker.runner.open_resources import OpenResources
from jobq._worker.runner.task_bodies import TaskBodies
from jobq.app import JobQ

logger = logging.getLogger("jobq.runner")


class Lifecycle:
    """The lifecycle of one runner.

    `run` runs a coroutine to its end on the event loop of async tasks. Creation raises
    TaskDefinitionError for an unknown resource, or for a middleware of an unknown task.
    """

    def __init__(self, app: JobQ, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._app = app
        self._run = run
        self._resources = OpenResources(app.resources, run)
        self.bodies = TaskBodies(app, self._resources, keep=True)
        """The callables that execute the jobs of each task, once `start` has returned."""
        self._hook = ""
        app.middlewares.check_names(app.tasks)
        used = {each: None for task in app.tasks.values() for each in self.bodies.needed(task).values()}
        self._used = app.resources.in_order(used)

    @property
    def doing(self) -> str:
        """The present step as text; '' for none."""
        return self._resources.doing or self._hook

    def start_worker(self) -> None:
        """Call the functions for the start of the worker. Raises whatever they raise."""
        self._call_all(self._app.hooks.worker_start, "the worker")

    def start(self) -> None:
        """Call the functions for the start of a runner, and create the resources.

        Raises whatever the application's code raises.
        """
        self._call_all(self._app.hooks.runner_start, "a runner")
        self._resources.open(self._used)
        for name in self._app.tasks:
            _ = self.bodies[name]

    def stop(self) -> None:
        """Close the resources and call the stop functions, each in reverse order. Raises nothing."""
        self._resources.close()
        for hook in reversed(self._app.hooks.runner_stop):
            try:
                self._call(hook)
            except BaseException:
                logger.exception("%s raised an error when the runner ended", name_of(hook))

    def _call_all(self, hooks: Iterable[Hook], what: str) -> None:
        for hook in hooks:
            try:
                self._call(hook)
            except BaseException as error:
                error.add_note(f"raised by {name_of(hook)}, which is called when {what} starts")
                raise

    def _call(self, hook: Hook) -> None:
        self._hook = f"calling {name_of(hook)}"
        try:
            made = hook()
            if inspect.isawaitable(made):
                self._run(_awaited(made))
        finally:
            self._hook = ""


async def _awaited(made: Any) -> Any:
    return await made
