"""The filter itself: parsed from text, and formatted as text."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import sql

from jobq._core.fingerprint import fingerprint
from jobq._core.text import brief, unstorable
from jobq.errors import InvalidFilter
from jobq.filters import to_sql
from jobq.filters.terms import (
    MAX_AGE,
    MAX_ATTEMPT,
    MAX_DEPTH,
    MAX_ID,
    MAX_LENGTH,
    MAX_TERMS,
    QUALIFIERS,
    ArgTerm,
    Bound,
    Prefix,
    age_text,
    parse_age,
    parse_attempt,
)
from jobq.filters.words import Char, plain, quote, split_at, split_words
from jobq.job import FINISHED_STATES, LIVE_STATES, STATES

_FINGERPRINT = re.compile(r"[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """A selection of live and finished jobs: those that match every given term.

    `states`: one of these (STATES; ``scheduled`` is ready with a `run_at` in the future, ``ready``
    means due). `queue`, `task`, `key`, `group`: the name, or its beginning. `tag`: one of the texts
    in ``headers.tags``. `worker`: the worker that runs the job or ran it last. `error`: a part of
    the last error of a finished job, in any case; live jobs never match. `failure`: a group of
    failed jobs (`jobq._core.fingerprint.fingerprint`). `attempt`: the number of begun attempts.
    `age`: seconds since a live job was enqueued, or since a finished job finished. `args`: the
    value at a path of the arguments. `ids`: one of these.

    Raises InvalidFilter for a value that no job can have.
    """

    states: tuple[str, ...] = ()
    queue: str | Prefix | None = None
    task: str | Prefix | None = None
    tag: str | Prefix | None = None
    key: str | Prefix | None = None
    group: str | Prefix | None = None
    worker: UUID | None = None
    error: str | None = None
    failure: str | None = None
    attempt: Bound | None = None
    age: Bound | None = None
    args: tuple[ArgTerm, ...] = ()
    ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for state in self.states:
            if state not in STATES:
                raise InvalidFilter(f"state:{brief(state)}: give one of {', '.join(STATES)}{_nearest(state, STATES)}")
        for name in ("queue", "task", "tag", "key", "group", "error"):
            _check_name(name, getattr(self, name))
        if self.failure is not None and not _FINGERPRINT.fullmatch(self.failure):
            raise InvalidFilter(
                f"failure:{brief(self.failure)}: give the 12 characters, 0-9 and a-f, of a failure group"
            )
        if self.attempt is not None and not 0 <= self.attempt.number <= MAX_ATTEMPT:
            raise InvalidFilter(f"attempt:{self.attempt.op}{self.attempt.number}: give a number up to {MAX_ATTEMPT}")
        if self.age is not None and not 0 <= self.age.number <= MAX_AGE:
            raise InvalidFilter(f"age:{self.age.op}{self.age.number}s: give an age of at most a hundred years")
        for term in self.args:
            _check_arg(term)
        for id in self.ids:
            if not 0 <= id <= MAX_ID:
                raise InvalidFilter(f"id:{id}: ids are numbers from 0 to {MAX_ID}")
        # Equal selections get equal values: order and repetition do not matter.
        object.__setattr__(self, "states", tuple(state for state in STATES if state in self.states))
        object.__setattr__(self, "ids", tuple(sorted(set(self.ids))))
        object.__setattr__(self, "args", tuple(dict.fromkeys(self.args)))
        if len(str(self)) > MAX_LENGTH:
            raise InvalidFilter(
                f"the filter has {len(str(self))} characters when written in full: at most {MAX_LENGTH}"
            )

    @classmethod
    def parse(cls, text: str) -> JobFilter:
        """Return the filter for a text; a text without words gives the empty filter.

        A word without a qualifier is a job's id if it is a number, else the beginning of the task's
        name. Raises InvalidFilter, which names the term, what is wrong with it, and what to do.
        """
        if len(text) > MAX_LENGTH:
            raise InvalidFilter(f"the filter has {len(text):,} characters: write at most {MAX_LENGTH:,}")
        _check_text("the filter", text)
        words = split_words(text)
        if len(words) > MAX_TERMS:
            raise InvalidFilter(f"the filter has {len(words)} terms: write at most {MAX_TERMS}")
        found: dict[str, Any] = {}
        for word in words:
            for name, value in _read(word):
                if name in ("states", "args", "ids"):
                    found[name] = (*found.get(name, ()), value)
                elif name in found:
                    raise InvalidFilter(f"{brief(plain(word))}: {name} is said twice; write it once")
                else:
                    found[name] = value
        return cls(**found)

    def narrowed(self, *, state: str | None = None, queue: str | None = None, task: str | None = None) -> JobFilter:
        """Return the filter with additional terms.

        Raises InvalidFilter if it has such a term already.
        """
        for name, given, said in (
            ("state", state, self.states),
            ("queue", queue, self.queue),
            ("task", task, self.task),
        ):
            if given is not None and said:
                raise InvalidFilter(f"{name}={brief(given)}: the filter has {name}: already; give one of them")
        return replace(
            self,
            states=self.states if state is None else (state,),
            queue=self.queue if queue is None else queue,
            task=self.task if task is None else task,
        )

    def __str__(self) -> str:
        return " ".join(self._terms())

    def _terms(self) -> Iterator[str]:
        if self.states:
            yield f"state:{','.join(self.states)}"
        for name in ("queue", "task", "tag", "key", "group", "worker", "error", "failure"):
            value = getattr(self, name)
            if value is not None:
                yield f"{name}:{value if isinstance(value, Prefix) else quote(str(value))}"
        if self.attempt is not None:
            yield f"attempt:{self.attempt.op}{self.attempt.number:.0f}"
        if self.age is not None:
            yield f"age:{age_text(self.age)}"
        yield from map(str, self.args)
        if self.ids:
            yield f"id:{','.join(map(str, self.ids))}"

    @property
    def empty(self) -> bool:
        """Whether every job matches."""
        return not any(getattr(self, field.name) not in (None, ()) for field in fields(self))

    @property
    def wanted_states(self) -> tuple[str, ...]:
        """The states that a matching job can have; other terms may exclude some of `states`."""
        possible = self.states or STATES
        if self.failure is not None:
            possible = tuple(state for state in possible if state == "failed")
        elif self.error is not None:
            possible = tuple(state for state in possible if state in FINISHED_STATES)
        elif self.worker is not None:
            # Running and finished jobs name a worker; other jobs do not.
            possible = tuple(state for state in possible if state == "running" or state in FINISHED_STATES)
        return possible

    def reads(self, live: bool) -> bool:
        """Whether a matching job can be live (or finished)."""
        states = LIVE_STATES if live else FINISHED_STATES
        return any(state in states for state in self.wanted_states)

    def partitions(self) -> tuple[sql.Composable, dict[str, Any]]:
        """Return the part of ``conditions(live=False)`` that excludes whole partitions."""
        return to_sql.partitions(self)

    def conditions(self, live: bool, *, at: datetime | None = None) -> tuple[sql.Composable, dict[str, Any]]:
        """Return SQL over the columns of `job` (`live`) or `job_history`, and its parameters.

        The parameters are named ``filter_…``. The SQL is ``false`` if no job can match, and
        ``true`` if all do. Ages and due times refer to the moment `at` (default: the statement's
        time). Rows that match still have to pass :meth:`accepts`.
        """
        return to_sql.conditions(self, live, at)

    def accepts(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row matches the part that SQL cannot express: its failure group.

        The row needs `task` and the first 500 characters of `error`.
        """
        if self.failure is None:
            return True
        return row["error"] is not None and fingerprint(row["task"], row["error"]) == self.failure


def _read(word: Sequence[Char]) -> Iterator[tuple[str, Any]]:
    term = plain(word)
    qualifier, *rest = split_at(word, ":")
    if not rest:
        yield _bare(term, word)
        return
    value = word[len(qualifier) + 1 :]
    head, *path = split_at(qualifier, ".")
    name = plain(head).lower()
    if name not in QUALIFIERS or (path and name != "args"):
        raise InvalidFilter(_unknown(term, plain(qualifier)))
    if not value:
        raise InvalidFilter(f"{brief(term)}: no value; write {QUALIFIERS[name]}")
    text = plain(value)
    match name:
        case "state":
            yield from (("states", plain(state).lower()) for state in split_at(value, ","))
        case "id":
            yield from (("ids", _id(term, plain(id))) for id in split_at(value, ","))
        case "args":
            yield "args", ArgTerm(_path(term, path), text)
        case "queue" | "task" | "tag" | "key" | "group":
            yield name, _name(term, value)
        case _:
            yield name, _VALUES[name](term, text)


def _bare(term: str, word: Sequence[Char]) -> tuple[str, Any]:
    if term.isascii() and term.isdigit():
        return "ids", _id(term, term)
    name = _name(term, word)
    return "task", name if isinstance(name, Prefix) else Prefix(name)


def _id(term: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 30):
        raise InvalidFilter(f"{brief(term)}: {brief(text)} is no job's id; write {QUALIFIERS['id']}")
    return int(text)


def _path(term: str, path: Sequence[Sequence[Char]]) -> tuple[str, ...]:
    if not path or not all(path):
        raise InvalidFilter(f"{brief(term)}: the path to the argument is not whole; write {QUALIFIERS['args']}")
    return tuple(map(plain, path))


def _name(term: str, value: Sequence[Char]) -> str | Prefix:
    ends = value[-1] == ("*", False)
    name = value[:-1] if ends else value
    if ("*", False) in name:
        raise InvalidFilter(f'{brief(term)}: * stands only at the end of a name; write "*" for a star in it')
    return Prefix(plain(name)) if ends else plain(name)


def _worker(term: str, text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidFilter(f"{brief(term)}: {brief(text)} is no worker's id; write {QUALIFIERS['worker']}") from None


_VALUES: dict[str, Callable[[str, str], Any]] = {
    "worker": _worker,
    "error": lambda _, text: text,
    "failure": lambda _, text: text.lower(),
    "attempt": parse_attempt,
    "age": parse_age,
}


def _unknown(term: str, qualifier: str) -> str:
    if qualifier.startswith("-"):
        return f"{brief(term)}: a filter cannot leave jobs out; name what to keep, as in {QUALIFIERS['state']}"
    known = "; there are " + ", ".join(QUALIFIERS)
    return f"{brief(term)}: there is no {brief(qualifier)}{_nearest(qualifier, QUALIFIERS) or known}"


def _nearest(text: str, known: Sequence[str] | Mapping[str, str]) -> str:
    near = difflib.get_close_matches(text[:40].lower(), list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _check_name(name: str, value: str | Prefix | None) -> None:
    if value is None:
        return
    text = value.text if isinstance(value, Prefix) else value
    _check_text(name, text)
    if not text:
        raise InvalidFilter(f"{name}: no value; write {QUALIFIERS[name]}")


def _check_arg(term: ArgTerm) -> None:
    if not 1 <= len(term.path) <= MAX_DEPTH:
        raise InvalidFilter(f"{brief(str(term))}: a path has 1 to {MAX_DEPTH} parts, and this one has {len(term.path)}")
    for part in (*term.path, term.value):
        _check_text("args", part)


def _check_text(what: str, text: str) -> None:
    if (fault := unstorable(text)) is not None:
        raise InvalidFilter(f"{what}: {brief(text)} {fault}")
