"""What a change of a run has done, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from jobq.cli import output

if TYPE_CHECKING:
    from jobq.operations import RunChange
    from jobq.queries import WorkflowInfo

# Reasons of refusals that are printed.
_LINES = 20


def tell(verb: str, run: WorkflowInfo, done: RunChange) -> None:
    """Print what `cancel`, `retry` or `undo` has done to the run as it was before."""
    id = run.id
    if not done.done:
        if done.refused:
            why = "cannot be undone" if verb == "undo" else "cannot be retried like this now"
        elif verb == "cancel":
            why = "has ended already"
        elif run.state == "succeeded":
            why = "has succeeded"
        else:
            why = "is being cancelled: retry it when its last job has ended"
        output.note(f"run {id} {why}; nothing was changed")
    elif verb == "cancel":
        click.echo(f"run {id} is cancelled: {output.plural(done.jobs, 'job')} cancelled or asked to stop")
    elif verb == "undo":
        click.echo(f"run {id} is being undone by run {done.undo_run}")
    elif done.nodes:
        click.echo(f"run {id} goes on: {output.plural(done.nodes, 'node')} to run again")
    else:
        click.echo(f"run {id} goes on: {output.plural(done.jobs, 'job')} put back")
    for why_not in done.refused[:_LINES]:
        output.note(output.line(why_not))
    if len(done.refused) > _LINES:
        output.note(f"and {len(done.refused) - _LINES:,} more")
