"""The status page's own users. The command line changes them and the page reads them; passwords are
stored as scrypt hashes.

Every change writes a row of the audit in the same statement. Visitors of the page cannot change
users: the page's database role has no right to write this table (deploy/roles.sql).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from jobq._core.text import brief
from jobq._core.validation import check_choice, check_text
from jobq._postgres.statements import fetch
from jobq._postgres.tables.page import WEB_ROLES
from jobq.errors import InvalidOption

LONGEST_NAME = 100
SHORTEST_PASSWORD, LONGEST_PASSWORD = 8, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user of the page. `changed_at`: the last change of the password or the role, which ended
    all earlier sessions.
    """

    name: str
    role: str
    changed_at: datetime
    created_at: datetime | None = None
    password_hash: str = field(default="", repr=False)


def add(conn: Connection[Any], schema: str, name: str, role: str, password: str, *, actor: str) -> bool:
    """Add a user. Return False if the name exists.

    Raises InvalidOption for an invalid name, role or password.
    """
    check_name(name)
    _check_role(role)
    return _done(conn, schema, "user_add", name=name, role=role, password_hash=hashed(password), actor=actor)


def set_role(conn: Connection[Any], schema: str, name: str, role: str, *, actor: str) -> bool:
    """Change the role of a user and end their sessions. Return False if the name is unknown."""
    _check_role(role)
    values = {"name": name, "role": role, "password_hash": None, "action": "user_set_role"}
    return _done(conn, schema, "user_change", **values, actor=actor)


def set_password(conn: Connection[Any], schema: str, name: str, password: str, *, actor: str) -> bool:
    """Change the password of a user and end their sessions. Return False if the name is unknown."""
    values = {"name": name, "role": None, "password_hash": hashed(password), "action": "user_set_password"}
    return _done(conn, schema, "user_change", **values, actor=actor)


def remove(conn: Connection[Any], schema: str, name: str, *, actor: str) -> bool:
    """Remove a user and end their sessions. Return False if the name is unknown."""
    return _done(conn, schema, "user_remove", name=name, actor=actor)


def find(conn: Connection[Any], schema: str, name: str) -> User | None:
    """Return a user with the hash of their password."""
    if "\x00" in name:
        return None
    found = fetch(conn, schema, "user_find", {"name": name}, class_row(User))
    return found[0] if found else None


def listed(conn: Connection[Any], schema: str) -> list[User]:
    """Return every user by name, without hashes."""
    return fetch(conn, schema, "users", {}, class_row(User))


def check_name(name: str) -> None:
    """Raise InvalidOption unless `name` can be a user's."""
    if check_text("name", name, LONGEST_NAME, printable=True) != name.strip():
        raise InvalidOption(f"name={brief(name)} begins or ends with a space: remove it")


def hashed(password: str) -> str:
    """Return the scrypt hash of `password`; InvalidOption for one shorter than 8 characters or
    longer than 1,000.
    """
    # With Flask, which only the page and this need.
    from werkzeug.security import generate_password_hash

    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        # Its value is not for logs, so the message does not have it.
        raise InvalidOption(
            f"password: expected {SHORTEST_PASSWORD} to {LONGEST_PASSWORD:,} characters, got {len(password)}"
        )
    return generate_password_hash(password, method="scrypt")


def _check_role(role: str) -> None:
    check_choice("role", role, WEB_ROLES)


def _done(conn: Connection[Any], schema: str, file: str, /, **values: Any) -> bool:
    with conn.transaction():
        return bool(fetch(conn, schema, file, values))
