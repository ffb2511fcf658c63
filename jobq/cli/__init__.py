"""The command line: one module per command group, imported only if its command is used.

Every option can also be set by a variable: ``JOBQ_<COMMAND>_<OPTION>``, or the shorter name in its
help. With ``--json``, standard output carries one JSON document and nothing else; notes, questions
and progress go to standard error. :mod:`jobq.cli.exits` defines the exit codes.

To add a command, write its module and add its line to COMMANDS.
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

# name: (module of jobq.cli, short help). The text is repeated here so that `jobq --help` imports no
# command; a test compares it with the command's own.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("dev", "Run the example application on an embedded Postgres."),
    "dev": ("dev", "Run Postgres, migrations, a worker and the status page for development."),
    "migrate": ("migrate", "Bring the database's schema to this version of jobq."),
    "worker": ("worker", "Run jobs until told to stop."),
    "web": ("web", "Serve the status page."),
    "enqueue": ("enqueue", "Insert one job."),
    "signal": ("signal", "Send a signal to a durable job."),
    "jobs": ("jobs", "List, show and change jobs."),
    "queues": ("queues", "List, show, limit, pause and resume queues."),
    "schedules": ("schedules", "List, show, add, remove, pause, resume and run schedules."),
    "workflows": ("workflows", "List, show, cancel, retry, undo and signal runs of workflows."),
    "steps": ("steps", "Check the stored steps of durable jobs against the code."),
    "workers": ("workers", "List, quiet, resume and stop workers."),
    "users": ("users", "List, add, change and remove the status page's users."),
    "operations": ("operations", "List, show, pause, resume, cancel and run bulk operations."),
    "stats": ("stats", "Show the number of jobs and the throughput."),
    "doctor": ("doctor", "Check the database, the schema and the workers, and suggest fixes."),
    "metrics": ("stats", "Print metrics of all queues for Prometheus."),
    "config": ("config", "Show every setting, its value and its origin."),
}


class _ReaderLeft(Exception):
    """The reader of our output has exited, as ``| head`` does. This is not an error."""


class LazyGroup(click.Group):
    """Imports the module of a command on demand, and turns every exception into an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order in which a new user needs them."""
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

    # Without the next two methods, click would exit with 1 if standard output is closed.

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse `args`, and print help if asked for."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except BrokenPipeError as error:
            raise _ReaderLeft from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:  # closed from the start, as by `>&-`
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
        """Run and exit with one of :class:`jobq.cli.exits.Exit`; raise instead when not
        `standalone_mode`.
        """
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
    """Keep the interpreter's last flush from changing the exit code if the disk is full."""
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
    epilog="Exit codes: 0 done, 1 not done, 64 bad usage or input, 69 no database, 70 bug, 74 disk full, 75 try again, "
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

    Every option can also be set by a variable: JOBQ_<COMMAND>_<OPTION>, or the shorter name in its
    help.
    """
    # These three log it, once their logs are configured.
    if context.invoked_subcommand not in ("worker", "web", "dev") and any(
        name.startswith("JOBQ_") for name in os.environ
    ):
        from jobq.cli import config, output

        for each in config.unknown_variables():
            output.note(f"jobq: {each}")
