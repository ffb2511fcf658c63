"""Functions for the start of a worker that take long: who is held to the import timeout, and who waits for them."""

from __future__ import annotations

import pytest

from jobq._worker.ipc.messages import RunnerReady
from tests.support.runners import Stage


async def test_runners_that_wait_for_the_start_of_the_worker_are_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have imported the application; only the runner that calls the functions is still importing it."""
    on = Stage(monkeypatch, processes=2, import_timeout=10.0)
    on.pool.supervise(0.0)
    await on.turn()
    starter, waits = on.started
    waits.table.beat(on.clock.now, 0.0)
    on.pool._on_message(waits, RunnerReady([]))
    await on.pass_time(11.5)
    assert starter.killed_for is not None
    assert "had not imported the application after 10 s" in starter.killed_for
    assert (waits.killed_for, waits.ready) == (None, False)
    on.exits(starter, -9)
    # The next one calls them, after a pause.
    await on.pass_time(8.0)
    *_, again = on.started
    assert again not in (starter, waits)
    assert waits.killed_for is None
    assert on.pool.unready is not None
    on.imports(again)
    await on.pass_time(0.2)
    assert waits.ready
    assert again.ready
    await on.close()
