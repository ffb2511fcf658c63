"""Server times of every page: from the request's first byte in the application to the answer's last, with nothing cached."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import psycopg
from flask import Flask
from werkzeug.routing import BuildError

from bench.figures import percentile
from bench.page.app import QUEUES, TASKS
from bench.servers import Server
from jobq._postgres.sql import statement, statement_files
from jobq.web import create_app
from jobq.web.server import close

TARGET_MS, SEARCH_MS = 150.0, 500.0
# Files, and what is no page of ours.
_NO_PAGES = ("static", "favicon", "livez", "nothing", "login", "logout")
# What is asked of a route besides its bare address: a label, the query, and whether it is a search of the newest 100,000.
_QUERIES: dict[str, list[tuple[str, dict[str, str], bool]]] = {
    "jobs": [
        *((f"state:{state}", {"q": f"state:{state}"}, False) for state in ("ready", "failed", "succeeded", "running")),
        ("of a queue", {"q": f"queue:{QUEUES[0]}"}, True),
        ("of a task", {"q": f"task:{TASKS[7]}"}, True),
        ("failed of a task", {"q": f"state:failed task:{TASKS[3]}"}, True),
        ("error, matches", {"q": "error:bank"}, True),
        ("error, none", {"q": 'error:"no such text"'}, True),
        ("args, matches", {"q": "args.order_id:42"}, True),
        ("args, none", {"q": "args.order_id:987654321"}, True),
        ("succeeded, args, none", {"q": "state:succeeded args.order_id:987654321"}, True),
        ("queue, none", {"q": "queue:no-such-queue"}, True),
        ("attempt and age", {"q": "attempt:>1 age:>1h"}, True),
        ("attempt, none", {"q": "attempt:>50"}, True),
        ("two states", {"q": "state:failed,cancelled queue:mail*"}, True),
    ],
    "series": [
        (f"{hours} h, {of}", {"hours": str(hours), **which}, False)
        for hours in (1, 24, 168)
        for of, which in (("all", {}), ("a queue", {"queue": QUEUES[1]}))
    ],
    **{name: [(f"{hours} h", {"hours": str(hours)}, False) for hours in (24, 168)] for name in ("overview", "queue")},
    "suggest": [
        (text, {"q": text}, False) for text in ("q", "queue:", "task:ord", "args.", "worker:", "state:failed x")
    ],
    "audit": [("by one", {"actor": "operator-3"}, False)],
}
_QUERIES["api_jobs"] = _QUERIES["jobs"][4:8]
# An export goes as far as the tables do: an export of a few jobs has no target.
_EXPORTS = {"jobs_ndjson": {"q": "state:running"}}


@dataclass(slots=True)
class Case:
    """One address, and what it may take in milliseconds at p95; None: nothing is promised of it."""

    name: str
    url: str
    target: float | None
    times: list[float] = field(default_factory=list)
    """Milliseconds."""
    error: str | None = None
    cpu: list[float] = field(default_factory=list)
    """CPU milliseconds, the application's and Postgres': what it takes on a machine that has nothing else to do, or more."""
    slowest: tuple[str, float, float] = ("", 0.0, 0.0)
    """The statement that took most of the time, its milliseconds a request, and how often it ran in one."""

    @property
    def p95(self) -> float:
        return percentile(self.times, 95)

    @property
    def reached(self) -> bool:
        return self.error is None and bool(self.times) and (self.target is None or self.p95 <= self.target)


def cases(app: Flask, ids: dict[str, list[Any]]) -> list[Case]:
    """Return a case for each GET route of the page; `ids` has values for the arguments of rules, by their names."""
    found = []
    with app.test_request_context():
        for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
            name = rule.endpoint.rpartition(".")[2]
            if "GET" not in (rule.methods or ()) or name in _NO_PAGES:
                continue
            # These say in their query what they are about.
            arguments = rule.arguments | ({"name"} if name in ("queue", "schedule") else set())
            # Several of a kind: a job's page has more to read when it has failed than when it waits.
            rounds = max((len(_values(ids, rule.rule, argument)) for argument in arguments), default=1)
            for turn in range(rounds):
                values = {}
                for argument in arguments:
                    if known := _values(ids, rule.rule, argument):
                        values[argument] = known[turn % len(known)]
                labels = [str(values[argument]) for argument in sorted(values)]
                if arguments - values.keys():
                    lacking = ", ".join(sorted(arguments - values.keys()))
                    found.append(Case(rule.rule, "", TARGET_MS, error=f"no value is known for {lacking}"))
                    continue
                try:
                    url = app.url_for(rule.endpoint, **values)
                except BuildError as error:
                    found.append(Case(rule.rule, "", TARGET_MS, error=str(error)))
                    continue
                url = url.removeprefix("http://localhost")
                shown = rule.rule if not labels else f"{rule.rule}  {', '.join(labels)}"
                if export := _EXPORTS.get(name):
                    found.append(Case(f"{shown}  {export['q']}", f"{url}?{urlencode(export)}", None))
                    continue
                found.append(Case(shown, url, TARGET_MS))
                found += [
                    Case(
                        f"{shown}  {label}",
                        f"{url}{'&' if '?' in url else '?'}{urlencode(query)}",
                        SEARCH_MS if search else TARGET_MS,
                    )
                    for label, query, search in _QUERIES.get(name, [])
                ]
    return found


def _values(ids: dict[str, list[Any]], rule: str, argument: str) -> list[Any]:
    """Return what may stand for an argument: of this rule's own kind (`jobs.id`), or of any (`id`)."""
    return ids.get(f"{rule.split('<', maxsplit=1)[0].strip('/').rpartition('/')[2]}.{argument}") or ids.get(
        argument, []
    )


def ids_of(connection: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    """Return what there is to point at: jobs of several kinds, queues, failures, operations."""

    def ids(query: str) -> list[Any]:
        return [row[0] for row in connection.execute(query.encode()).fetchall()]

    jobs = [
        found
        for query in (
            "SELECT max(id) FROM jobq.job_history WHERE state = 'succeeded'",
            "SELECT id FROM jobq.job_history WHERE state = 'failed' ORDER BY id DESC LIMIT 1",
            "SELECT min(id) FROM jobq.job_history WHERE state = 'failed'",
            "SELECT id FROM jobq.job WHERE state = 'ready' AND run_at <= now() ORDER BY id DESC LIMIT 1",
            "SELECT id FROM jobq.job WHERE state = 'ready' AND run_at > now() ORDER BY id DESC LIMIT 1",
            "SELECT min(id) FROM jobq.job WHERE state = 'running'",
        )
        for found in ids(query)
    ]
    return {
        "jobs.id": jobs,
        "workflows.id": ids("SELECT id FROM jobq.workflow ORDER BY id DESC LIMIT 2"),
        "operations.id": ids("SELECT id FROM jobq.operation ORDER BY id DESC LIMIT 2"),
        "name": [QUEUES[0], QUEUES[-1]],
        "fingerprint": _fingerprints(connection),
        "part": ["args"],
        "anything": [],
    }


def _fingerprints(connection: psycopg.Connection[Any]) -> list[str]:
    from jobq._core.fingerprint import fingerprint

    rows = connection.execute(
        "SELECT task, error FROM jobq.job_history WHERE state = 'failed' ORDER BY id DESC LIMIT 2"
    ).fetchall()
    return [fingerprint(task, error) for task, error in rows]


def measure(
    server: Server, database_url: str, connection: psycopg.Connection[Any], requests: int, *, only: str | None = None
) -> list[Case]:
    """Ask for every page (whose name has `only` in it) `requests` times, in turns: what disturbs the machine disturbs all."""
    app = create_app(database_url=database_url, cache_seconds=0)
    try:
        found = [case for case in cases(app, ids_of(connection)) if only is None or only in case.name]
        client = app.test_client()
        spent: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

        def cpu() -> float:
            return time.process_time() + server.cpu({connection.info.backend_pid})

        for turn in range(requests + 1):
            for case in found:
                if case.error is None:
                    # The first of each is not counted: it compiles templates and reads what was not in memory.
                    before = cpu()
                    told = _ask(client, case, counts=turn > 0)
                    if turn:
                        case.cpu.append((cpu() - before) * 1000)
                        for text, milliseconds in told:
                            spent[case.name][text].append(milliseconds)
        for case in found:
            turns = max(len(case.times), 1)
            case.slowest = max(
                ((text, sum(times) / turns, len(times) / turns) for text, times in spent[case.name].items()),
                key=lambda each: each[1],
                default=("", 0.0, 0.0),
            )
        return found
    finally:
        close(app)


def _ask(client: Any, case: Case, *, counts: bool) -> list[tuple[str, float]]:
    with _statements() as told:
        begun = time.perf_counter()
        response = client.get(case.url)
        body = response.get_data()
        took = (time.perf_counter() - begun) * 1000
    if response.status_code != 200:
        case.error = f"{response.status_code}: {body[:200]!r}"
    elif b"data-missing" in body or b"took too long" in body:
        case.error = "the page was partial: a statement took longer than 2 s"
    if counts:
        case.times.append(took)
    return told


@contextmanager
def _statements() -> Iterator[list[tuple[str, float]]]:
    """Note each statement of psycopg's cursors with its milliseconds."""
    told: list[tuple[str, float]] = []
    execute = psycopg.Cursor.execute

    def timed(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        try:
            return execute(self, query, *arguments, **options)
        finally:
            text = query if isinstance(query, bytes | str) else query.as_string(self)
            told.append((_name(text), (time.perf_counter() - begun) * 1000))

    psycopg.Cursor.execute = timed  # type: ignore[method-assign]  # put back below
    try:
        yield told
    finally:
        psycopg.Cursor.execute = execute  # type: ignore[method-assign]  # what it was


_names: dict[bytes, str] = {}


def _name(query: bytes | str) -> str:
    """Return the name of a statement of ours, or how another begins."""
    if not _names:
        for name in statement_files():
            try:
                _names[statement(name, "jobq").query] = name
            except (KeyError, IndexError, ValueError):
                continue  # one that is put together at the call
    raw = query.encode() if isinstance(query, str) else query
    return _names.get(raw) or " ".join(raw.decode().split())[:120]
