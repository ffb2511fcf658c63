"""The dispatcher's knowledge of the application, which only runners import."""

from __future__ import annotations

import logging

from jobq._worker.faults.problems import Problems
from jobq._worker.ipc.messages import ImportFailed, RunnerReady, ScheduleInfo, StartFailed, TaskInfo

logger = logging.getLogger("jobq.worker")

# Name of the problem of a worker whose application cannot be imported: see problems.py.
NO_RUNNER = "start a runner"


class ApplicationInfo:
    """The application `name` (``module:attribute``), as its last importer described it."""

    def __init__(self, name: str, problems: Problems) -> None:
        self.name = name
        self._problems = problems
        self.facts: dict[str, TaskInfo] = {}
        """The tasks by name."""
        self.isolated: frozenset[str] = frozenset()
        """Tasks whose jobs run in a process of their own."""
        self.batches: dict[str, TaskInfo] = {}
        """The batch tasks by name."""
        self.tasks: list[str] = []
        """Names of the tasks."""
        self.signatures: list[str] = []
        """Signatures of `tasks`, in the same order."""
        self.queues: list[str] = []
        """Queues that the application's tasks name; jobs may be put into other queues too."""
        self.rules: dict[str, tuple[str, int | None, str | None]] = {}
        """Group rules by queue, as the application declares them."""
        self.schedules: list[ScheduleInfo] = []
        """The schedules as the first runner imported them: later runners may read newer code."""
        self.import_failure: str | None = None
        """Why the last import failed; None if it did not."""
        self.start_failure: str | None = None
        """Why the application's start code failed in the last runner; None if it did not."""

    def imported(self, hello: RunnerReady) -> None:
        """Record the application as a runner has imported it."""
        if not self.tasks:
            self.schedules = hello.schedules
        self.facts = {task.name: task for task in hello.tasks}
        self.isolated = frozenset(task.name for task in hello.tasks if task.isolated)
        self.batches = {task.name: task for task in hello.tasks if task.batch}
        self.queues = sorted({task.queue for task in hello.tasks})
        self.rules = {task.queue: task.groups for task in hello.tasks if task.groups is not None}
        self.tasks = [task.name for task in hello.tasks]
        self.signatures = [task.signature for task in hello.tasks]
        self.import_failure = self.start_failure = None
        self._problems.clear(NO_RUNNER)

    def failed(self, failure: ImportFailed | StartFailed) -> None:
        """Record why a runner ended before it was ready."""
        if isinstance(failure, ImportFailed):
            why = self.import_failure = f"the application {self.name!r} cannot be imported: {failure.message}"
            self.start_failure = None
        else:
            self.import_failure = None
            why = self.start_failure = f"a runner of {self.name!r} cannot start: {failure.message}"
        logger.error(why, extra={"traceback": failure.traceback})
        self._problems.note(NO_RUNNER, why)
