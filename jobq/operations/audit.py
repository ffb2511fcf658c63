"""The actor of a change, the reason, and the row in `audit` with both."""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from jobq.errors import InvalidOption
from jobq.operations.rows import execute


@dataclass(frozen=True, slots=True)
class Actor:
    """The actor: a name, and over the status page the role and the address that it came from.

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
        execute(conn, schema, "audit_write", self.row(target, before=before, after=after))

    def row(
        self,
        target: Mapping[str, Any],
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the parameters of ``audit_write.sql``."""
        return {
            "actor": self.actor.name,
            "role": self.actor.role,
            "address": self.actor.address,
            "action": self.action,
            "reason": self.reason,
            "target": json.dumps(target),
            "before": None if before is None else json.dumps(before),
            "after": None if after is None else json.dumps(after),
        }


def current_actor(by: str) -> str:
    """Return the actor where the caller names none: JOBQ_ACTOR, or the user and host with `by` in parentheses."""
    if given := os.environ.get("JOBQ_ACTOR"):
        return given
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} ({by})"


def checked_name(name: str, value: str, longest: int) -> str:
    """Return `value`, or raise InvalidOption where it can be no name in the database."""
    if not isinstance(value, str):
        raise InvalidOption(f"{name}={value!r}: give text")
    if not value:
        raise InvalidOption(f"{name}='': give a name of 1 to {longest} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidOption(f"{name}={value[:50]!r} contains a lone surrogate: give Unicode text") from None
    return checked_text(name, value, longest)


def checked_text(name: str, value: str, longest: int) -> str:
    """Return `value`, or raise InvalidOption where Postgres or a reader could not take it."""
    if "\x00" in value or len(value) > longest:
        raise InvalidOption(f"{name}={value[:50]!r}: give at most {longest} characters, none of them NUL")
    return value
