"""``jobq stats`` and ``jobq metrics``: counts and rates, for people and for Prometheus."""

from __future__ import annotations

import click

from jobq.cli import output
from jobq.cli.options import database_options, json_option
from jobq.cli.session import current


@click.command(short_help="Show the number of jobs and the throughput.")
@database_options
@json_option
def stats(*, as_json: bool) -> None:
    """Show the number of jobs and the throughput."""
    from jobq import queries

    session = current()
    with session.connect() as connection:
        found = queries.stats(connection, session.schema)
    if as_json:
        output.print_json(found)
        return
    span = "last hour" if found.finished_since is None else f"since {output.safe(found.finished_since)}"
    output.print_fields(
        {
            **{state: output.count(number) for state, number in found.counts.items()},
            "due": output.count(found.due),
            "oldest due": output.duration(found.oldest_ready_seconds) or "none",
            "workers": f"{found.workers_alive:,} with {output.plural(found.slots, 'slot')}",
            f"finished, {span}": f"{found.finished_last_hour:,} ({found.failed_last_hour:,} failed)",
        }
    )
    if found.queues:
        click.echo()
        output.print_table(
            ("queue", "due", "running", "oldest due"),
            (
                (
                    queue.name + (" (paused)" if queue.paused_at else ""),
                    output.count(queue.due, queue.counted_to),
                    output.count(queue.running),
                    output.duration(queue.oldest_ready_seconds),
                )
                for queue in found.queues
            ),
            empty="no queues",
            right=("due", "running", "oldest due"),
        )


@click.command(short_help="Print metrics of all queues for Prometheus.")
@database_options
def metrics() -> None:
    """Print metrics of all queues, the workers, failed jobs, and findings, in Prometheus' text
    format.

    The metrics describe the whole database and need no worker, for example for node_exporter's
    textfile collector. `jobq web` serves the same at /metrics. Exits with 69 without a database.
    """
    from jobq.diagnostics.metrics import read

    session = current()
    with session.connect(autocommit=True) as connection:
        click.echo(read(connection, session.schema), nl=False)
