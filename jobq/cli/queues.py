"""``jobq queues list|show|set|pause|resume``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from jobq.cli import output
from jobq.cli.options import database_options, json_option, reason_option
from jobq.cli.session import actor, current

if TYPE_CHECKING:
    from jobq.limits import QueueSettings, Rate
    from jobq.queries import Groups, QueueDetail, QueueInfo


@click.group(short_help="List, show, limit, pause and resume queues.")
def queues() -> None:
    """List, show, limit, pause and resume queues."""


@queues.command("list")
@database_options
@json_option
def list_(*, as_json: bool) -> None:
    """List the queues with the number of their jobs."""
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
    # Most queues have no settings; omit empty columns.
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
    """Start no more jobs of QUEUE; running jobs continue."""
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
        click.echo(output.line(f"queue {queue} is {what}" + ("" if changed else " (unchanged)")))


@queues.command("set", short_help="Set a queue's limit, rate and group rule.")
@click.argument("queue")
@database_options
@click.option(
    "--limit", metavar="N|none", show_envvar=True, help="Most concurrent jobs over all workers (default: unchanged)."
)
@click.option(
    "--rate",
    metavar="RATE|none",
    show_envvar=True,
    help="Most starts per time over all workers: 50/s, 5/10s, 100/min, 3/day (default: unchanged).",
)
@click.option("--burst", metavar="N", show_envvar=True, help="Most starts at once after an idle time.  [default: 1]")
@click.option(
    "--groups",
    metavar="RULE|none",
    show_envvar=True,
    help="How groups run: ordered, ordered:pass, limited:N, fair, fair:N (default: unchanged).",
)
@click.option(
    "--group-rate",
    metavar="RATE|none",
    show_envvar=True,
    help="Most starts of each group per time (default: unchanged).",
)
@click.option("--group-burst", metavar="N", show_envvar=True, help="Like --burst, for each group.  [default: 1]")
@click.option(
    "--group", metavar="KEY", show_envvar=True, help="Set --limit for this group only (default: for the queue)."
)
@reason_option
@json_option
def set_(*, queue: str, group: str | None, reason: str | None, as_json: bool, **given: str | None) -> None:
    """Set the given options of QUEUE, which need not exist yet. The others stay; `none` removes a
    setting.

    Workers apply changes within a heartbeat. If a new limit is below the number of running jobs,
    those finish, and no others start until then.
    """
    values = _values(given)
    if not values:
        raise click.UsageError("nothing to set: pass --limit, --rate, --burst, --groups, --group-rate or --group-burst")
    if group is not None:
        if set(values) != {"limit"}:
            raise click.UsageError("--group supports only --limit: pass no other setting")
        _set_group(queue, group, values["limit"], reason, as_json)
        return
    from jobq import operations

    session = current()
    with session.connect() as connection:
        change = operations.configure(connection, session.schema, queue, actor=actor(), reason=reason, **values)
    if as_json:
        output.print_json(change)
        return
    as_before = "" if change.changed else " (unchanged)"
    click.echo(output.line(f"queue {queue}: {change.after.describe()}{as_before}"))


def _set_group(queue: str, group: str, limit: int | None, reason: str | None, as_json: bool) -> None:
    from jobq import operations

    session = current()
    with session.connect() as connection:
        changed = operations.configure_group(
            connection, session.schema, queue, group, limit=limit, actor=actor(), reason=reason
        )
    if as_json:
        output.print_json({"queue": queue, "group": group, "limit": limit, "changed": changed})
        return
    what = "the limit of the queue's rule" if limit is None else f"at most {output.plural(limit, 'job')} at a time"
    click.echo(output.line(f"group {group} of queue {queue}: {what}" + ("" if changed else " (unchanged)")))


def _values(given: dict[str, str | None]) -> dict[str, Any]:
    """Return the given settings: numbers parsed, and None for `none`."""
    values: dict[str, Any] = {}
    for name, text in given.items():
        if text is None:
            continue
        if text.strip().lower() == "none" and not name.endswith("burst"):
            values[name] = None
        elif name in ("limit", "burst", "group_burst"):
            values[name] = _whole(f"--{name.replace('_', '-')}", text)
        else:
            values[name] = text
    return values


def _whole(option: str, text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.removeprefix("-").isdigit() and len(digits) <= 20):
        clears = " or none" if option == "--limit" else ""
        raise click.UsageError(f"{option} {text[:50]!r}: expected a whole number of 1 or more{clears}")
    return int(digits)


@queues.command(short_help="Show a queue's settings and numbers.")
@click.argument("queue")
@database_options
@json_option
def show(*, queue: str, as_json: bool) -> None:
    """Show the settings of QUEUE in words, its numbers, and its groups."""
    from jobq import queries
    from jobq.errors import UnknownQueue

    session = current()
    with session.connect() as connection:
        found = queries.queue(connection, session.schema, queue)
    if not found.known:
        raise UnknownQueue(f"queue {queue!r}: no job, worker or setting has this name; see `jobq queues list`")
    if as_json:
        output.print_json(found)
        return
    _print(found)


def _print(found: QueueDetail) -> None:
    info, settings = found.info, found.info.settings
    paused = None
    if info.paused_at is not None:
        why = f": {output.one_line(info.pause_reason, 60)}" if info.pause_reason else ""
        paused = f"since {output.safe(info.paused_at)} by {info.paused_by or 'an unknown actor'}{why}"
    running = output.count(info.running)
    if settings.limit is not None:
        running += f" of {settings.limit:,}"
    lines: dict[str, object] = {
        "queue": info.name,
        "settings": settings.describe(),
        "changed": settings.changed_at,
        "paused": paused,
        "running": running,
        "ready": output.count(info.ready),
        "scheduled": output.count(info.scheduled),
        "waiting": f"{output.count(info.waiting)} for their group" if info.waiting else None,
        "failed": output.count(info.failed),
        "due": output.count(info.due),
        "oldest due": output.duration(info.oldest_ready_seconds),
        "workers": len(found.workers),
    }
    if found.groups is not None:
        lines |= _group_lines(found.groups)
    output.print_fields({name: value for name, value in lines.items() if value not in (None, "")})
    if found.groups is not None:
        _print_groups(found.groups, settings)


def _group_lines(groups: Groups) -> dict[str, object]:
    due = f", {groups.turns_due:,} of them due" if groups.turns else ""
    oldest = groups.oldest_turn_seconds
    looked_at = f", only the first {groups.bound:,} by name examined" if groups.number > groups.bound else ""
    return {
        "groups": f"{output.count(groups.number, groups.bound)} with waiting jobs{looked_at}",
        "turns": f"{output.count(groups.turns)}{due}"
        + (f", the first for {output.duration(oldest)}" if oldest else ""),
    }


def _print_groups(groups: Groups, settings: QueueSettings) -> None:
    rule = settings.groups
    if groups.largest:
        click.echo()
        output.print_table(
            ("group", "waiting", "running", "limit"),
            (
                (
                    group.key,
                    output.count(group.waiting, groups.counted_to),
                    group.running,
                    group.limit if rule is None else rule.limit_of(group.limit),
                )
                for group in groups.largest
            ),
            empty="no groups",
            right=("waiting", "running", "limit"),
        )
    if groups.limits:
        own = ", ".join(f"{one.key}: {one.limit:,}" for one in groups.limits)
        click.echo("\n" + output.line(f"limits of individual groups: {own}{'' if groups.limits_complete else ', …'}"))
