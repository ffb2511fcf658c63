"""``jobq stats``."""

from __future__ import annotations

import click

from jobq.cli import output
from jobq.cli.options import database_options, json_option
from jobq.cli.session import current


@click.command(short_help="Show how many jobs there are and how fast they go.")
@database_options
@json_option
def stats(*, as_json: bool) -> None:
    """Show how many jobs there are and how fast they go."""
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
            "oldest due": output.duration(found.oldest_ready_seconds) or "none waits",
            "workers": f"{found.workers_alive:,} with {output.plural(found.slots, 'slot')}",
            f"finished, {span}": f"{found.finished_last_hour:,}, of which {found.failed_last_hour:,} failed",
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
