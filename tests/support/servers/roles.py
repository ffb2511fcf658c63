"""The roles of deploy/roles.sql, and users that have them."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from jobq.dev import bindir

ROLES_SQL = Path(__file__).resolve().parents[3] / "deploy" / "roles.sql"
ROLES = ("producer", "worker", "viewer", "operator")

Login = Callable[[str | None], str]


def grant_roles(url: str, **variables: str) -> None:
    options = [f"--set={name}={value}" for name, value in variables.items()]
    command = [str(bindir() / "psql"), "-X", "-q", "-d", url, *options, "-f", str(ROLES_SQL)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@contextmanager
def logins(database_url: str) -> Iterator[Login]:
    """Grant the roles; yield a function that returns the URL of a fresh user with a role of jobq's, or with none."""
    grant_roles(database_url)
    users: list[str] = []

    def url_of(role: str | None) -> str:
        user = f"u_{uuid.uuid4().hex[:12]}"
        create = sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(user))
        if role:
            create += sql.SQL(" IN ROLE {}").format(sql.Identifier(f"jobq_{role}"))
        with psycopg.connect(database_url) as connection:
            connection.execute(create)
        users.append(user)
        return database_url.replace("postgres@", f"{user}@")

    yield url_of
    with psycopg.connect(database_url) as connection:
        for user in users:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(user)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(user)))
