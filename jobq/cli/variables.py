"""``JOBQ_*`` variables that nothing reads: most are misspelled, and what they should set keeps its default in silence."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import click

# Read elsewhere than by an option or a setting.
_OTHERS = frozenset(
    {"JOBQ_ACTOR", "JOBQ_PG_BINDIR", "JOBQ_TEST_DATABASE_URL", "JOBQ_RUNNER", "JOBQ_CHAOS_SEED", "JOBQ_CHROMIUM"}
)
# Kubernetes puts the addresses of a service called `jobq` or `jobq-…` into the environment of each container.
_OF_KUBERNETES = re.compile(r"JOBQ_(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")


@dataclass(frozen=True, slots=True)
class Unknown:
    """A variable that is set and that nothing reads."""

    name: str
    meant: str | None
    """The known variable that it resembles, if there is one."""

    def __str__(self) -> str:
        return f"the variable {self.name} is set and has no effect: jobq knows none of this name" + (
            f"; did you mean {self.meant}?" if self.meant else "; docs/cli.md tells how variables are named"
        )


def unknown(environ: Mapping[str, str] | None = None) -> list[Unknown]:
    """Return the variables that begin with ``JOBQ_`` and that nothing reads, in order."""
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
    return [Unknown(name, found[0] if found else None) for name, found in close.items()]


def _settings() -> frozenset[str]:
    """Return what most environments have, and is known without the import of a command."""
    from dataclasses import fields

    from jobq.config import IN_FILES, Settings

    settings = {f"JOBQ_{field.name.upper()}" for field in fields(Settings)}
    in_files = {f"JOBQ_{name.upper()}_FILE" for name in IN_FILES} | {
        "JOBQ_WEB_PASSWORD_FILE",
        "JOBQ_WEB_SECRET_KEY_FILE",
    }
    return _OTHERS | settings | in_files | {"JOBQ_APP", "JOBQ_JSON", "JOBQ_DEBUG"}


def _known() -> frozenset[str]:
    """Return every variable that is read: imports all commands."""
    from jobq.cli import main

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
    except ModuleNotFoundError:  # without the extra `web` the valid names are not known
        return frozenset(name for name in os.environ if name.startswith("JOBQ_WEB_"))
    return frozenset(f"JOBQ_WEB_{field.name.upper()}" for field in fields(Options))
