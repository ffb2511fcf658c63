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

from jobq._core.validation import check_text
from jobq._postgres.statements import execute
from jobq.errors import InvalidOption


@dataclass(frozen=True, slots=True)
class Actor:
    """The actor: a name, and, for the status page, the role and the address.

    The command line and Python give only a name; a plain string is enough for that.
    """

    name: str
    role: str | None = None
    address: str | None = None


class AuditRecord:
    """An entry of the audit log. Raises InvalidOption for an unusable actor or reason."""

    __slots__ = ("action", "actor", "reason")

    def __init__(self, action: str, actor: str | Actor, reason: str | None) -> None:
        self.action = action
        self.actor = actor if isinstance(actor, Actor) else Actor(actor)
        self.reason = (check_text("reason", reason, 1000, least=0).strip() if reason else None) or None
        check_text("actor", self.actor.name, 200, least=0)
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
        """Write the row, in the transaction of the change that it records."""
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
    """Return the default actor: JOBQ_ACTOR, or the user and host with `by` in parentheses."""
    if given := os.environ.get("JOBQ_ACTOR"):
        return given
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, common in containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} ({by})"
