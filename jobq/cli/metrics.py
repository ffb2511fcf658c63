"""``jobq metrics``."""

from __future__ import annotations

import click

from jobq.cli.options import database_options
from jobq.cli.session import current


@click.command(short_help="Print numbers about all queues for Prometheus.")
@database_options
def metrics() -> None:
    """Print numbers about all queues, the workers, dead letters, and findings, in Prometheus' text format.

    They are of the whole database, and are there when no worker is: for node_exporter's textfile collector, or a look.
    `jobq web` serves the same at /metrics. Exits with 69 without a database.
    """
    from jobq.diagnostics.metrics import read

    session = current()
    with session.connect(autocommit=True) as connection:
        click.echo(read(connection, session.schema), nl=False)
