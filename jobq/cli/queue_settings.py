"""``jobq queues set|show``: limits, rates and rules for groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jobq.cli import output
from jobq.cli.options import database_options, json_option, reason_option
from jobq.cli.session import actor, current

if TYPE_CHECKING:
    from jobq.flow import QueueSettings
    from jobq.queries import Groups, QueueDetail

_NONE = "none"


@click.command("set", short_help="Set a queue's limit, rate and rule for its groups.")
@click.argument("queue")
@database_options
@click.option(
    "--limit", metavar="N|none", show_envvar=True, help="Most of its jobs that run at a time, over all workers."
)
@click.option(
    "--rate",
    metavar="RATE|none",
    show_envvar=True,
    help="Most starts in a time, over all workers: 50/s, 5/10s, 100/min, 3/day.",
)
@click.option(
    "--burst", metavar="N", show_envvar=True, help="How many may start at once after a quiet time.  [default: 1]"
)
@click.option(
    "--groups",
    metavar="RULE|none",
    show_envvar=True,
    help="How groups run: ordered, ordered:pass, limited:N, fair, fair:N.",
)
@click.option("--group-rate", metavar="RATE|none", show_envvar=True, help="Most starts of each group in a time.")
@click.option("--group-burst", metavar="N", show_envvar=True, help="As --burst, of each group.  [default: 1]")
@click.option("--group", metavar="KEY", show_envvar=True, help="Set --limit for this group alone.")
@reason_option
@json_option
def set_(*, queue: str, group: str | None, reason: str | None, as_json: bool, **given: str | None) -> None:
    """Set what is given for QUEUE, which need not exist yet; the rest stays, and `none` clears.

    Workers follow within a heartbeat. A limit lowered below what is running lets those finish and admits none.
    """
    values = _values(given)
    if not values:
        raise click.UsageError("nothing to set: give --limit, --rate, --burst, --groups, --group-rate or --group-burst")
    if group is not None:
        if set(values) != {"limit"}:
            raise click.UsageError("--group: of one group only the --limit can be set; give that, and no other option")
        _set_group(queue, group, values["limit"], reason, as_json)
        return
    from jobq import operations

    session = current()
    with session.connect() as connection:
        change = operations.configure(connection, session.schema, queue, actor=actor(), reason=reason, **values)
    if as_json:
        output.print_json(change)
        return
    as_before = "" if change.changed else " As it was before."
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
    what = "as the queue's rule says" if limit is None else f"at most {output.plural(limit, 'job')} at a time"
    click.echo(output.line(f"group {group} of queue {queue}: {what}" + ("" if changed else ", as it was before")))


def _values(given: dict[str, str | None]) -> dict[str, Any]:
    """Return what was given: numbers as such, and None for `none`; what is left away is not there."""
    values: dict[str, Any] = {}
    for name, text in given.items():
        if text is None:
            continue
        if text.strip().lower() == _NONE and not name.endswith("burst"):
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
        raise click.UsageError(f"{option} {text[:50]!r}: give a whole number of 1 or more{clears}")
    return int(digits)


@click.command(short_help="Show what is set for a queue, and how it stands.")
@click.argument("queue")
@database_options
@json_option
def show(*, queue: str, as_json: bool) -> None:
    """Show what is set for QUEUE in words, what runs against its limit, and its groups."""
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
        "set": settings.describe(),
        "changed": settings.changed_at,
        "paused": paused,
        "running": running,
        "ready": output.count(info.ready),
        "scheduled": output.count(info.scheduled),
        "waiting": f"{output.count(info.waiting)} for their group's turn" if info.waiting else None,
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
    looked_at = f", the first {groups.bound:,} by name looked at" if groups.number > groups.bound else ""
    return {
        "groups": f"{output.count(groups.number, groups.bound)} with waiting jobs{looked_at}",
        "turns": f"{output.count(groups.turns)}{due}"
        + (f", the first for {output.duration(oldest)}" if oldest else ""),
    }


def _print_groups(groups: Groups, settings: QueueSettings) -> None:
    rule = settings.groups
    general = None if rule is None else 1 if rule.mode == "ordered" else rule.limit
    if groups.largest:
        click.echo()
        output.print_table(
            ("group", "waiting", "running", "limit"),
            (
                (
                    group.key,
                    output.count(group.waiting, groups.counted_to),
                    group.running,
                    group.limit if group.limit is not None else general,
                )
                for group in groups.largest
            ),
            empty="no groups",
            right=("waiting", "running", "limit"),
        )
    if groups.limits:
        own = ", ".join(f"{one.key}: {one.limit:,}" for one in groups.limits)
        click.echo("\n" + output.line(f"limits of single groups: {own}{'' if groups.limits_complete else ', …'}"))
