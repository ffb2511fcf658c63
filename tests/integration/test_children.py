"""The dispatcher's side of a runner, whatever befalls its process."""

from __future__ import annotations

import asyncio
import gc
import os
from uuid import uuid4

import pytest

from jobq.config import Settings
from jobq.worker.children import Child
from jobq.worker.frames import Job
from jobq.worker.spec import Spec


def _descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("fault", [RuntimeError("can't start new thread"), OSError("no processes left")])
async def test_a_runner_that_cannot_be_started_ends(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """Its jobs are judged at its end: they would wait for it for ever, and a worker that stops would wait for them."""

    async def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)
    ended: list[int] = []
    before = _descriptors()
    child = Child(
        Spec(
            app="tests.support.apps:q",
            socket_fd=-1,
            slots_fd=-1,
            concurrency=1,
            max_result_bytes=1000,
            max_error_bytes=1000,
            settings=Settings(),
            log_format="text",
            log_level="INFO",
        ),
        on_message=lambda *_: None,
        on_exit=lambda _, status: ended.append(status),
    )
    child.open()
    child.send([Job(1, 1, "noop", "default", b"{}", 1, 1, 0, None, b"{}")], uuid4(), 0.0)
    async with asyncio.timeout(10):
        await child.closed()
    assert ended == [71]
    assert child.killed_for == "it could not be started"
    assert _descriptors() == before
