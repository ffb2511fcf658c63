"""Hiding what the page must not show: values of fields whose name says that they are secret, or whose path was named."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jobq.errors import InvalidFilter
from jobq.filters import JobFilter
from jobq.web.access import ROLES

# A field is hidden when its name, without case and punctuation, contains one of these.
SECRET_NAMES = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "authorization", "apikey", "accesskey", "privatekey",
    "credential", "cookie", "sessionid", "signature", "jwt", "creditcard", "cardnumber", "cvv", "iban", "ssn",
)  # fmt: skip
HIDDEN = "(hidden)"
_DEEPEST = 60
# What PostgreSQL takes for the place of an item in a list, counted from either end.
_ITEM = re.compile(r"\s*[+-]?[0-9]+", re.ASCII)


class Redactor:
    """Replaces the values of secret fields, at any depth, by ``(hidden)``.

    Of `fields`, one with a dot is a path from the column on (``args.card.number``), in which ``*`` stands for one or more
    levels (``*.iban``) and list items are no level; others are parts of names. `reveal`: hide nothing.
    """

    def __init__(self, fields: Collection[str] = SECRET_NAMES, *, reveal: bool = False) -> None:
        self._names = tuple(plain for field in fields if "." not in field and (plain := _plain(field)))
        self._paths = tuple(tuple(field.casefold().split(".")) for field in fields if "." in field)
        self._reveal = reveal

    def is_secret(self, name: str) -> bool:
        """Whether a field of this name is hidden wherever it stands."""
        plain = _plain(name)
        return not self._reveal and any(secret in plain for secret in self._names)

    def hides(self, root: str, names: Sequence[str]) -> bool:
        """Whether what stands below the column `root` at `names`, one for each level, or what that stands in, is hidden: who
        may not see a value may not search by it either.
        """
        if self._reveal:
            return False
        if any(self.is_secret(name) for name in names):
            return True
        steps = [(root.casefold(), False)]
        for name in names:
            # In a list a number is an item and no level; in an object it is a name. Which of the two it is, is not known here.
            # So a value is hidden if either reading hides it.
            item = _ITEM.fullmatch(name) is not None
            steps += [(step, item) for step in name.casefold().split(".")]
        return any(_begins(pattern, steps) for pattern in self._paths)

    def filter(self, text: str) -> str:
        """Return the text of a job filter without the hidden values that a user who may see them has searched by."""
        try:
            jobs = JobFilter.parse(text)
            args = tuple(replace(it, value=HIDDEN) if self.hides("args", it.path) else it for it in jobs.args)
            return text if args == jobs.args else str(replace(jobs, args=args))
        except InvalidFilter:
            # Another version's, or too long with its values hidden.
            return HIDDEN if "args." in text else text

    def __call__(self, value: Any, root: str = "*") -> Any:
        """Return `value`, made of what JSON knows, with its secrets hidden and anything deeper than 60 levels cut.

        `root`: the column that it is from (``args``, ``result``, ``headers``, ``progress``). Without it a path that fits below
        any of them hides.
        """
        return self._shown(value, (root.casefold(),), 0)

    def _shown(self, value: Any, path: tuple[str, ...], depth: int) -> Any:
        if not isinstance(value, dict | list):
            return value
        if depth >= _DEEPEST:
            return "(nested too deeply to show)"
        if isinstance(value, list):
            return [self._shown(item, path, depth + 1) for item in value]
        return {name: self._field(str(name), item, path, depth) for name, item in value.items()}

    def _field(self, name: str, item: Any, path: tuple[str, ...], depth: int) -> Any:
        # A name with dots in it reads as a path, too.
        steps = name.casefold().split(".")
        here = (*path, *steps)
        named = self.is_secret(name) or any(self._at((*path, *steps[: n + 1])) for n in range(len(steps)))
        if item is not None and named:
            return HIDDEN
        return self._shown(item, here, depth + 1)

    def _at(self, path: tuple[str, ...]) -> bool:
        return not self._reveal and any(_fits(pattern, path) for pattern in self._paths)


def by_role(
    fields: Collection[str], more: Mapping[str, Collection[str]], reveal_to: str | None
) -> dict[str | None, Redactor]:
    """Return each role's redactor (None: without a role): of `fields` and what `more` adds; from `reveal_to` on, of nothing."""
    found: dict[str | None, Redactor] = {
        None: Redactor([*fields, *(field for added in more.values() for field in added)])
    }
    for n, role in enumerate(ROLES):
        reveal = reveal_to is not None and n >= ROLES.index(reveal_to)
        found[role] = Redactor([*fields, *more.get(role, ())], reveal=reveal)
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _fits(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    # A root that is not known is "*" in the path, and fits everything.
    if not pattern or not path:
        return not pattern and not path
    if pattern[0] == "*":
        return _fits(pattern[1:], path[1:]) or (len(path) > 1 and _fits(pattern, path[1:]))
    return path[0] in (pattern[0], "*") and _fits(pattern[1:], path[1:])


def _begins(pattern: tuple[str, ...], steps: Sequence[tuple[str, bool]]) -> bool:
    """Whether some beginning of `steps` fits `pattern`; a step with True may be left out."""
    # How much of the pattern the steps so far can stand for: all possibilities at once, for there are many.
    reached = {0}
    for name, is_item in steps:
        further = set(reached) if is_item else set()
        for n in reached:
            if pattern[n] == "*":
                further |= {n, n + 1}
            elif pattern[n] == name:
                further.add(n + 1)
        if len(pattern) in further:
            return True
        reached = further
    return False
