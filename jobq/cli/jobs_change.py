"""``jobq jobs retry|cancel|snooze|move|delete``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import click

from jobq.cli.options import (
    database_options,
    json_option,
    name_options,
    parse_duration,
    reason_option,
    where_option,
    yes_option,
)

F = TypeVar("F", bound=Callable[..., Any])

_ID = click.IntRange(0, 2**63 - 1)
# As in jobq.operations, which `jobq --help` need not import; a test holds them to that.
_RETRYABLE = ("failed", "cancelled", "expired", "scheduled", "parked")
_LIVE = ("ready", "scheduled", "running", "parked", "waiting")
_SNOOZABLE = ("ready", "scheduled", "parked", "waiting")
_MOVABLE = ("ready", "scheduled", "parked", "waiting")
_DELETABLE = ("succeeded", "failed", "cancelled", "expired", "ready", "scheduled", "parked", "waiting")


def _selects(states: tuple[str, ...], default: str) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in (
            json_option,
            yes_option,
            click.option("--dry-run", is_flag=True, show_envvar=True, help="Only tell what it would touch."),
            reason_option,
            click.option("--limit", type=click.IntRange(1), show_envvar=True, help="At most this many jobs."),
            where_option,
            name_options,
            click.option(
                "--state",
                "states",
                type=click.Choice(states),
                multiple=True,
                show_envvar=True,
                help=f"Only jobs in this state; may be repeated (default: {default}).",
            ),
            database_options,
            click.argument("ids", type=_ID, nargs=-1),
        ):
            function = option(function)
        return function

    return decorate


def _change(
    verb: str,
    done_verb: str,
    given: dict[str, Any],
    *,
    states: tuple[str, ...],
    default: tuple[str, ...],
    always_ask: bool = False,
    **options: Any,
) -> None:
    from jobq import operations
    from jobq.cli.bulk import Selection, change

    how = {name: given.pop(name) for name in ("reason", "yes", "dry_run", "as_json")}
    change(
        Selection(**given),
        verb=verb,
        done_verb=done_verb,
        states=states,
        default_states=default,
        operation=partial(getattr(operations, verb), **options),
        always_ask=always_ask,
        **how,
    )


@click.command()
@_selects(_RETRYABLE, "failed")
def retry(**given: Any) -> None:
    """Run finished jobs again (same id, attempts counted from zero), and waiting ones at once.

    Give ids, or select by --state, --queue, --task and --where: then it tells what it would touch, and asks.
    """
    _change("retry", "retried", given, states=_RETRYABLE, default=("failed",))


@click.command()
@_selects(_LIVE, "every live job")
def cancel(**given: Any) -> None:
    """Cancel jobs: those that wait end at once, those that run are asked to stop.

    Give ids, or select by --state, --queue, --task and --where: then it tells what it would touch, and asks.
    """
    _change("cancel", "cancelled", given, states=_LIVE, default=_LIVE)


@click.command()
@_selects(_SNOOZABLE, "both")
@click.option("--until", metavar="TIME", show_envvar=True, help="When, as 2030-01-31T08:00; without a zone it is UTC.")
@click.option(
    "--for",
    "seconds",
    metavar="DURATION",
    callback=parse_duration,
    show_envvar=True,
    help="For how long, as in 15m or 2h.",
)
def snooze(*, seconds: float | None, until: str | None, **given: Any) -> None:
    """Let jobs that wait start later. No attempt is counted.

    Give --for or --until; and ids, or select by --state, --queue, --task and --where: then it tells what it would touch, and
    asks.
    """
    if (seconds is None) == (until is None):
        raise click.UsageError("give --for or --until, one of them")
    at = None
    if until is not None:
        try:
            at = datetime.fromisoformat(until)
        except ValueError:
            raise click.UsageError(f"--until {until!r}: give a time such as 2030-01-31T08:00") from None
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    _change("snooze", "snoozed", given, states=_SNOOZABLE, default=_SNOOZABLE, seconds=seconds, until=at)


@click.command()
@_selects(_MOVABLE, "all of them")
@click.option("--to-priority", type=click.IntRange(0, 9), show_envvar=True, help="The new priority, 0 to 9; 9 first.")
@click.option("--to-queue", metavar="NAME", show_envvar=True, help="The new queue.")
def move(*, to_queue: str | None, to_priority: int | None, **given: Any) -> None:
    """Give jobs that do not run another queue or priority; they are the last ones there.

    Give --to-queue, --to-priority or both; and ids, or select by --state, --queue, --task and --where: then it tells what it
    would touch, and asks.
    """
    if to_queue is None and to_priority is None:
        raise click.UsageError("give --to-queue or --to-priority")
    _change("move", "moved", given, states=_MOVABLE, default=_MOVABLE, queue=to_queue, priority=to_priority)


@click.command()
@_selects(_DELETABLE, "none; give one")
def delete(**given: Any) -> None:
    """Delete jobs that do not run, with their attempts. Nothing brings them back.

    Give ids, or select by --state, --queue, --task and --where, the states included. It always asks.
    """
    _change("delete", "deleted", given, states=_DELETABLE, default=(), always_ask=True)


CHANGES = (retry, cancel, snooze, move, delete)
