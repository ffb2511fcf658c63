"""The jobs that a command selects, and changes of many jobs in steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from jobq.cli import output
from jobq.cli.exits import Exit
from jobq.cli.session import actor, current

if TYPE_CHECKING:
    import psycopg

    from jobq.filters import JobFilter
    from jobq.operations import Changed
    from jobq.queries import Cursor, JobRow

_PAGE = 1000
# Jobs per transaction: few enough that no worker waits long for their locks.
_STEP = 500
_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The jobs that the command line selects: by their ids, or by filters."""

    ids: tuple[int, ...]
    states: tuple[str, ...]
    queue: str | None
    task: str | None
    where: str
    limit: int | None

    @property
    def is_by_id(self) -> bool:
        """Whether jobs are selected by id. Raises a usage error if there is no selection, or both
        ids and filters.
        """
        filtered = bool(self.states or self.where.strip() or self.queue is not None or self.task is not None)
        if self.ids and filtered:
            raise click.UsageError("pass ids or filters, not both")
        if not self.ids and not filtered:
            raise click.UsageError("pass ids, or select jobs by --state, --queue, --task and --where")
        return bool(self.ids)

    def filters(self, possible: Sequence[str], default_states: Sequence[str]) -> list[JobFilter]:
        """Return one filter per selected state. Raises a usage error for a state in which jobs
        cannot be changed so.
        """
        from jobq.filters import JobFilter

        jobs = JobFilter.parse(self.where).narrowed(queue=self.queue, task=self.task)
        if self.states and jobs.states:
            raise click.UsageError("the states are selected twice: by --state and in --where")
        for state in jobs.states:
            if state not in possible:
                raise click.UsageError(f"state:{state}: expected one of {', '.join(possible)}")
        states = self.states or jobs.states or default_states
        if not states:
            raise click.UsageError("select the states by --state or in --where")
        return [replace(jobs, states=(state,)) for state in states if state in jobs.wanted_states]


def search(
    connection: psycopg.Connection[Any],
    schema: str,
    jobs: JobFilter,
    *,
    limit: int | None = None,
    before: Cursor | None = None,
    order: str | None = None,
) -> Iterator[JobRow]:
    """Yield at most `limit` jobs that match the filter, newest first (for `order` see
    `jobq.queries.search_jobs`).
    """
    from jobq.queries import search_jobs

    left = limit
    while left is None or left > 0:
        page = search_jobs(
            connection, schema, jobs, limit=_PAGE if left is None else min(_PAGE, left), before=before, order=order
        )
        yield from page.rows
        before = page.before
        if left is not None:
            left -= len(page.rows)
        if before is None:
            return


def change(
    selection: Selection,
    *,
    verb: str,
    done_verb: str,
    states: Sequence[str],
    default_states: Sequence[str],
    operation: Callable[..., Changed],
    reason: str | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
    always_ask: bool = False,
) -> None:
    """Apply `operation` to the selected jobs.

    Jobs selected by id are changed at once, unless `always_ask`. For jobs selected by filter, this
    prints what would change and asks first. `states`: the states in which jobs can be changed so.
    """
    from jobq.job import STATES

    session = current()
    by_id = selection.is_by_id
    filters = [] if by_id else selection.filters(states, default_states)
    # Jobs may change while the question is open.
    found_in = STATES if by_id else [state for jobs in filters for state in jobs.wanted_states]
    # Autocommit: reading a long list must not hold back vacuum, and every step has its own
    # transaction.
    with session.connect(autocommit=True) as connection:
        ids = list(dict.fromkeys(selection.ids))
        if not by_id:
            ids = _select(connection, session.schema, filters, selection.limit, verb)
        if dry_run or not ids:
            if as_json:
                output.print_json({"selected": len(ids), "done": [], "refused": {}})
            elif by_id:
                output.note(f"would {verb} {output.plural(len(ids), 'job')}")
            return
        if always_ask or not by_id:
            output.confirm(f"{verb.capitalize()} {output.plural(len(ids), 'job')}?", yes=yes)
        done: list[int] = []
        refused: dict[int, str] = {}
        try:
            with output.progress(verb.capitalize(), len(ids)) as advance:
                for start in range(0, len(ids), _STEP):
                    step = ids[start : start + _STEP]
                    with connection.transaction():
                        changed = operation(
                            connection, session.schema, step, actor=actor(), reason=reason, found_in=found_in
                        )
                    done += changed.done
                    refused |= changed.refused
                    advance(len(step))
        except BaseException:
            output.note(f"{done_verb} {output.plural(len(done), 'job')} of {len(ids):,} before this error:")
            raise
    _tell(done, refused, done_verb, as_json)
    if refused and by_id:
        click.get_current_context().exit(Exit.NOT_DONE)


def _select(
    connection: psycopg.Connection[Any],
    schema: str,
    filters: Sequence[JobFilter],
    limit: int | None,
    verb: str,
) -> list[int]:
    ids: list[int] = []
    kinds: Counter[tuple[str, str, str]] = Counter()
    for jobs in filters:
        left = None if limit is None else limit - len(ids)
        for row in search(connection, schema, jobs, limit=left):
            ids.append(row.id)
            kinds[row.state, row.task, row.queue] += 1
    if not ids:
        output.note(f"no job to {verb}")
        return ids
    output.note(f"this would {verb} {output.plural(len(ids), 'job')}:")
    for (state, task, queue), number in kinds.most_common(_LINES):
        output.note(output.line(f"  {number:>9,}  {state}  {task} in queue {queue}"))
    if (rest := len(kinds) - _LINES) > 0:
        output.note(f"  and {output.plural(rest, 'more kind')}")
    # Oldest first, so that the jobs that waited longest come first.
    return sorted(ids)


def _tell(done: list[int], refused: dict[int, str], done_verb: str, as_json: bool) -> None:
    if as_json:
        output.print_json({"selected": len(done) + len(refused), "done": done, "refused": refused})
        return
    click.echo(f"{done_verb} {output.plural(len(done), 'job')}")
    for id, why in list(refused.items())[:_LINES]:
        output.note(output.line(f"job {id} was not changed: {why}"))
    if (rest := len(refused) - _LINES) > 0:
        output.note(f"{output.plural(rest, 'other job')} also not changed")
