"""``jobq web``."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from jobq._postgres.tables.page import WEB_ROLES
from jobq._worker.health.systemd import Notifier
from jobq.cli import output
from jobq.cli.config import unknown_variables
from jobq.cli.options import database_options, log_options
from jobq.cli.session import current
from jobq.errors import ConfigurationError

if TYPE_CHECKING:
    from jobq.web.options import OptionValues

F = TypeVar("F", bound=Callable[..., Any])

_ROLE = click.Choice(WEB_ROLES)
# The defaults are in `jobq.web.Options`, which also reads the variables; an option that is not
# passed is None here. The secret key and the password have no option, since every user of a machine
# can read its command lines.
_PAGE_OPTIONS = (
    click.option(
        "--users",
        is_flag=True,
        default=None,
        show_envvar=True,
        help="Require a login with the users of `jobq users` (default: off).",
    ),
    click.option(
        "--read-only",
        is_flag=True,
        default=None,
        show_envvar=True,
        help="Refuse every change by every user (default: off).",
    ),
    click.option(
        "--default-role",
        type=_ROLE,
        show_envvar=True,
        help="Role of users without a role of their own (default: admin without any login, viewer behind a proxy).",
    ),
    click.option(
        "--password-role",
        type=_ROLE,
        show_envvar=True,
        help="Role of users who log in with JOBQ_WEB_PASSWORD (default: admin).",
    ),
    click.option(
        "--proxy-header",
        metavar="NAME",
        show_envvar=True,
        help="Header in which an authenticating proxy names the user (default: none).",
    ),
    click.option(
        "--proxy-role-header",
        metavar="NAME",
        show_envvar=True,
        help="Header with the role or groups of that user (default: none; the user has --default-role).",
    ),
    click.option(
        "--proxy-role",
        metavar="GROUP=ROLE",
        multiple=True,
        allow_from_autoenv=False,
        help="Role of a group in that header; repeatable (default: the header contains role names).  "
        "[env var: JOBQ_WEB_PROXY_ROLES]",
    ),
    click.option(
        "--trusted-proxy",
        metavar="NETWORK",
        multiple=True,
        allow_from_autoenv=False,
        help="Address or network of a proxy whose headers count; repeatable (default: none). Too wide a "
        "network lets any host in it impersonate any user.  [env var: JOBQ_WEB_TRUSTED_PROXIES]",
    ),
    click.option(
        "--url-prefix",
        metavar="PATH",
        show_envvar=True,
        help="Path below which a proxy serves the page, e.g. /ops/jobq (default: none).",
    ),
    click.option(
        "--session-idle",
        metavar="SECONDS",
        type=float,
        show_envvar=True,
        help="Inactivity after which a login ends (default: 8 hours). Longer is more convenient and less safe.",
    ),
    click.option(
        "--session-lifetime",
        metavar="SECONDS",
        type=float,
        show_envvar=True,
        help="Time after which a login ends in any case (default: 7 days).",
    ),
    click.option(
        "--redact",
        metavar="FIELD",
        multiple=True,
        allow_from_autoenv=False,
        help="Also hide this field: a part of a name, or a path; repeatable (default: fields with names of secrets).  "
        "[env var: JOBQ_WEB_REDACT]",
    ),
    click.option(
        "--reveal-to", type=_ROLE, show_envvar=True, help="Lowest role that sees hidden values (default: none)."
    ),
    click.option(
        "--refresh-seconds",
        type=click.IntRange(0),
        show_envvar=True,
        help="Seconds between a browser's checks for changes; 0: never (default: 5). A lower value costs "
        "the server more requests.",
    ),
    click.option(
        "--cache-seconds",
        type=click.FloatRange(0),
        show_envvar=True,
        help="Seconds for which a rendered page is cached (default: 2). A higher value saves database "
        "work, and shows changes later.",
    ),
    click.option(
        "--cache-bytes",
        type=click.IntRange(0),
        show_envvar=True,
        help="Most memory that cached pages take (default: 16 MiB).",
    ),
)


def page_options(function: F) -> F:
    """Accept the options of the page."""
    for decorate in reversed(_PAGE_OPTIONS):
        function = decorate(function)
    return function


@click.command(short_help="Serve the status page.")
@database_options
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    show_envvar=True,
    help="Address to listen on. Another than loopback needs a login.",
)
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
    """Serve the status page: queues, jobs, schedules, workers, and the forms that change them.

    Without a login, the page listens on this machine only. docs/reference.md lists the remaining
    options, such as the secret key and the password.
    """
    from jobq._core.logs import formats

    session = current()
    session.url  # noqa: B018 - raises if no database is configured
    formats.configure("json" if (log_format or formats.default_format()) == "json" else "text", log_level)
    for each in unknown_variables():
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
        # As after Ctrl-C, the server closes its sockets on the way out.
        raise SystemExit(0)

    app = create_app(session.settings, **_options(given))
    signal.signal(signal.SIGTERM, leave)
    serve(app, host, port, ready=ready)


def _options(given: dict[str, Any]) -> OptionValues:
    from jobq.web.options import OptionValues, mapped
    from jobq.web.rendering.redaction import SECRET_NAMES

    groups, proxies, fields = given.pop("proxy_role"), given.pop("trusted_proxy"), given.pop("redact")
    found = {name: value for name, value in given.items() if value is not None}
    if groups:
        found["proxy_roles"] = mapped("--proxy-role", groups)
    if proxies:
        found["trusted_proxies"] = proxies
    if fields:
        found["redact"] = (*SECRET_NAMES, *fields)
    return cast(OptionValues, found)
