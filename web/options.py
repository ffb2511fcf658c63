"""The options of the page. docs/reference.md has the same list; a test compares the two."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from jobq._core.durations import DAY, HOUR, YEAR
from jobq.errors import ConfigurationError
from jobq.settings import read_secret
from jobq.web.auth.access import ROLES, Identity
from jobq.web.rendering.redaction import SECRET_NAMES
from jobq.web.url_prefix import clean_prefix

_VARIABLE = "JOBQ_WEB_"
_LONGEST_SESSION = 10.0 * YEAR
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class OptionValues(TypedDict, total=False):
    """The fields of `Options`, as keyword arguments of `create_app` and `blueprint`."""

    secret_key: str | bytes | None
    actor: str | Callable[[], str | None] | None
    default_role: str | None
    read_only: bool
    users: bool
    session_idle: float
    session_lifetime: float
    password: str | None
    password_role: str
    proxy_header: str | None
    proxy_role_header: str | None
    proxy_roles: Mapping[str, str]
    trusted_proxies: Collection[str]
    url_prefix: str | None
    identify: Callable[[], Identity | None] | None
    redact: Collection[str]
    redact_for: Mapping[str, Collection[str]]
    reveal_to: str | None
    refresh_seconds: int
    cache_seconds: float
    cache_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All options of the page. Each comment states the meaning, the default and the trade-off.

    Raises ConfigurationError that names the invalid option.
    """

    # Signs forms, notes and sessions (default: the application's key, else a random one). Several
    # processes need a common key; with a random key, logins and open forms become invalid when the
    # process ends.
    secret_key: str | bytes | None = None
    # The name in the audit if there is no login, or a function that returns it (default: the
    # server's REMOTE_USER, else "web").
    actor: str | Callable[[], str | None] | None = None
    # The role of users without a role of their own (default: admin without any login, viewer behind
    # a proxy's login). A higher role lets every user that the proxy admits change things.
    default_role: str | None = None
    # Refuse every change, and read in read-only transactions (default: off).
    read_only: bool = False
    # Require a login with the users of `jobq users` (default: off). Costs a query every few seconds
    # for each active user.
    users: bool = False
    # Seconds of inactivity after which a login ends (default: 8 hours). A page that refreshes
    # itself is not activity.
    session_idle: float = 8.0 * HOUR
    # Seconds after which a login ends in any case (default: 7 days). If longer, a stolen cookie
    # stays useful for longer.
    session_lifetime: float = 7.0 * DAY
    # One password for all users, by HTTP basic authentication; any user name is accepted (default:
    # none).
    password: str | None = None
    # The role of users who log in with `password` (default: admin).
    password_role: str = "admin"  # noqa: S105 - a role
    # The header in which an authenticating proxy names the user, for example X-Forwarded-User
    # (default: none).
    proxy_header: str | None = None
    # The header with the user's role or groups, separated by commas (default: none: every user has
    # `default_role`).
    proxy_role_header: str | None = None
    # A mapping from those groups to roles (default: none; the header contains role names). The
    # highest role counts.
    proxy_roles: Mapping[str, str] = ()  # type: ignore[assignment]  # a mapping after __post_init__
    # Addresses and networks of the proxies (default: none). From other addresses, the headers above
    # are refused, and X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Prefix are ignored. Too
    # wide a network lets any host in it impersonate any user.
    trusted_proxies: Collection[str] = ()
    # The path below which browsers find the page, for example /ops/jobq, for `jobq web` and
    # `create_app` behind a proxy (default: none, or X-Forwarded-Prefix of a trusted proxy).
    # Requests are answered with and without it. Not for a blueprint: its application knows where it
    # is mounted.
    url_prefix: str | None = None
    # A function of the host application that returns the Identity of the current request, or None
    # (default: none).
    identify: Callable[[], Identity | None] | None = None
    # Fields whose values are hidden: parts of names, or paths such as args.card.number and *.iban,
    # where * stands for one or more levels (default: `jobq.web.rendering.redaction.SECRET_NAMES`).
    # A shorter list may show secrets.
    redact: Collection[str] = SECRET_NAMES
    # Further hidden fields by role: {"viewer": ["args.salary"]} (default: none).
    redact_for: Mapping[str, Collection[str]] = ()  # type: ignore[assignment]  # a mapping after __post_init__
    # The lowest role that sees hidden values (default: none). Shown values also reach browsers and
    # screens.
    reveal_to: str | None = None
    # Seconds between a browser's checks for changes (default: 5; 0: never). A lower value costs the
    # server more requests.
    refresh_seconds: int = 5
    # Seconds for which a rendered page is cached per user (default: 2; 0: no cache), or up to four
    # times as long if rendering is slow. A longer time saves the database work, and shows changes
    # by other processes later.
    cache_seconds: float = 2.0
    # The most bytes that cached pages take in this process (default: 16 MiB). With less, pages are
    # rendered again more often.
    cache_bytes: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "proxy_roles", dict(self.proxy_roles))
        object.__setattr__(self, "redact_for", dict(self.redact_for))
        for name in ("default_role", "password_role", "reveal_to"):
            self._role(name, getattr(self, name), optional=name != "password_role")
        for group, role in self.proxy_roles.items():
            self._role(f"proxy_roles[{group!r}]", role)
        for role in self.redact_for:
            self._role("redact_for", role)
        if self.password is not None and not self.password:
            # An empty password would be no login, and every visitor an admin.
            raise ConfigurationError("password='': expected at least one character, or None for no password")
        self._check_numbers()
        for proxy in self.trusted_proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise ConfigurationError(
                    f"trusted_proxies={proxy!r}: expected an address or a network: {error}"
                ) from None
        if self.url_prefix is not None:
            object.__setattr__(self, "url_prefix", _prefix(self.url_prefix))
        if self.proxy_header and not self.trusted_proxies:
            raise ConfigurationError(
                f"proxy_header={self.proxy_header!r}: name the proxies that may send it, e.g. "
                "trusted_proxies=['127.0.0.1']"
            )
        if (self.proxy_role_header or self.proxy_roles) and not self.proxy_header:
            raise ConfigurationError("proxy_role_header and proxy_roles need proxy_header")
        if self.proxy_roles and not self.proxy_role_header:
            raise ConfigurationError("proxy_roles needs proxy_role_header, which contains the groups")

    def _check_numbers(self) -> None:
        for name in ("session_idle", "session_lifetime"):
            if not 0 < getattr(self, name) < _LONGEST_SESSION:
                raise ConfigurationError(
                    f"{name}={getattr(self, name)!r}: expected a number of seconds above 0 and below ten years"
                )
        for name in ("refresh_seconds", "cache_seconds", "cache_bytes"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: expected a number of at least 0")

    @property
    def has_login(self) -> bool:
        """Whether an authentication method is configured."""
        return bool(self.users or self.password or self.proxy_header or self.identify)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **given: Any) -> Options:
        """Return the options: those `given` that are not None, then ``JOBQ_WEB_*`` variables, then
        defaults.

        A list in a variable is separated by commas, and a mapping is ``group=role``.
        JOBQ_WEB_REDACT adds to the default names. JOBQ_WEB_SECRET_KEY_FILE and
        JOBQ_WEB_PASSWORD_FILE name files that contain the value.
        """
        env = os.environ if environ is None else environ
        values = {name: value for name, value in given.items() if value is not None}
        for field in fields(cls):
            if field.name in values or field.name in _NOT_IN_VARIABLES:
                continue
            variable = _VARIABLE + field.name.upper()
            text = env.get(variable)
            if not text and field.name in IN_FILES and (path := env.get(f"{variable}_FILE")):
                text = read_secret(path, f"{variable}_FILE")
            if text:
                values[field.name] = _parsed(field.name, text)
        return cls(**values)

    @staticmethod
    def _role(name: str, role: str | None, *, optional: bool = False) -> None:
        if role not in ROLES and not (optional and role is None):
            raise ConfigurationError(f"{name}={role!r}: expected one of {', '.join(ROLES)}")


_NOT_IN_VARIABLES = ("actor", "identify", "redact_for")
# Each may also be the content of a file that JOBQ_WEB_…_FILE names.
IN_FILES = ("secret_key", "password")


def _prefix(text: str) -> str | None:
    found = clean_prefix(text)
    if found is None:
        raise ConfigurationError(
            f"url_prefix={text!r}: expected a path such as /ops/jobq, without empty parts, . and .."
        )
    return found or None


def _parsed(name: str, text: str) -> Any:
    variable = _VARIABLE + name.upper()
    if name in ("read_only", "users"):
        if text.lower() not in (*_TRUE, *_FALSE):
            raise ConfigurationError(f"{variable}={text!r}: expected 1 or 0")
        return text.lower() in _TRUE
    if name in ("session_idle", "session_lifetime", "cache_seconds", "refresh_seconds", "cache_bytes"):
        try:
            return int(text) if name in ("refresh_seconds", "cache_bytes") else float(text)
        except ValueError:
            raise ConfigurationError(f"{variable}={text!r}: expected a number") from None
    if name == "trusted_proxies":
        return listed(text)
    if name == "redact":
        return (*SECRET_NAMES, *listed(text))
    return mapped(variable, listed(text)) if name == "proxy_roles" else text


def listed(text: str) -> list[str]:
    """Return the parts of `text` between commas."""
    return [part for item in text.split(",") if (part := item.strip())]


def mapped(name: str, parts: Collection[str]) -> dict[str, str]:
    """Return ``group=role`` pairs as a mapping; raise ConfigurationError naming `name` for anything
    else.
    """
    found = {}
    for part in parts:
        group, equals, role = part.rpartition("=")
        if not equals or not group.strip():
            raise ConfigurationError(f"{name}={part!r}: expected group=role, as in ops=operator")
        found[group.strip()] = role.strip()
    return found
