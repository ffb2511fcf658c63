"""Hiding what the page must not show: values of fields whose name says that they are secret."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

# A field is hidden when its name, without case and punctuation, contains one of these.
SECRET_NAMES = (
    "password", "passwd", "passphrase", "pwd", "secret", "token", "authorization", "apikey", "accesskey", "privatekey",
    "credential", "cookie", "sessionid", "signature", "jwt", "creditcard", "cardnumber", "cvv", "iban", "ssn",
)  # fmt: skip
HIDDEN = "(hidden)"
_DEEPEST = 60


class Redactor:
    """Replaces the values of secret fields, at any depth, by ``(hidden)``."""

    def __init__(self, names: Collection[str] = SECRET_NAMES) -> None:
        self._names = tuple(_plain(name) for name in names if _plain(name))

    def is_secret(self, name: str) -> bool:
        """Whether a field of this name is hidden."""
        plain = _plain(name)
        return any(secret in plain for secret in self._names)

    def __call__(self, value: Any, depth: int = 0) -> Any:
        """Return `value`, made of what JSON knows, with its secrets hidden and anything deeper than 60 levels
        cut.
        """
        if not isinstance(value, dict | list):
            return value
        if depth >= _DEEPEST:
            return "(nested too deeply to show)"
        if isinstance(value, list):
            return [self(item, depth + 1) for item in value]
        return {
            name: HIDDEN if item is not None and self.is_secret(name) else self(item, depth + 1)
            for name, item in value.items()
        }


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
