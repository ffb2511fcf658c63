"""The states of a job and their groups are listed once; tables, commands, filters and the page use that list."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

import jobq
from jobq import job, operations, queries
from jobq._postgres.tables import metadata
from jobq._postgres.tables.page import OPERATION_ACTIONS
from jobq._postgres.tables.schedules import SCHEDULE_MISSED
from jobq.cli import main
from jobq.errors import InvalidFilter
from jobq.filters import JobFilter
from jobq.schedule import MISSED
from jobq.web.rendering import formatting

ROOT = Path(jobq.__file__).parent


def constraint(table: str, name: str) -> str:
    (found,) = [one for one in metadata().tables[f"jobq.{table}"].constraints if one.name == f"{table}_{name}"]
    return str(found.sqltext)  # type: ignore[attr-defined]


def test_the_lists_fit_together() -> None:
    assert get_args(job.JobState) == job.STORED_STATES + job.FINISHED_STATES
    assert set(job.LIVE_STATES) == {*job.STORED_STATES, "scheduled"} == {*job.IDLE_STATES, "running"}
    assert job.STATES == job.LIVE_STATES + job.FINISHED_STATES
    assert len(set(job.STATES)) == len(job.STATES)
    assert set(job.REDRIVABLE_STATES) == set(job.FINISHED_STATES) - {"succeeded"}
    for name in ("RETRYABLE", "CANCELLABLE", "SNOOZABLE", "MOVABLE", "DELETABLE"):
        states = getattr(operations, f"{name}_STATES")
        assert states is getattr(job, f"{name}_STATES")
        assert set(states) <= set(job.STATES)
    assert queries.STATES is job.STATES
    assert SCHEDULE_MISSED == MISSED


def test_the_tables_take_these_states() -> None:
    assert constraint("job", "state_check") == f"state IN ({', '.join(map(repr, job.STORED_STATES))})"
    for state in job.FINISHED_STATES:
        assert state in metadata().tables["jobq.rollup_queue"].columns
    assert constraint("operation", "action_check") == f"action IN ({', '.join(map(repr, OPERATION_ACTIONS))})"


def choices(command: str) -> list[str]:
    context = click.Context(main)
    group = main.get_command(context, "jobs")
    assert isinstance(group, click.Group)
    (option,) = [one for one in group.commands[command].params if one.name in ("state", "states")]
    assert isinstance(option.type, click.Choice)
    return [str(choice) for choice in option.type.choices]


@pytest.mark.parametrize(
    ("command", "states"),
    [("list", job.STATES), ("retry", job.RETRYABLE_STATES), ("cancel", job.CANCELLABLE_STATES),
     ("snooze", job.SNOOZABLE_STATES), ("move", job.MOVABLE_STATES), ("delete", job.DELETABLE_STATES)],
)  # fmt: skip
def test_commands_offer_the_states_that_they_can_change(command: str, states: tuple[str, ...]) -> None:
    assert set(choices(command)) == set(states)


def test_filters_and_the_page_know_every_state() -> None:
    for state in job.STATES:
        assert JobFilter.parse(f"state:{state}").states == (state,)
    with pytest.raises(InvalidFilter, match=f"give one of {', '.join(job.STATES)}"):
        JobFilter.parse("state:lost")
    assert set(job.STATES) <= formatting.STATES


def test_the_reference_explains_every_state() -> None:
    text = (Path(__file__).parents[2] / "docs/reference.md").read_text(encoding="utf-8")
    section = text.partition("\n## States\n")[2].partition("\n## ")[0]
    assert [
        state for state in job.STATES if not {f"`{state}`", f"*{state}*"} & set(re.findall(r"`\w+`|\*\w+\*", section))
    ] == []


def lists(path: Path) -> Iterator[int]:
    """The lines that list three or more states."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            texts = [one.value if isinstance(one, ast.Constant) else None for one in node.elts]
            if len(texts) >= 3 and all(text in job.STATES for text in texts):
                yield node.lineno


def test_no_other_module_lists_states() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in (ROOT, ROOT / "web")
        for path in folder.rglob("*.py")
        if path != Path(job.__file__) and "migrations" not in path.parts
        for line in lists(path)
    ]
    # Of these, the timeline draws the end. The states of runs are others than those of jobs.
    allowed = ("web/rendering/timeline.py", "workflow/run.py", "_postgres/tables/workflows.py")
    assert [one for one in found if not one.startswith(allowed)] == []
