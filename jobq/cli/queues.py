"""``jobq queues list|pause|resume``."""

from __future__ import annotations

import click

from jobq.cli import output
from jobq.cli.options import database_options, json_option, reason_option
from jobq.cli.session import actor, current


@click.group(short_help="List, pause and resume queues.")
def queues() -> None:
    """List, pause and resume queues."""


@queues.command("list")
@database_options
@json_option
def list_(*, as_json: bool) -> None:
    """List the queues with what waits in them."""
    from jobq import queries

    session = current()
    with session.connect() as connection:
        found = queries.queues(connection, session.schema)
    if as_json:
        output.print_json({"queues": found, "count_limit": queries.COUNT_LIMIT})
        return
    output.print_table(
        ("queue", "ready", "scheduled", "running", "failed", "oldest ready", "paused"),
        (
            (
                queue.name,
                output.count(queue.ready, queue.counted_to),
                output.count(queue.scheduled, queue.counted_to),
                output.count(queue.running),
                output.count(queue.failed),
                output.duration(queue.oldest_ready_seconds),
                _by(queue.paused_by, queue.pause_reason) if queue.paused_at else "",
            )
            for queue in found
        ),
        empty="no queues",
        right=("ready", "scheduled", "running", "failed", "oldest ready"),
    )


def _by(by: str | None, reason: str | None) -> str:
    return f"by {by or 'somebody'}" + (f": {output.one_line(reason, 40)}" if reason else "")


@queues.command()
@click.argument("queue")
@database_options
@reason_option
@json_option
def pause(*, queue: str, reason: str | None, as_json: bool) -> None:
    """Stop starting jobs of QUEUE; running ones go on."""
    from jobq import operations

    session = current()
    with session.connect() as connection:
        changed = operations.pause(connection, session.schema, queue, actor=actor(), reason=reason)
    _tell(queue, paused=True, changed=changed, as_json=as_json)


@queues.command()
@click.argument("queue")
@database_options
@reason_option
@json_option
def resume(*, queue: str, reason: str | None, as_json: bool) -> None:
    """Start jobs of QUEUE again."""
    from jobq import operations

    session = current()
    with session.connect() as connection:
        changed = operations.resume(connection, session.schema, queue, actor=actor(), reason=reason)
    _tell(queue, paused=False, changed=changed, as_json=as_json)


def _tell(queue: str, *, paused: bool, changed: bool, as_json: bool) -> None:
    if as_json:
        output.print_json({"queue": queue, "paused": paused, "changed": changed})
    else:
        what = "paused" if paused else "open"
        click.echo(output.safe(f"queue {queue} is {what}" + ("" if changed else ", as it was before")))
