"""``jobq workers list|quiet|resume|stop``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobq.cli import output
from jobq.cli.exits import Exit
from jobq.cli.options import database_options, json_option, reason_option, yes_option
from jobq.cli.session import actor, current

if TYPE_CHECKING:
    from jobq.queries import WorkerInfo

F = TypeVar("F", bound=Callable[..., Any])

# The characters of an id that the list shows: enough that two workers rarely share them.
_SHORT = 8
_LINES = 12


@click.group(short_help="List, quiet, resume and stop workers.")
def workers() -> None:
    """List, quiet, resume and stop workers."""


@workers.command("list")
@database_options
@json_option
def list_(*, as_json: bool) -> None:
    """List the workers with their state, pending requests, and memory."""
    from jobq import queries

    session = current()
    with session.connect() as connection:
        found = queries.workers(connection, session.schema)
    if as_json:
        output.print_json({"workers": [{**output.plain(worker), "health": worker.health} for worker in found]})
        return
    output.print_table(
        ("worker", "host", "pid", "app", "queues", "state", "running", "memory", "started", "heartbeat"),
        (
            (
                str(worker.id)[:_SHORT],
                worker.host,
                worker.pid,
                worker.app,
                "all" if worker.queues is None else ", ".join(worker.queues),
                _state(worker),
                f"{worker.running} of {worker.slots}",
                "" if worker.rss is None else f"{worker.rss / 2**20:,.0f} MiB",
                worker.started_at,
                f"{output.duration(worker.heartbeat_seconds)} ago",
            )
            for worker in found
        ),
        empty="no workers",
        right=("pid", "running", "memory", "heartbeat"),
    )


def _state(worker: WorkerInfo) -> str:
    if worker.health != "alive":
        return worker.health
    heeded = {None: ("starting", "running", "draining"), "quiet": ("quiet", "draining"), "stop": ("draining",)}
    asked = (
        "" if worker.state in heeded[worker.requested_state] else f" (requested: {worker.requested_state or 'resume'})"
    )
    troubled = f", {output.plural(len(worker.problems), 'problem')}" if worker.problems else ""
    return worker.state + asked + troubled


def _selection_options(function: F) -> F:
    """Accept the selection of workers, and the options of every change."""
    for decorate in (
        json_option,
        click.option("--dry-run", is_flag=True, help="Only print which workers are selected.", show_envvar=True),
        yes_option,
        reason_option,
        click.option("--all", "every", is_flag=True, help="Select all workers; asks first.", show_envvar=True),
        click.option("--host", metavar="NAME", help="Select the workers on this host; asks first.", show_envvar=True),
        database_options,
        click.argument("ids", nargs=-1, metavar="[WORKER]..."),
    ):
        function = decorate(function)
    return function


@workers.command()
@_selection_options
def quiet(**given: Any) -> None:
    """Ask workers to claim no more jobs; running jobs continue to their end.

    WORKER is an id or its beginning. Prefetched jobs go back to their queues at once. A quiet
    worker keeps running and stays healthy until it is resumed or stopped. After a restart, a worker
    claims jobs again.
    """
    _ask("quiet", "Make {} quiet?", "asked to be quiet", **given)


@workers.command()
@_selection_options
def resume(**given: Any) -> None:
    """Ask quiet workers to claim jobs again."""
    _ask(None, "Resume {}?", "asked to resume", **given)


@workers.command()
@_selection_options
def stop(**given: Any) -> None:
    """Ask workers to finish their running jobs and exit, as after SIGTERM.

    This cannot be undone. A service manager that restarts processes (systemd with Restart=always,
    Kubernetes) restarts these workers as well: stop them there.
    """
    _ask("stop", "Stop {}?", "asked to stop", **given)


def _ask(
    what: str | None,
    question: str,
    done: str,
    *,
    ids: tuple[str, ...],
    host: str | None,
    every: bool,
    reason: str | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    from jobq import operations, queries

    if (bool(ids), host is not None, every).count(True) != 1:
        raise click.UsageError("select workers by exactly one of: ids, --host, --all")
    session = current()
    with session.connect(autocommit=True) as connection:
        found = queries.workers(connection, session.schema)
        meant = _by_id(ids, found) if ids else _on(host, found)
        if not ids or dry_run:
            _show(meant)
        if not ids and meant and not dry_run:
            output.confirm(question.format(output.plural(len(meant), "worker")), yes=yes)
        asked: list[str] = []
        unchanged: list[str] = []
        refused: dict[str, str] = {}
        for worker in () if dry_run else meant:
            if operations.ask_worker(connection, session.schema, worker.id, what, actor=actor(), reason=reason):
                asked.append(str(worker.id))
            elif (why := _why_not(connection, session.schema, worker, what)) is None:
                unchanged.append(str(worker.id))
            else:
                refused[str(worker.id)] = why
    if as_json:
        output.print_json({"selected": len(meant), "done": asked, "unchanged": unchanged, "refused": refused})
    elif meant and not dry_run:
        click.echo(f"{done}: {output.plural(len(asked), 'worker')}")
        if unchanged:
            output.note(f"{output.plural(len(unchanged), 'worker')} unchanged")
        for id, why in refused.items():
            output.note(output.line(f"worker {id[:_SHORT]}: {why}"))
    if refused:
        click.get_current_context().exit(Exit.NOT_DONE)


def _why_not(connection: Any, schema: str, worker: WorkerInfo, what: str | None) -> str | None:
    """Return why the request was refused; None: the same request is already pending."""
    from jobq import queries

    now = next((other for other in queries.workers(connection, schema) if other.id == worker.id), None)
    if now is None:
        return "it has exited in the meantime"
    return None if now.requested_state == what else "it was asked to stop, which cannot be undone"


def _by_id(ids: Sequence[str], found: Sequence[WorkerInfo]) -> list[WorkerInfo]:
    meant: dict[Any, WorkerInfo] = {}
    for id in ids:
        matching = [worker for worker in found if id and str(worker.id).startswith(id.lower())]
        if len(matching) != 1:
            several = f"{len(matching)} workers match: use more characters" if matching else "no worker matches"
            raise click.UsageError(output.safe(f"worker {id!r}: {several}; see `jobq workers list`"))
        meant[matching[0].id] = matching[0]
    return list(meant.values())


def _on(host: str | None, found: Sequence[WorkerInfo]) -> list[WorkerInfo]:
    """Return the workers on `host` (None: all) that still have a heartbeat."""
    there = [worker for worker in found if host in (None, worker.host)]
    if host is not None and not there:
        hosts = ", ".join(sorted({worker.host for worker in found})) or "none"
        raise click.UsageError(output.safe(f"host={host!r}: no worker runs on it; hosts with workers: {hosts}"))
    meant = [worker for worker in there if worker.health != "silent"]
    if silent := len(there) - len(meant):
        output.note(
            f"leaving out {output.plural(silent, 'worker')} without a heartbeat for the whole lease, which cannot "
            "receive the request"
        )
    return meant


def _show(meant: Sequence[WorkerInfo]) -> None:
    if not meant:
        output.note("no worker is selected")
    for worker in meant[:_LINES]:
        text = (
            f"  {str(worker.id)[:_SHORT]}  {worker.host}, pid {worker.pid}: {_state(worker)}, {worker.running} running"
        )
        output.note(output.line(text))
    if (rest := len(meant) - _LINES) > 0:
        output.note(f"  and {output.plural(rest, 'other worker')}")
