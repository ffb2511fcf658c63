"""The status page's own users: made and changed by the command line, read by the page. Passwords are kept as scrypt hashes.

Every change is a row of the audit, in the same statement. No visitor of the page can do this: the page's database role
may not write here (deploy/roles.sql).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row, dict_row

from jobq.errors import InvalidOption
from jobq.pagetables import WEB_ROLES
from jobq.sql import statement

LONGEST_NAME = 100
SHORTEST_PASSWORD, LONGEST_PASSWORD = 8, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One who may log in. `changed_at` is of the password or the role; sessions that are older have ended."""

    name: str
    role: str
    changed_at: datetime
    created_at: datetime | None = None
    password_hash: str = field(default="", repr=False)


def add(conn: Connection[Any], schema: str, name: str, role: str, password: str, *, actor: str) -> bool:
    """Add a user. False when there is one of this name.

    Raises InvalidOption for a name, a role or a password that cannot be.
    """
    check_name(name)
    _check_role(role)
    return _done(conn, schema, "user_add", name=name, role=role, password_hash=hashed(password), actor=actor)


def set_role(conn: Connection[Any], schema: str, name: str, role: str, *, actor: str) -> bool:
    """Give a user another role, and end their sessions. False when there is none of this name."""
    _check_role(role)
    values = {"name": name, "role": role, "password_hash": None, "action": "user_set_role"}
    return _done(conn, schema, "user_change", **values, actor=actor)


def set_password(conn: Connection[Any], schema: str, name: str, password: str, *, actor: str) -> bool:
    """Give a user another password, and end their sessions. False when there is none of this name."""
    values = {"name": name, "role": None, "password_hash": hashed(password), "action": "user_set_password"}
    return _done(conn, schema, "user_change", **values, actor=actor)


def remove(conn: Connection[Any], schema: str, name: str, *, actor: str) -> bool:
    """Remove a user, and end their sessions. False when there is none of this name."""
    return _done(conn, schema, "user_remove", name=name, actor=actor)


def find(conn: Connection[Any], schema: str, name: str) -> User | None:
    """Return a user with the hash of their password."""
    if "\x00" in name:
        return None
    with conn.cursor(row_factory=class_row(User)) as cursor:
        return cursor.execute(statement("user_find", schema).query, {"name": name}).fetchone()


def listed(conn: Connection[Any], schema: str) -> list[User]:
    """Return every user by name, without hashes."""
    with conn.cursor(row_factory=class_row(User)) as cursor:
        return cursor.execute(statement("users", schema).query).fetchall()


def check_name(name: str) -> None:
    """Raise InvalidOption unless `name` can be a user's."""
    if (
        not isinstance(name, str)
        or not 1 <= len(name) <= LONGEST_NAME
        or name != name.strip()
        or not name.isprintable()
    ):
        raise InvalidOption(
            f"name={str(name)[:50]!r}: give 1 to {LONGEST_NAME} printable characters, without spaces at either end"
        )


def hashed(password: str) -> str:
    """Return the scrypt hash of `password`; InvalidOption for one shorter than 8 characters or longer than 1,000."""
    # With Flask, which only the page and this need.
    from werkzeug.security import generate_password_hash

    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        # Its value is not for logs, so the message does not have it.
        raise InvalidOption(
            f"password: give {SHORTEST_PASSWORD} to {LONGEST_PASSWORD:,} characters, got {len(password)}"
        )
    return generate_password_hash(password, method="scrypt")


def _check_role(role: str) -> None:
    if role not in WEB_ROLES:
        raise InvalidOption(f"role={role!r}: give one of {', '.join(WEB_ROLES)}")


def _done(conn: Connection[Any], schema: str, file: str, /, **values: Any) -> bool:
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement(file, schema).query, values).fetchone() is not None
