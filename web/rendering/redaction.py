"""Hiding of secret values: of fields with a secret name, or at a configured path."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jobq.errors import InvalidFilter
from jobq.filters import JobFilter
from jobq.web.auth.access import ROLES

# A field is hidden if its name, without case and punctuation, contains one of these.
SECRET_NAMES = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "authorization", "apikey", "accesskey", "privatekey",
    "credential", "cookie", "sessionid", "signature", "jwt", "creditcard", "cardnumber", "cvv", "iban", "ssn",
)  # fmt: skip
HIDDEN = "(hidden)"
_DEEPEST = 60
# A name that PostgreSQL reads as an index into a list, from either end.
_ITEM = re.compile(r"\s*[+-]?[0-9]+", re.ASCII)


class Redactor:
    """Replaces the values of secret fields at any depth with ``(hidden)``.

    An entry of `fields` with a dot is a path that begins with the column (``args.card.number``);
    ``*`` stands for one or more levels (``*.iban``), and list items are not a level. Other entries
    are parts of names. `reveal`: hide nothing.
    """

    def __init__(self, fields: Collection[str] = SECRET_NAMES, *, reveal: bool = False) -> None:
        self._names = tuple(plain for field in fields if "." not in field and (plain := _plain(field)))
        self._paths = tuple(tuple(field.casefold().split(".")) for field in fields if "." in field)
        self._reveal = reveal

    def is_secret(self, name: str) -> bool:
        """Return whether a field of this name is hidden at any path."""
        plain = _plain(name)
        return not self._reveal and any(secret in plain for secret in self._names)

    def hides(self, root: str, names: Sequence[str]) -> bool:
        """Return whether the value at the path `names` of the column `root`, or a value that
        contains it, is hidden.

        A user who may not see a value may not search for it either.
        """
        if self._reveal:
            return False
        if any(self.is_secret(name) for name in names):
            return True
        steps = [(root.casefold(), False)]
        for name in names:
            # A number is an item of a list, which is no level, or a name in an object. The value is
            # not known here, so it is hidden if either reading hides it.
            item = _ITEM.fullmatch(name) is not None
            steps += [(step, item) for step in name.casefold().split(".")]
        return any(_begins(pattern, steps) for pattern in self._paths)

    def filter(self, text: str) -> str:
        """Return the text of a job filter, without hidden values that a user who may see them has
        searched for.
        """
        try:
            jobs = JobFilter.parse(text)
            args = tuple(replace(it, value=HIDDEN) if self.hides("args", it.path) else it for it in jobs.args)
            return text if args == jobs.args else str(replace(jobs, args=args))
        except InvalidFilter:
            # Written by another version, or too long once its values are hidden.
            return HIDDEN if "args." in text else text

    def shortened(self, text: str) -> str:
        """Return the beginning of a value's text, or ``(hidden)`` if it may show a secret.

        It is no JSON any more, so a field that is hidden cannot be told from the others: any name
        of a secret hides the whole, and so does any configured path.
        """
        return HIDDEN if not self._reveal and (self._paths or self.is_secret(text)) else text

    def __call__(self, value: Any, root: str = "*") -> Any:
        """Return the JSON `value` with its secrets hidden, and cut below 60 levels.

        `root`: the column of the value (``args``, ``result``, ``headers``, ``progress``). Without
        it, a path that matches in any column hides.
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
        # A name that contains dots is also read as a path.
        steps = name.casefold().split(".")
        here = (*path, *steps)
        named = self.is_secret(name) or any(self._at((*path, *steps[: n + 1])) for n in range(len(steps)))
        if item is not None and named:
            return HIDDEN
        return self._shown(item, here, depth + 1)

    def _at(self, path: tuple[str, ...]) -> bool:
        return not self._reveal and any(_fits(pattern, path) for pattern in self._paths)


def redactors_by_role(
    fields: Collection[str], more: Mapping[str, Collection[str]], reveal_to: str | None
) -> dict[str | None, Redactor]:
    """Return the redactor of each role, and of None for no role.

    A role hides `fields` and its entries in `more`. Roles from `reveal_to` upwards hide nothing.
    """
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
    # An unknown root is "*" in the path, and matches everything.
    if not pattern or not path:
        return not pattern and not path
    if pattern[0] == "*":
        return _fits(pattern[1:], path[1:]) or (len(path) > 1 and _fits(pattern, path[1:]))
    return path[0] in (pattern[0], "*") and _fits(pattern[1:], path[1:])


def _begins(pattern: tuple[str, ...], steps: Sequence[tuple[str, bool]]) -> bool:
    """Return whether a prefix of `steps` matches `pattern`; a step with True may be skipped."""
    # The positions in the pattern that the steps so far can reach: tracked together, since there
    # are many combinations.
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
