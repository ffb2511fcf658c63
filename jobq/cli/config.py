"""``jobq config``, and the warning about ``JOBQ_*`` variables that nothing reads.

Most of those are misspelled: without the warning, the setting would silently keep its default.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import click

from jobq.cli import output
from jobq.cli.options import database_options, json_option
from jobq.cli.session import current

# Variables that are neither an option nor a setting.
_OTHERS = frozenset(
    {"JOBQ_ACTOR", "JOBQ_PG_BINDIR", "JOBQ_TEST_DATABASE_URL", "JOBQ_RUNNER", "JOBQ_CHAOS_SEED", "JOBQ_CHROMIUM"}
)
# Kubernetes adds the addresses of a service named `jobq` or `jobq-…` to the environment of each
# container.
_OF_KUBERNETES = re.compile(r"JOBQ_(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")


@click.command(short_help="Show every setting, its value and its origin.")
@database_options
@json_option
def config(as_json: bool) -> None:
    """Show every setting, its value and its origin: an argument, a variable or the default.

    Passwords are hidden.
    """
    from dataclasses import fields

    from jobq.settings import IN_FILES, Settings, redact_url

    session = current()
    origins = Settings.origins(**session.overrides)
    session.settings  # noqa: B018 - raises for a value that cannot be used
    rows = []
    for spec in fields(Settings):
        value, origin = origins[spec.name]
        shown = redact_url(value) if spec.name in IN_FILES and value else value
        rows.append({"name": spec.name, "value": shown, "origin": origin, "doc": spec.metadata["doc"]})
    if as_json:
        output.print_json(rows)
        return
    for row in rows:
        value = "(none)" if row["value"] is None else row["value"]
        click.echo(f"{row['name']} = {value}   ({row['origin']})")
        click.echo(click.wrap_text(str(row["doc"]), width=100, initial_indent="    ", subsequent_indent="    "))


@dataclass(frozen=True, slots=True)
class UnknownVariable:
    """A variable that is set but that nothing reads."""

    name: str
    meant: str | None
    """A known variable with a similar name, if there is one."""

    def __str__(self) -> str:
        return f"the variable {self.name} is set but has no effect: jobq has no such variable" + (
            f"; did you mean {self.meant}?" if self.meant else "; docs/cli.md explains the names of variables"
        )


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[UnknownVariable]:
    """Return the variables that begin with ``JOBQ_`` and that nothing reads, sorted by name."""
    given = os.environ if environ is None else environ
    names = [
        name
        for name, value in sorted(given.items())
        if name.startswith("JOBQ_")
        and name not in _settings()
        and not _OF_KUBERNETES.fullmatch(name)
        and not (name.endswith("_PORT") and value.startswith(("tcp://", "udp://")))
    ]
    if not names:
        return []
    known = _known()
    close = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.8) for name in names if name not in known}
    return [UnknownVariable(name, found[0] if found else None) for name, found in close.items()]


def _settings() -> frozenset[str]:
    """Return the variables that are known without importing any command."""
    from dataclasses import fields

    from jobq.settings import IN_FILES, Settings

    settings = {f"JOBQ_{field.name.upper()}" for field in fields(Settings)}
    in_files = {f"JOBQ_{name.upper()}_FILE" for name in IN_FILES} | {
        "JOBQ_WEB_PASSWORD_FILE",
        "JOBQ_WEB_SECRET_KEY_FILE",
    }
    return _OTHERS | settings | in_files | {"JOBQ_APP", "JOBQ_JSON", "JOBQ_DEBUG"}


def _known() -> frozenset[str]:
    """Return every variable that is read. This imports all commands. Call it inside a command."""
    main = click.get_current_context().find_root().command
    return _settings() | _web() | frozenset(_of_command(main, "JOBQ"))


def _of_command(command: click.Command, prefix: str) -> Iterator[str]:
    for parameter in command.params:
        explicit = parameter.envvar
        if isinstance(explicit, str):
            yield explicit
        elif explicit:
            yield from explicit
        if isinstance(parameter, click.Option) and parameter.allow_from_autoenv and parameter.name:
            yield f"{prefix}_{parameter.name.upper()}"
    if isinstance(command, click.Group):
        context = click.Context(command, info_name="jobq")
        for name in command.list_commands(context):
            if (child := command.get_command(context, name)) is not None:
                yield from _of_command(child, f"{prefix}_{name.upper().replace('-', '_')}")


def _web() -> frozenset[str]:
    from dataclasses import fields

    try:
        from jobq.web.options import Options
    except ModuleNotFoundError:  # the valid names are unknown without the extra `web`
        return frozenset(name for name in os.environ if name.startswith("JOBQ_WEB_"))
    return frozenset(f"JOBQ_WEB_{field.name.upper()}" for field in fields(Options))
