"""The command line: one module a command group, imported only when its command is used.

Every option can also be given as a variable: ``JOBQ_<COMMAND>_<OPTION>``, or the shorter one in its help.
With ``--json`` standard output carries one JSON document and nothing else; notes, questions and progress go
to standard error. :mod:`jobq.cli.exits` has the exit codes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from jobq.cli import exits
from jobq.cli.options import database_options
from jobq.cli.session import Session

# name: (module below jobq.cli, what it does). The text stands here so that `jobq --help` imports no command;
# a test holds it to the command's own.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "Run the example application on an embedded Postgres."),
    "dev": ("dev", "Run Postgres, migrations, a worker and the status page for development."),
    "migrate": ("migrate", "Bring the database's schema to this version of jobq."),
    "worker": ("worker", "Work jobs until told to stop."),
    "web": ("web", "Serve the status page."),
    "enqueue": ("enqueue", "Insert one job."),
    "jobs": ("jobs", "List, show and change jobs."),
    "queues": ("queues", "List, show, limit, pause and resume queues."),
    "schedules": ("schedules", "List, show, add, remove, pause, resume and try schedules."),
    "workers": ("workers", "List workers, make them quiet, let them go on, stop them."),
    "users": ("users", "List, add, change and remove the status page's users."),
    "operations": ("operations", "List bulk operations, steer them, and carry them out."),
    "stats": ("stats", "Show how many jobs there are and how fast they go."),
    "doctor": ("doctor", "Check the database, the schema and the workers, and say what to do."),
    "metrics": ("metrics", "Print numbers about all queues for Prometheus."),
    "config": ("config", "Show every setting, its value and where it came from."),
}


class _ReaderLeft(Exception):
    """The process that read our output has gone, as ``| head`` does: there is no one left to tell."""


class LazyGroup(click.Group):
    """Imports a command's module when it is asked for, and turns every exception into an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names in the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command `cmd_name`, imported now."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"jobq.cli.{COMMANDS[cmd_name][0]}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    # click would end with 1, which says that something went wrong, when standard output is closed.

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse `args`; this is where help is printed."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except BrokenPipeError as error:
            raise _ReaderLeft from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:  # closed before we began, as `>&-` does
                sys.stdout.flush()
        except BrokenPipeError as error:
            raise _ReaderLeft from error
        return result

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit with one of :class:`jobq.cli.exits.Exit`; raise instead when not `standalone_mode`."""
        session = extra.setdefault("obj", Session())
        try:
            code = super().main(args, prog_name or "jobq", complete_var, standalone_mode=False, **extra)
        except _ReaderLeft:
            _silence_stdout()
            code = exits.Exit.OK
        except (Exception, KeyboardInterrupt) as error:
            if not standalone_mode:
                raise
            code = exits.report(error, debug=session.debug)
        if not standalone_mode:
            return code
        _silence_what_cannot_be_written()
        sys.exit(int(code) if isinstance(code, int) else 0)


def _silence_stdout() -> None:
    """Keep the interpreter's last flush from complaining about the closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _silence_what_cannot_be_written() -> None:
    """Keep the interpreter's last flush, of what a full disk did not take, from changing the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except ValueError:  # closed
            continue


def _set_debug(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    context.ensure_object(Session).debug = value


@click.group(
    cls=LazyGroup,
    context_settings={
        "auto_envvar_prefix": "JOBQ",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    },
    epilog="Exit codes: 0 done, 1 not done, 64 bad usage or input, 69 no database, 70 bug, 74 full disk, 75 try again, "
    "78 configuration or schema, 130 interrupted.",
)
@database_options
@click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    envvar="JOBQ_DEBUG",
    show_envvar=True,
    expose_value=False,
    callback=_set_debug,
    help="Print the traceback of an error.",
)
@click.version_option(package_name="jobq", message="jobq %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Durable jobs on PostgreSQL.

    Every option can also be given as a variable: JOBQ_<COMMAND>_<OPTION>, or the shorter one that its help
    names.
    """
    # The others log it, once their logs are set up.
    if context.invoked_subcommand not in ("worker", "web", "dev") and any(
        name.startswith("JOBQ_") for name in os.environ
    ):
        from jobq.cli import output, variables

        for each in variables.unknown():
            output.note(f"jobq: {each}")
