"""``jobq web``."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from jobq.cli import output, variables
from jobq.cli.options import database_options, log_options
from jobq.cli.session import current
from jobq.errors import ConfigurationError
from jobq.pagetables import WEB_ROLES
from jobq.worker.notify import Notifier

if TYPE_CHECKING:
    from jobq.web.options import OptionValues

F = TypeVar("F", bound=Callable[..., Any])

_ROLE = click.Choice(WEB_ROLES)
# Defaults stand in `jobq.web.Options`, which also reads the variables; what is not given here is None. The secret key and the
# password have no option: every user of a machine can read its command lines.
_PAGE_OPTIONS = (
    click.option("--users", is_flag=True, default=None, show_envvar=True, help="Have people log in; see `jobq users`."),
    click.option("--read-only", is_flag=True, default=None, show_envvar=True, help="Refuse every change, by any user."),
    click.option("--default-role", type=_ROLE, show_envvar=True, help="Role of those whom no login gives one."),
    click.option("--password-role", type=_ROLE, show_envvar=True, help="Role of those who know JOBQ_WEB_PASSWORD."),
    click.option(
        "--proxy-header",
        metavar="NAME",
        show_envvar=True,
        help="Header in which a proxy names the user it has logged in.",
    ),
    click.option(
        "--proxy-role-header", metavar="NAME", show_envvar=True, help="Header with that user's role or groups."
    ),
    click.option(
        "--proxy-role",
        metavar="GROUP=ROLE",
        multiple=True,
        allow_from_autoenv=False,
        help="Role of a group.  [env var: JOBQ_WEB_PROXY_ROLES]",
    ),
    click.option(
        "--trusted-proxy",
        metavar="NETWORK",
        multiple=True,
        allow_from_autoenv=False,
        help="Address or network of a proxy to believe.  [env var: JOBQ_WEB_TRUSTED_PROXIES]",
    ),
    click.option(
        "--url-prefix",
        metavar="PATH",
        show_envvar=True,
        help="Path below which a proxy shows the page, e.g. /ops/jobq.",
    ),
    click.option(
        "--session-idle", metavar="SECONDS", type=float, show_envvar=True, help="A login ends after so long unused."
    ),
    click.option(
        "--session-lifetime", metavar="SECONDS", type=float, show_envvar=True, help="A login ends after so long."
    ),
    click.option(
        "--redact",
        metavar="FIELD",
        multiple=True,
        allow_from_autoenv=False,
        help="Hide this field, too: part of a name, or a path.  [env var: JOBQ_WEB_REDACT]",
    ),
    click.option("--reveal-to", type=_ROLE, show_envvar=True, help="Least role that sees hidden values all the same."),
    click.option(
        "--refresh-seconds", type=click.IntRange(0), show_envvar=True, help="How often browsers ask; 0: never."
    ),
    click.option(
        "--cache-seconds", type=click.FloatRange(0), show_envvar=True, help="How long a rendered page is kept."
    ),
    click.option("--cache-bytes", type=click.IntRange(0), show_envvar=True, help="The most that kept pages take."),
)


def page_options(function: F) -> F:
    """Accept what there is to set of the page."""
    for decorate in reversed(_PAGE_OPTIONS):
        function = decorate(function)
    return function


@click.command(short_help="Serve the status page.")
@database_options
@click.option("--host", default="127.0.0.1", show_default=True, show_envvar=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8642,
    show_default=True,
    show_envvar=True,
    help="Port to listen on; 0 for a free one.",
)
@page_options
@log_options
def web(*, host: str, port: int, log_format: str | None, log_level: str, **given: Any) -> None:
    """Serve the status page: queues, jobs, workers; retry and cancel.

    Without a login it is for this machine only. What else there is to set, the secret key and the password among it, is
    told by docs/reference.md.
    """
    from jobq import logs

    session = current()
    session.url  # noqa: B018 - without a database there is nothing to show
    logs.configure("json" if (log_format or logs.default_format()) == "json" else "text", log_level)
    for each in variables.unknown():
        logging.getLogger("jobq.cli").warning(str(each), extra={"variable": each.name})
    try:
        from jobq.web import create_app, serve
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"the status page needs {error.name}: pip install 'jobq[web]'") from error
    notifier = Notifier.from_environment()

    def ready(address: str) -> None:
        output.note(f"the status page is at {address}")
        notifier.tell(READY=1, STATUS=f"serving {address}")

    def leave(_number: int, _frame: object) -> None:
        notifier.tell(STOPPING=1)
        # The server closes its sockets on its way out, as it does at Ctrl-C.
        raise SystemExit(0)

    app = create_app(session.settings, **_options(given))
    signal.signal(signal.SIGTERM, leave)
    serve(app, host, port, ready=ready)


def _options(given: dict[str, Any]) -> OptionValues:
    from jobq.web.options import OptionValues, mapped
    from jobq.web.redaction import SECRET_NAMES

    groups, proxies, fields = given.pop("proxy_role"), given.pop("trusted_proxy"), given.pop("redact")
    found = {name: value for name, value in given.items() if value is not None}
    if groups:
        found["proxy_roles"] = mapped("--proxy-role", groups)
    if proxies:
        found["trusted_proxies"] = proxies
    if fields:
        found["redact"] = (*SECRET_NAMES, *fields)
    return cast(OptionValues, found)
