"""``jobq steps check``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from jobq.cli import output
from jobq.cli.exits import Exit
from jobq.cli.options import app_option, database_options, json_option
from jobq.cli.session import current

if TYPE_CHECKING:
    import psycopg

    from jobq.app import JobQ
    from jobq.steps.check import Replayed

# Jobs read at a time.
_MOST = 500


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

    session = current()
    loaded = load(app)
    with session.connect() as connection:
        found = list(_replayed(connection, session.schema, loaded))
    bad = [each for each in found if not each.is_good]
    if as_json:
        output.print_json({"checked": len(found), "changed": bad})
    else:
        for each in bad:
            click.echo(f"job {each.job_id}, task {each.task}: {each.message}")
            if each.step is not None:
                click.echo(f"  step {each.step!r} is stored with {each.stored}\n  the code calls it with {each.given}")
        click.echo(f"{len(found)} durable jobs checked, {len(bad)} of them do not fit the code")
    click.get_current_context().exit(Exit.NOT_DONE if bad else Exit.OK)


def _replayed(connection: psycopg.Connection[object], schema: str, app: JobQ) -> Iterator[Replayed]:
    from psycopg.rows import tuple_row

    from jobq._postgres.statements import fetch
    from jobq.steps.check import replay
    from jobq.steps.rows import loaded

    after: int | None = -1
    while after is not None:
        first, *jobs = fetch(connection, schema, "steps_unfinished", {"after": after, "most": _MOST})
        after = first["next_after"]
        jobs = [job for job in jobs if job["task"] in app.tasks and app.tasks[job["task"]].durable]
        rows = fetch(connection, schema, "steps_load", {"ids": [job["id"] for job in jobs]}, tuple_row)
        kept = loaded(rows)
        for job in jobs:
            yield replay(app.tasks[job["task"]], job, kept.get(job["id"], []))
