"""``jobq queues list|pause|resume``; what limits them is in `queue_settings.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from jobq.cli import output
from jobq.cli.options import database_options, json_option, reason_option
from jobq.cli.queue_settings import set_, show
from jobq.cli.session import actor, current

if TYPE_CHECKING:
    from jobq.flow import QueueSettings, Rate
    from jobq.queries import QueueInfo


@click.group(short_help="List, show, limit, pause and resume queues.")
def queues() -> None:
    """List, show, limit, pause and resume queues."""


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
    columns: dict[str, Callable[[QueueInfo], object]] = {
        "queue": lambda queue: queue.name,
        "ready": lambda queue: output.count(queue.ready, queue.counted_to),
        "scheduled": lambda queue: output.count(queue.scheduled, queue.counted_to),
        "waiting": lambda queue: output.count(queue.waiting, queue.counted_to),
        "parked": lambda queue: output.count(queue.parked),
        "running": lambda queue: output.count(queue.running),
        "failed": lambda queue: output.count(queue.failed),
        "oldest due": lambda queue: output.duration(queue.oldest_ready_seconds),
        "limit": lambda queue: queue.settings.limit,
        "rate": lambda queue: _rate(queue.settings.rate),
        "groups": lambda queue: _groups(queue.settings),
        "paused": lambda queue: _by(queue.paused_by, queue.pause_reason) if queue.paused_at else "",
    }
    used = {
        "waiting": any(queue.waiting for queue in found),
        "parked": any(queue.parked for queue in found),
        "limit": any(queue.settings.limit for queue in found),
        "rate": any(queue.settings.rate for queue in found),
        "groups": any(queue.settings.groups for queue in found),
    }
    # Most queues are left as they are: a column of nothing would only take room.
    shown = [name for name in columns if used.get(name, True)]
    output.print_table(
        shown,
        ([columns[name](queue) for name in shown] for queue in found),
        empty="no queues",
        right=("ready", "scheduled", "waiting", "parked", "running", "failed", "oldest due", "limit"),
    )


def _rate(rate: Rate | None) -> str:
    return "" if rate is None else f"{rate}" + (f", burst {rate.burst:,}" if rate.burst > 1 else "")


def _groups(settings: QueueSettings) -> str:
    if settings.groups is None:
        return ""
    return f"{settings.groups}" + (f", {_rate(settings.group_rate)} each" if settings.group_rate else "")


def _by(by: str | None, reason: str | None) -> str:
    return f"by {by or 'an unknown actor'}" + (f": {output.one_line(reason, 40)}" if reason else "")


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
        click.echo(output.line(f"queue {queue} is {what}" + ("" if changed else ", as it was before")))


for _command in (set_, show):
    queues.add_command(_command)
