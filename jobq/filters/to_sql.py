"""A filter as SQL: conditions over the columns of `job` or of `job_history`, for an AND.

States are literals, because they are a closed set, and because the planner needs them to prove
partial indexes and exclude partitions. Everything else is a parameter with its type, because a
filter's statement is planned with and without its values.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from psycopg import sql

from jobq.filters.terms import Prefix
from jobq.job import FINISHED_STATES, LIVE_STATES

if TYPE_CHECKING:
    from jobq.filters.filter import JobFilter

_NOTHING = sql.SQL("false")
_OPERATORS = {"<": sql.SQL("<"), "<=": sql.SQL("<="), "=": sql.SQL("="), ">=": sql.SQL(">="), ">": sql.SQL(">")}
# In UTC, like the partitions.
_DAY = sql.SQL("date_trunc('day', statement_timestamp() - {}::double precision * interval '1 second', 'UTC')")
_FROM = sql.SQL("finished_at >= {}")
_UNTIL = sql.SQL("finished_at < {} + interval '24 hours'")
_TURNED = str.maketrans("<>", "><")
# Only an array of tags counts. Text there may mean anything.
_TAGS_BEGIN = sql.SQL(
    "EXISTS (SELECT FROM jsonb_array_elements_text("
    "CASE WHEN jsonb_typeof(headers -> 'tags') = 'array' THEN headers -> 'tags' ELSE '[]' END) AS tag"
    " WHERE starts_with(tag, {}::text))"
)


def conditions(jobs: JobFilter, live: bool, at: datetime | None = None) -> tuple[sql.Composable, dict[str, Any]]:
    """Return the conditions and their parameters, named ``filter_…``.

    The condition is ``false`` if nothing can match.

    Ages and due times refer to the moment `at` (default: the statement's time).
    """
    states = [state for state in jobs.wanted_states if state in (LIVE_STATES if live else FINISHED_STATES)]
    if not states:
        return _NOTHING, {}
    params = _Parameters()
    now: sql.Composable = sql.SQL("statement_timestamp()")
    if at is not None:
        now = sql.SQL("{}::timestamptz").format(params.add("at", at))
    parts = _live_states(states, now) if live else _finished_states(states)
    parts += _names(jobs, params)
    if jobs.ids:
        parts.append(sql.SQL("id = ANY ({}::bigint[])").format(params.add("ids", list(jobs.ids))))
    if jobs.worker is not None:
        parts.append(sql.SQL("worker_id = {}::uuid").format(params.add("worker", jobs.worker)))
    if jobs.error is not None:
        parts.append(sql.SQL("strpos(lower(error), lower({}::text)) > 0").format(params.add("error", jobs.error)))
    if jobs.attempt is not None:
        number = params.add("attempt", int(jobs.attempt.number))
        parts.append(sql.SQL("attempt {} {}::integer").format(_OPERATORS[jobs.attempt.op], number))
    if jobs.age is not None:
        since = sql.Identifier("created_at" if live else "finished_at")
        # A greater age is an earlier time.
        op = _OPERATORS[jobs.age.op.translate(_TURNED)]
        age = sql.SQL("{} {} {} - {}::double precision * interval '1 second'")
        parts.append(age.format(since, op, now, params.add("age", jobs.age.number)))
    for n, term in enumerate(jobs.args):
        path, among = params.add(f"path_{n}", list(term.path)), params.add(f"value_{n}", term.candidates)
        # jsonb compares numbers exactly: 42.0 is 42, and 2^53 + 1 is not 2^53.
        parts.append(sql.SQL("args #> {}::text[] = ANY ({}::jsonb[])").format(path, among))
    return sql.SQL(" AND ").join(parts) if parts else sql.SQL("true"), params.values


def partitions(jobs: JobFilter) -> tuple[sql.Composable, dict[str, Any]]:
    """Return conditions over `job_history` that only exclude partitions without matches."""
    states = [state for state in jobs.wanted_states if state in FINISHED_STATES]
    if not states:
        return _NOTHING, {}
    parts = _finished_states(states)
    params = _Parameters()
    if jobs.age is not None:
        day = _DAY.format(params.add("age", jobs.age.number))
        younger = "<" in jobs.age.op
        parts.append((_FROM if younger else _UNTIL).format(day))
    return sql.SQL(" AND ").join(parts) if parts else sql.SQL("true"), params.values


class _Parameters:
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def add(self, name: str, value: Any) -> sql.Placeholder:
        self.values[f"filter_{name}"] = value
        return sql.Placeholder(f"filter_{name}")


def _names(jobs: JobFilter, params: _Parameters) -> list[sql.Composable]:
    parts: list[sql.Composable] = []
    for name in ("queue", "task", "key", "group"):
        column = sql.Identifier("group_key" if name == "group" else name)
        match getattr(jobs, name):
            case Prefix(text):
                parts.append(sql.SQL("starts_with({}, {}::text)").format(column, params.add(name, text)))
            case str() as text:
                parts.append(sql.SQL("{} = {}::text").format(column, params.add(name, text)))
    match jobs.tag:
        case Prefix(text):
            parts.append(_TAGS_BEGIN.format(params.add("tag", text)))
        case str() as text:
            tags = params.add("tag", json.dumps({"tags": [text]}))
            parts.append(sql.SQL("headers @> {}::jsonb").format(tags))
    return parts


def _finished_states(states: Sequence[str]) -> list[sql.Composable]:
    return [_one_of(states)] if len(states) < len(FINISHED_STATES) else []


def _live_states(states: Sequence[str], now: sql.Composable) -> list[sql.Composable]:
    if len(states) == len(LIVE_STATES):
        return []
    due, later = "ready" in states, "scheduled" in states
    if due == later:
        # The stored state ready includes both.
        return [_one_of([state for state in states if state != "scheduled"])]
    when = sql.SQL("state = 'ready' AND run_at " + ("<=" if due else ">") + " {}").format(now)
    others = [state for state in states if state not in ("ready", "scheduled")]
    return [sql.SQL("(({}) OR {})").format(when, _one_of(others)) if others else when]


def _one_of(states: Sequence[str]) -> sql.Composable:
    if len(states) == 1:
        return sql.SQL("state = {}").format(sql.Literal(states[0]))
    return sql.SQL("state IN ({})").format(sql.SQL(", ").join(map(sql.Literal, states)))
