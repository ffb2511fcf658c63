"""The dispatcher's side of a runner, whatever befalls its process."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from uuid import uuid4

import pytest

from jobq.config import Settings
from jobq.worker.children import Child
from jobq.worker.frames import Job
from jobq.worker.spec import Spec


def _descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def _child(on_exit: Callable[[Child, int], None]) -> Child:
    spec = Spec(
        app="tests.support.apps:q",
        socket_fd=-1,
        slots_fd=-1,
        concurrency=1,
        max_result_bytes=1000,
        max_error_bytes=1000,
        settings=Settings(),
        log_format="text",
        log_level="INFO",
    )
    return Child(spec, on_message=lambda *_: None, on_exit=on_exit)


def _job(job_id: int) -> Job:
    return Job(job_id, 1, "noop", "default", b"{}", 1, 1, 0, None, b"{}")


@pytest.mark.parametrize("fault", [RuntimeError("can't start new thread"), OSError("no processes left")])
async def test_a_runner_that_cannot_be_started_ends(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """Its jobs are judged at its end: they would wait for it for ever, and a worker that stops would wait for them."""

    async def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)
    ended: list[int] = []
    before = _descriptors()
    child = _child(lambda _, status: ended.append(status))
    child.open()
    child.send([_job(1)], uuid4(), 0.0)
    async with asyncio.timeout(10):
        await child.closed()
    assert ended == [71]
    assert child.killed_for == "it could not be started"
    assert _descriptors() == before


async def test_what_came_after_a_recall_is_recalled_as_well() -> None:
    """A worker that stops takes back everything, though the runner was being asked for some of it already."""
    child = _child(lambda *_: None)
    child.send([_job(1), _job(2)], uuid4(), 0.0)
    child.revoke(10.0)
    child.send([_job(3)], uuid4(), 10.01)
    child.revoke(10.02)
    assert child.revoked(10.06) == []
    assert [job.id for job in child.revoked(10.08)] == [1, 2, 3]
    assert child.jobs == {}
    await child.closed()
