"""``jobq jobs retry|cancel|snooze|move|delete``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import click

from jobq._core.validation import parse_time
from jobq.cli.options import (
    database_options,
    json_option,
    name_options,
    parse_duration,
    reason_option,
    where_option,
    yes_option,
)
from jobq.job import CANCELLABLE_STATES, DELETABLE_STATES, MOVABLE_STATES, RETRYABLE_STATES, SNOOZABLE_STATES

F = TypeVar("F", bound=Callable[..., Any])

_ID = click.IntRange(0, 2**63 - 1)
# As in jobq.operations, which `jobq --help` need not import; a test holds them to that.


def _selects(states: tuple[str, ...], default: str) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in (
            json_option,
            yes_option,
            click.option("--dry-run", is_flag=True, show_envvar=True, help="Only print which jobs would change."),
            reason_option,
            click.option(
                "--limit",
                type=click.IntRange(1),
                show_envvar=True,
                help="Most jobs to change (default: all that match).",
            ),
            where_option,
            name_options,
            click.option(
                "--state",
                "states",
                type=click.Choice(states),
                multiple=True,
                show_envvar=True,
                help=f"Only jobs in this state; repeatable (default: {default}).",
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
@_selects(RETRYABLE_STATES, "failed")
def retry(**given: Any) -> None:
    """Run finished jobs again, with the same id and attempts counted from zero, and waiting jobs at
    once.

    Pass ids, or select jobs by --state, --queue, --task and --where; then it prints what would
    change, and asks.
    """
    _change("retry", "retried", given, states=RETRYABLE_STATES, default=("failed",))


@click.command()
@_selects(CANCELLABLE_STATES, "every live job")
def cancel(**given: Any) -> None:
    """Cancel waiting jobs at once, and ask running jobs to stop.

    Pass ids, or select jobs by --state, --queue, --task and --where; then it prints what would
    change, and asks.
    """
    _change("cancel", "cancelled", given, states=CANCELLABLE_STATES, default=CANCELLABLE_STATES)


@click.command()
@_selects(SNOOZABLE_STATES, "every waiting job")
@click.option(
    "--until", metavar="TIME", show_envvar=True, help="New start time, e.g. 2030-01-31T08:00; UTC without a zone."
)
@click.option(
    "--for",
    "seconds",
    metavar="DURATION",
    callback=parse_duration,
    show_envvar=True,
    help="Delay, e.g. 15m or 2h.",
)
def snooze(*, seconds: float | None, until: str | None, **given: Any) -> None:
    """Delay the start of waiting jobs. No attempt is counted.

    Pass --for or --until. Pass ids, or select jobs by --state, --queue, --task and --where; then it
    prints what would change, and asks.
    """
    if (seconds is None) == (until is None):
        raise click.UsageError("pass either --for or --until")
    at = None
    if until is not None:
        try:
            at = parse_time(until)
        except ValueError as error:
            raise click.UsageError(f"--until {error}") from None
    _change("snooze", "snoozed", given, states=SNOOZABLE_STATES, default=SNOOZABLE_STATES, seconds=seconds, until=at)


@click.command()
@_selects(MOVABLE_STATES, "every waiting job")
@click.option(
    "--to-priority",
    type=click.IntRange(0, 9),
    show_envvar=True,
    help="New priority, 0 to 9; 9 runs first (default: unchanged).",
)
@click.option("--to-queue", metavar="NAME", show_envvar=True, help="New queue (default: unchanged).")
def move(*, to_queue: str | None, to_priority: int | None, **given: Any) -> None:
    """Move jobs that are not running to another queue or priority, behind the jobs already there.

    Pass --to-queue, --to-priority or both. Pass ids, or select jobs by --state, --queue, --task and
    --where; then it prints what would change, and asks.
    """
    if to_queue is None and to_priority is None:
        raise click.UsageError("pass --to-queue or --to-priority")
    _change("move", "moved", given, states=MOVABLE_STATES, default=MOVABLE_STATES, queue=to_queue, priority=to_priority)


@click.command()
@_selects(DELETABLE_STATES, "none; required for a selection")
def delete(**given: Any) -> None:
    """Permanently delete jobs that are not running, with their attempts.

    Pass ids, or select jobs by --state, --queue, --task and --where; a selection must name the
    states. It always asks.
    """
    _change("delete", "deleted", given, states=DELETABLE_STATES, default=(), always_ask=True)


CHANGES = (retry, cancel, snooze, move, delete)
