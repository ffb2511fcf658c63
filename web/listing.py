"""Long lists: filtered by a text, sorted by a column, and cut into pages, all as the address
says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import abort, request, url_for

T = TypeVar("T")

PAGE_SIZE = 50
_LONGEST = 200
_MOST_PAGES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """The query of a list in its address: a `text` that rows contain, the `sort` column, and the
    `page` (1-based).
    """

    endpoint: str
    text: str
    sort: str
    descending: bool
    page: int
    default: str

    @property
    def offset(self) -> int:
        """The number of rows before this page."""
        return (self.page - 1) * PAGE_SIZE

    def link(self, *, page: int = 1, sort: str | None = None) -> str:
        """Return the address of another page or order. A `sort` that begins with a minus is
        descending.
        """
        sort = (f"-{self.sort}" if self.descending else self.sort) if sort is None else sort
        return url_for(
            f".{self.endpoint}",
            text=self.text or None,
            sort=None if sort == self.default else sort,
            page=None if page == 1 else page,
        )


def list_query(endpoint: str, sorts: Collection[str], default: str) -> ListQuery:
    """Return the query in the address: ``text``, ``sort`` (one of `sorts`, with a minus for
    descending) and ``page``.

    Aborts with 400 for an invalid value. `default` is the order without a ``sort``.
    """
    text, sort, page = (request.args.get(name, "").strip() for name in ("text", "sort", "page"))
    sort, page = sort or default, page or "1"
    if "\x00" in text or len(text) > _LONGEST:
        abort(400, f"text: expected at most {_LONGEST} characters, none of them NUL.")
    if sort.removeprefix("-") not in sorts:
        abort(
            400,
            f"sort={sort[:50]!r}: expected one of {', '.join(sorts)}, optionally with a leading - for "
            "descending order.",
        )
    if not (page.isascii() and page.isdigit() and len(page) <= 6 and 1 <= int(page) <= _MOST_PAGES):
        abort(400, f"page={page[:50]!r}: expected a whole number from 1.")
    return ListQuery(
        endpoint=endpoint, text=text, sort=sort.removeprefix("-"), descending=sort.startswith("-"), page=int(page),
        default=default,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPage:
    """One page of a list: its `rows`, out of `number` that match the query and `total` in all."""

    query: ListQuery
    rows: Sequence[Any]
    number: int
    total: int

    @property
    def pages(self) -> int:
        """The number of pages, at least 1."""
        return max(1, -(-self.number // PAGE_SIZE))

    @property
    def first(self) -> int:
        """The 1-based position of the first row on this page."""
        return self.query.offset + 1

    @property
    def last(self) -> int:
        """The 1-based position of the last row on this page."""
        return self.query.offset + len(self.rows)


def list_page(
    asked: ListQuery, rows: Sequence[T], texts: Callable[[T], Collection[str]], keys: Mapping[str, Callable[[T], Any]]
) -> ListPage:
    """Return the page of `rows` that `asked` selects.

    A row matches if one of its `texts` contains the query's text, ignoring case. `keys` are the
    sort keys by column. Rows whose key is None come last; rows with equal keys keep their order.
    """
    fit = list(rows)
    if text := asked.text.casefold():
        fit = [row for row in fit if any(text in one.casefold() for one in texts(row))]
    key = keys[asked.sort]
    known = [(value, row) for row in fit if (value := key(row)) is not None]
    known.sort(key=lambda pair: pair[0], reverse=asked.descending)
    fit = [row for _, row in known] + [row for row in fit if key(row) is None]
    return ListPage(query=asked, rows=fit[asked.offset : asked.offset + PAGE_SIZE], number=len(fit), total=len(rows))
