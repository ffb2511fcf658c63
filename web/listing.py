"""Long lists: a page of them, filtered by a text and sorted by a column, as the address says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import abort, request, url_for

T = TypeVar("T")

PAGE = 50
_LONGEST = 200
_MOST_PAGES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the address asks of a list: `text` to be in a row, the column to `sort` by, and which `page`, from 1."""

    endpoint: str
    text: str
    sort: str
    descending: bool
    page: int
    default: str

    @property
    def offset(self) -> int:
        """How many rows come before the page."""
        return (self.page - 1) * PAGE

    def link(self, *, page: int = 1, sort: str | None = None) -> str:
        """Return the address of another page, or of another order (`sort`, with a minus for descending)."""
        sort = (f"-{self.sort}" if self.descending else self.sort) if sort is None else sort
        return url_for(
            f".{self.endpoint}",
            text=self.text or None,
            sort=None if sort == self.default else sort,
            page=None if page == 1 else page,
        )


def wanted(endpoint: str, sorts: Collection[str], default: str) -> Wanted:
    """Return what the address asks for: ``text``, ``sort`` (one of `sorts`, with a minus for descending; `default`) and
    ``page``. Aborts with 400 for what cannot be.
    """
    text, sort, page = (request.args.get(name, "").strip() for name in ("text", "sort", "page"))
    sort, page = sort or default, page or "1"
    if "\x00" in text or len(text) > _LONGEST:
        abort(400, f"text: give at most {_LONGEST} characters, none of them NUL.")
    if sort.removeprefix("-") not in sorts:
        abort(400, f"sort={sort[:50]!r}: give one of {', '.join(sorts)}, with - before it for the other way.")
    if not (page.isascii() and page.isdigit() and len(page) <= 6 and 1 <= int(page) <= _MOST_PAGES):
        abort(400, f"page={page[:50]!r}: give a whole number from 1.")
    return Wanted(
        endpoint=endpoint, text=text, sort=sort.removeprefix("-"), descending=sort.startswith("-"), page=int(page),
        default=default,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One page of a list: its `rows`, of `number` that fit, of `total` in all."""

    wanted: Wanted
    rows: Sequence[Any]
    number: int
    total: int

    @property
    def pages(self) -> int:
        """How many pages there are, at least 1."""
        return max(1, -(-self.number // PAGE))

    @property
    def first(self) -> int:
        """The number of the page's first row, from 1."""
        return self.wanted.offset + 1

    @property
    def last(self) -> int:
        """The number of its last row."""
        return self.wanted.offset + len(self.rows)


def listing(
    asked: Wanted, rows: Sequence[T], texts: Callable[[T], Collection[str]], keys: Mapping[str, Callable[[T], Any]]
) -> Listing:
    """Return the page of `rows` that is `asked` for: those that have its text in one of their `texts`, in whatever case,
    sorted by one of `keys`. Rows whose key is None come last; equal ones stay in their order.
    """
    fit = list(rows)
    if text := asked.text.casefold():
        fit = [row for row in fit if any(text in one.casefold() for one in texts(row))]
    key = keys[asked.sort]
    known = [(value, row) for row in fit if (value := key(row)) is not None]
    known.sort(key=lambda pair: pair[0], reverse=asked.descending)
    fit = [row for _, row in known] + [row for row in fit if key(row) is None]
    return Listing(wanted=asked, rows=fit[asked.offset : asked.offset + PAGE], number=len(fit), total=len(rows))
