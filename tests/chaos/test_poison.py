"""Jobs that take their runner down, or never let it go: each ends, counted, and the innocent beside them all succeed."""

from __future__ import annotations

from functools import cache

import pytest

from tests.chaos.scene.harness import Arena
from tests.chaos.scene.history import Limits
from tests.support.checks import some


@cache
@pytest.mark.parametrize(
    ("step", "crashes", "timeout", "reason"),
    [
        pytest.param("exit", 3, None, "ended with status 3 while it ran, 3 times now", id="exit"),
        pytest.param("segfault", 3, None, "killed by SIGSEGV while it ran, 3 times now", id="segfault"),
        pytest.param("hang", 0, 1.0, "timed out after 1 s", id="endless_c_call"),
        pytest.param("spin", 0, 1.0, "timed out after 1 s", id="gil_held_by_a_loop"),
        pytest.param("nul", 0, None, r"a NUL \x00", id="nul"),
        pytest.param("big:60000000", 0, None, "60000002 bytes as JSON", id="result_of_60_mb"),
    ],
)
def test_poison(arena: Arena, step: str, crashes: int, timeout: float | None, reason: str) -> None:
    """Poison among the innocent, on one runner that they all share."""
    arena.start_worker("--processes", "1")
    arena.produce(arena.size(100), 20 if arena.long else 3)
    poison = arena.place("poison", [[step]] * (4 if arena.long else 2), max_attempts=2, timeout=timeout)
    arena.finish(timeout=90, limits=Limits(max_losses=0))
    rows = {row.id: row for row in arena.final().finished}
    # A result that cannot be stored is no failure: the work is done.
    state = "succeeded" if step.startswith("big") else "failed"
    assert {(rows[job].state, rows[job].crashes) for job in poison} == {(state, crashes)}
    with arena.connect() as connection:
        errors = connection.execute("SELECT error FROM jobq.job_history WHERE id = ANY(%s)", (poison,)).fetchall()
    assert all(reason in row["error"] for row in some(errors)), errors
    assert {row.state for row in rows.values() if row.id not in poison} == {"succeeded"}


def test_memory_bomb(arena: Arena) -> None:
    """A job that takes ever more memory loses its runner, and not the machine."""
    arena.start_worker("--processes", "1", "--max-rss-mb", "400")
    arena.produce(arena.size(100), 20 if arena.long else 3)
    (bomb,) = arena.place("bomb", [["grow:2000"]], max_attempts=2, timeout=60)
    # The innocent beside it go back unpunished, or are blamed with it less often than it takes to fail.
    states = arena.finish(timeout=120, limits=Limits(max_losses=0))
    with arena.connect() as connection:
        row = connection.execute("SELECT state, error FROM jobq.job_history WHERE id = %s", (bomb,)).fetchone()
    assert row is not None
    assert row["state"] == "failed", row
    assert states["failed"] == 1
