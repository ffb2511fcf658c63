"""``jobq steps check``."""

from __future__ import annotations

import click

from jobq.cli import output
from jobq.cli.exits import Exit
from jobq.cli.options import app_option, database_options, json_option
from jobq.cli.session import current


@click.group(short_help="Check the stored steps of durable jobs against the code.")
def steps() -> None:
    """Check the stored steps of durable jobs against the code."""


@steps.command()
@database_options
@app_option(required=True)
@json_option
def check(*, app: str, as_json: bool) -> None:
    """Replay the steps of unfinished durable jobs against the present code, before it is deployed.

    Each job's task is called with its stored steps, up to the first step that is not done. No step
    is run, and nothing is written; the code between steps runs. Exits with 1 if a job's steps do not
    fit the code: that job would fail with StepChanged.
    """
    from jobq.app import load
    from jobq.queries.steps import unfinished
    from jobq.steps.check import replay

    session = current()
    tasks = {name: task for name, task in load(app).tasks.items() if task.durable}
    with session.connect() as connection:
        found = [replay(tasks[job["task"]], job, kept) for job, kept in unfinished(connection, session.schema, tasks)]
    bad = [each for each in found if not each.is_good]
    if as_json:
        output.print_json({"checked": len(found), "changed": bad})
    else:
        for each in bad:
            click.echo(output.line(f"job {each.job_id}, task {each.task}: {each.message}"))
            if each.step is not None:
                click.echo(output.line(f"  step {each.step!r} is stored with {each.stored}"))
                click.echo(output.line(f"  the code calls it with {each.given}"))
        misfits = f"{len(bad):,} {'does' if len(bad) == 1 else 'do'} not fit the code"
        click.echo(f"{output.plural(len(found), 'durable job')} checked, {misfits}")
    click.get_current_context().exit(Exit.NOT_DONE if bad else Exit.OK)
