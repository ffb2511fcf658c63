"""Who acts, why, and the row in `audit` that says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from jobq.errors import InvalidOption
from jobq.operations.rows import execute


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a name, and over the status page the role and the address that it came from.

    The command line and Python give a name only, which a plain string says as well.
    """

    name: str
    role: str | None = None
    address: str | None = None


class Note:
    """What the audit says of an action. Raises InvalidOption for an unusable actor or reason."""

    __slots__ = ("action", "actor", "reason")

    def __init__(self, action: str, actor: str | Actor, reason: str | None) -> None:
        self.action = action
        self.actor = actor if isinstance(actor, Actor) else Actor(actor)
        self.reason = (checked_text("reason", reason, 1000).strip() if reason else None) or None
        checked_text("actor", self.actor.name, 200)
        if not self.actor.name.strip():
            raise InvalidOption(f"actor={self.actor.name!r}: say who does this")

    def write(
        self,
        conn: Connection[Any],
        schema: str,
        target: Mapping[str, Any],
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the row, in the transaction of what it tells of."""
        params = {
            "actor": self.actor.name,
            "role": self.actor.role,
            "address": self.actor.address,
            "action": self.action,
            "reason": self.reason,
            "target": json.dumps(target),
            "before": None if before is None else json.dumps(before),
            "after": None if after is None else json.dumps(after),
        }
        execute(conn, schema, "audit_write", params)


def checked_text(name: str, value: str, longest: int) -> str:
    """Return `value`, or raise InvalidOption where Postgres or a reader could not take it."""
    if "\x00" in value or len(value) > longest:
        raise InvalidOption(f"{name}={value[:50]!r}: give at most {longest} characters, none of them NUL")
    return value
