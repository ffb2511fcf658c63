"""``jobq users add|list|set-role|set-password|remove``: the users that may log in to the status
page.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import click

from jobq._postgres.tables.page import WEB_ROLES
from jobq.cli import output
from jobq.cli.options import database_options, json_option
from jobq.cli.session import actor, current
from jobq.errors import ConfigurationError, InvalidOption

_role_option = click.option(
    "--role",
    type=click.Choice(WEB_ROLES),
    default="viewer",
    show_default=True,
    show_envvar=True,
    help="Permissions: a viewer reads, an operator also changes jobs and queues, an admin also deletes "
    "jobs and stops workers.",
)
_password_option = click.option(
    "--password-stdin",
    is_flag=True,
    show_envvar=True,
    help="Read the password from one line of standard input (default: ask).",
)


@click.group(short_help="List, add, change and remove the status page's users.")
def users() -> None:
    """List, add, change and remove the status page's users. `jobq web --users` requires them to log
    in.
    """


@users.command("list")
@database_options
@json_option
def list_(*, as_json: bool) -> None:
    """List the users, without their passwords."""
    known = _users()

    session = current()
    with session.connect() as connection:
        found = known.listed(connection, session.schema)
    if as_json:
        fields = ("name", "role", "created_at", "changed_at")
        output.print_json({"users": [{name: getattr(user, name) for name in fields} for user in found]})
        return
    rows = ((user.name, user.role, output.safe(user.created_at), output.safe(user.changed_at)) for user in found)
    output.print_table(("name", "role", "added", "changed"), rows, empty="no users; add one with `jobq users add NAME`")


@users.command()
@click.argument("name")
@_role_option
@_password_option
@database_options
@json_option
def add(*, name: str, role: str, password_stdin: bool, as_json: bool) -> None:
    """Add the user NAME."""
    known = _users()

    known.check_name(name)
    password = _password(password_stdin)
    _change(
        lambda conn, schema: known.add(conn, schema, name, role, password, actor=actor()),
        f"user {name!r} already exists; see `jobq users set-password` and `set-role`",
    )
    _tell(name, "added", as_json, role=role)


@users.command("set-role")
@click.argument("name")
@click.argument("role", type=click.Choice(WEB_ROLES))
@database_options
@json_option
def set_role(*, name: str, role: str, as_json: bool) -> None:
    """Change the ROLE of the user NAME, and end their sessions."""
    known = _users()

    _change(lambda conn, schema: known.set_role(conn, schema, name, role, actor=actor()), _unknown(name))
    _tell(name, "changed", as_json, role=role)


@users.command("set-password")
@click.argument("name")
@_password_option
@database_options
@json_option
def set_password(*, name: str, password_stdin: bool, as_json: bool) -> None:
    """Change the password of the user NAME, and end their sessions."""
    known = _users()

    password = _password(password_stdin)
    _change(lambda conn, schema: known.set_password(conn, schema, name, password, actor=actor()), _unknown(name))
    _tell(name, "changed", as_json)


@users.command()
@click.argument("name")
@database_options
@json_option
def remove(*, name: str, as_json: bool) -> None:
    """Remove the user NAME, and end their sessions."""
    known = _users()

    _change(lambda conn, schema: known.remove(conn, schema, name, actor=actor()), _unknown(name))
    _tell(name, "removed", as_json)


def _users() -> ModuleType:
    try:
        from jobq.web.auth import users
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"the status page's users need {error.name}: pip install 'jobq[web]'") from error
    return users


def _password(from_stdin: bool) -> str:
    # Never an argument: arguments are in the shell's history, and every user of the machine can
    # read them.
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.UsageError("cannot ask for the password without a terminal: pass --password-stdin")
    answer: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return answer


def _change(change: Callable[[Any, str], bool], otherwise: str) -> None:
    session = current()
    with session.connect() as connection:
        done = change(connection, session.schema)
    if not done:
        raise InvalidOption(otherwise)


def _unknown(name: str) -> str:
    return f"user {name!r} does not exist; see `jobq users list`"


def _tell(name: str, done: str, as_json: bool, **more: str) -> None:
    if as_json:
        output.print_json({"user": name, "done": done, **more})
    else:
        click.echo(output.line(f"user {name} is {done}" + (f", as {more['role']}" if "role" in more else "")))
