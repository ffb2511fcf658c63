"""``jobq config``."""

from __future__ import annotations

import click

from jobq.cli import output
from jobq.cli.options import database_options, json_option
from jobq.cli.session import current


@click.command(short_help="Show every setting, its value and where it came from.")
@database_options
@json_option
def config(as_json: bool) -> None:
    """Show every setting, its value and where it came from: an argument, a variable or the default.

    Passwords are hidden.
    """
    from dataclasses import fields

    from jobq.config import Settings, redact_url

    session = current()
    origins = Settings.origins(**session.overrides)
    session.settings  # noqa: B018 - raises for a value that cannot be used
    rows = []
    for spec in fields(Settings):
        value, origin = origins[spec.name]
        shown = redact_url(value) if spec.name == "database_url" and value else value
        rows.append({"name": spec.name, "value": shown, "origin": origin, "doc": spec.metadata["doc"]})
    if as_json:
        output.print_json(rows)
        return
    for row in rows:
        value = "(none)" if row["value"] is None else row["value"]
        click.echo(f"{row['name']} = {value}   ({row['origin']})")
        click.echo(click.wrap_text(str(row["doc"]), width=100, initial_indent="    ", subsequent_indent="    "))
