"""A runner whose dispatcher hangs up while the application starts: the worker stops before it has begun."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from jobq._worker.runners.process import RunnerProcess
from tests.support.specs import spec
from tests.support.waiting import wait_until_async


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
@pytest.mark.parametrize(
    ("place", "expected"),
    [("resource", ["opens", "waits at resource", "closes", "stops"]), ("worker", ["waits at worker", "stops"])],
)
async def test_what_was_opened_is_closed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, expected: list[str], fails: bool
) -> None:
    monkeypatch.setenv("SLOW_START", str(tmp_path))
    (tmp_path / place).touch()
    if fails:
        (tmp_path / "fail").touch()
    notes, ended = tmp_path / "notes", list[int]()
    config = msgspec.structs.replace(spec(), app="tests.worker.runner.slow_start:q", starts_worker=True)
    runner = RunnerProcess(config, on_message=lambda *_: None, on_exit=lambda _, status: ended.append(status))
    runner.open()
    async with asyncio.timeout(30):
        await wait_until_async(lambda: notes.exists() and f"waits at {place}" in notes.read_text(), what="the start")
        runner.dismiss("the worker stops")
        # The socket is closed in the next turn of the loop. Before, the runner could still report.
        for _ in range(3):
            await asyncio.sleep(0)
        (tmp_path / "go").touch()
        await runner.closed()
    assert notes.read_text().splitlines() == expected
    assert ended == [os.EX_OK]
