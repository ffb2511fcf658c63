"""The jobs that `eager` has recorded, for the assertions of tests and for references."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobq.jobref import JobReport, JobStatus
from jobq.testing.eager_job import EagerJob

if TYPE_CHECKING:
    from jobq.task import BaseTask


class EagerRecord:
    """The jobs of one `eager` block, in the order of enqueuing."""

    def __init__(self) -> None:
        self.jobs: list[EagerJob] = []
        """All jobs, including finished ones."""

    def enqueued(self, task: BaseTask[..., Any] | str | None = None, /, **args: Any) -> list[EagerJob]:
        """Return the enqueued jobs of `task` with these arguments, including finished ones.

        Arguments are compared as JSON. An argument that is not given may have any value.
        """
        from pydantic_core import to_jsonable_python

        wanted = {name: to_jsonable_python(value) for name, value in args.items()}
        name = task if task is None or isinstance(task, str) else task.name
        return [
            job
            for job in self.jobs
            if name in (None, job.task)
            and all(key in job.args and job.args[key] == value for key, value in wanted.items())
        ]

    def assert_enqueued(self, task: BaseTask[..., Any] | str, /, **args: Any) -> EagerJob:
        """Fail unless a job of `task` with these arguments was enqueued; return the first."""
        __tracebackhide__ = True
        if found := self.enqueued(task, **args):
            return found[0]
        name = task if isinstance(task, str) else task.name
        others = [f"{job.task}({job.args}), {job.state}" for job in self.jobs]
        raise AssertionError(
            f"no job of task {name!r} with {args or 'any arguments'} was enqueued; "
            f"there {'were: ' + '; '.join(others[:20]) if others else 'was none at all'}"
        )

    def refute_enqueued(self, task: BaseTask[..., Any] | str, /, **args: Any) -> None:
        """Fail if a job of `task` with these arguments was enqueued."""
        __tracebackhide__ = True
        if found := self.enqueued(task, **args):
            raise AssertionError(f"job {found[0].id} of task {found[0].task!r} was enqueued: {found[0].state}")

    def fetch_status(self, job_id: int) -> JobStatus | None:
        job = self._find(job_id)
        return None if job is None else JobStatus(state=job.state, result=job.result_json, error=job.error)

    async def fetch_status_async(self, job_id: int) -> JobStatus | None:
        return self.fetch_status(job_id)

    def report(self, job_id: int) -> JobReport | None:
        job = self._find(job_id)
        if job is None:
            return None
        due_in = 0.0 if job.state == "ready" else None
        return JobReport(
            state=job.state,
            attempt=job.attempt,
            max_attempts=job.options.max_attempts,
            due_in=due_in,
            progress=job.progress,
            error=job.error,
        )

    async def report_async(self, job_id: int) -> JobReport | None:
        return self.report(job_id)

    def cancel_job(self, job_id: int, reason: str | None) -> bool | None:
        job = self._find(job_id)
        if job is None:
            return None
        if job.state != "ready":
            return False
        job.state, job.error = "cancelled", f"cancelled by the test{f': {reason}' if reason else ''}"
        return True

    async def cancel_job_async(self, job_id: int, reason: str | None) -> bool | None:
        return self.cancel_job(job_id, reason)

    def _find(self, job_id: int) -> EagerJob | None:
        return self.jobs[job_id - 1] if 0 < job_id <= len(self.jobs) else None
