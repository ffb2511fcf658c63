"""What there is to set of the page. docs/reference.md has the same table; a test holds both to each other."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from jobq.config import read_secret
from jobq.errors import ConfigurationError
from jobq.web.access import ROLES, Identity
from jobq.web.prefix import clean_prefix
from jobq.web.redaction import SECRET_NAMES

_VARIABLE = "JOBQ_WEB_"
_LONGEST_SESSION = 10 * 366 * 86400.0
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
    """Everything that can be set of a page; each comment gives the meaning, the default and what choosing otherwise costs.

    Raises ConfigurationError naming the option that cannot be used.
    """

    # Signs forms, notes and sessions (default: the application's, else one that this process makes up). Several processes
    # need a common one; with one that is made up, logins and open forms end with the process.
    secret_key: str | bytes | None = None
    # The audit's name where there is no login, or a function that returns it (default: the server's REMOTE_USER, else "web").
    actor: str | Callable[[], str | None] | None = None
    # The role of those whom no login gives one (default: admin where there is no login at all, viewer behind a proxy's).
    # More lets every user that the proxy admits change things.
    default_role: str | None = None
    # Refuses every change, and reads in read-only transactions (default: off).
    read_only: bool = False
    # Log in with the users of `jobq users` (default: off). Costs a query every few seconds for each who is logged in.
    users: bool = False
    # Seconds without a click after which a login ends (default: 8 hours); a page that refreshes itself is no click.
    session_idle: float = 8 * 3600.0
    # Seconds after which it ends in any case (default: 7 days). Longer leaves a stolen cookie useful for longer.
    session_lifetime: float = 7 * 86400.0
    # One password for all, by HTTP basic authentication; the user's name is free (default: none).
    password: str | None = None
    # The role of those who know it (default: admin).
    password_role: str = "admin"  # noqa: S105 - a role
    # The header in which a proxy that does the login names the user, as X-Forwarded-User (default: none).
    proxy_header: str | None = None
    # The header with the user's role or groups, separated by commas (default: none: every user has `default_role`).
    proxy_role_header: str | None = None
    # From those groups to roles (default: none: the header has the roles' own names). The highest counts.
    proxy_roles: Mapping[str, str] = ()  # type: ignore[assignment]
    # Addresses and networks of the proxies (default: none). From anywhere else the headers above are refused, and
    # X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Prefix are ignored. One too wide lets any host in it act as any user.
    trusted_proxies: Collection[str] = ()
    # The path below which browsers find the page, as /ops/jobq, for `jobq web` and `create_app` behind a proxy (default: none,
    # or what a trusted proxy says in X-Forwarded-Prefix). Requests are answered with and without it. Not for a blueprint: its
    # application knows where it is mounted.
    url_prefix: str | None = None
    # A function of the host application that returns the request's Identity, or None (default: none).
    identify: Callable[[], Identity | None] | None = None
    # Fields whose values are hidden: parts of names, or paths as args.card.number and *.iban, where * stands for one or more
    # levels (default: `jobq.web.redaction.SECRET_NAMES`). Fewer show more than people should see.
    redact: Collection[str] = SECRET_NAMES
    # Further ones by role: {"viewer": ["args.salary"]} (default: none).
    redact_for: Mapping[str, Collection[str]] = ()  # type: ignore[assignment]
    # The least role that sees hidden values all the same (default: none). What is shown is also in browsers and on screens.
    reveal_to: str | None = None
    # How often a browser with JavaScript asks whether the page has changed (default: 5; 0: never).
    refresh_seconds: int = 5
    # How long a rendered page answers the same question of the same user (default: 2; 0: not at all); up to four times as long
    # where it takes long to make. Longer spares the database more, and shows later what other processes changed.
    cache_seconds: float = 2.0
    # The most that rendered pages take of this process (default: 16 MiB). Less renders some of them again.
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
            # It would be no login at all, and every visitor an admin.
            raise ConfigurationError("password='': give one of at least one character, or None for none")
        self._check_numbers()
        for proxy in self.trusted_proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise ConfigurationError(f"trusted_proxies={proxy!r}: give an address or a network: {error}") from None
        if self.url_prefix is not None:
            object.__setattr__(self, "url_prefix", _prefix(self.url_prefix))
        if self.proxy_header and not self.trusted_proxies:
            raise ConfigurationError(
                f"proxy_header={self.proxy_header!r}: name the proxies that may send it, as trusted_proxies=['127.0.0.1']"
            )
        if (self.proxy_role_header or self.proxy_roles) and not self.proxy_header:
            raise ConfigurationError("proxy_role_header, proxy_roles: give proxy_header, too")
        if self.proxy_roles and not self.proxy_role_header:
            raise ConfigurationError("proxy_roles: give proxy_role_header, which has the groups")

    def _check_numbers(self) -> None:
        for name in ("session_idle", "session_lifetime"):
            if not 0 < getattr(self, name) < _LONGEST_SESSION:
                raise ConfigurationError(
                    f"{name}={getattr(self, name)!r}: give a number of seconds above 0, and below ten years"
                )
        for name in ("refresh_seconds", "cache_seconds", "cache_bytes"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(f"{name}={getattr(self, name)!r}: give a number of at least 0")

    @property
    def has_login(self) -> bool:
        """Whether users have to identify themselves."""
        return bool(self.users or self.password or self.proxy_header or self.identify)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **given: Any) -> Options:
        """Return the options `given` (those that are not None), then of ``JOBQ_WEB_*`` variables, then the defaults.

        Lists in a variable are separated by commas, mappings are ``group=role``; JOBQ_WEB_REDACT adds to the default names.
        JOBQ_WEB_SECRET_KEY_FILE and JOBQ_WEB_PASSWORD_FILE name files that hold those.
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
            raise ConfigurationError(f"{name}={role!r}: give one of {', '.join(ROLES)}")


_NOT_IN_VARIABLES = ("actor", "identify", "redact_for")
# Each may also be the content of a file that JOBQ_WEB_…_FILE names.
IN_FILES = ("secret_key", "password")


def _prefix(text: str) -> str | None:
    found = clean_prefix(text)
    if found is None:
        raise ConfigurationError(f"url_prefix={text!r}: give a path such as /ops/jobq, without empty parts, . and ..")
    return found or None


def _parsed(name: str, text: str) -> Any:
    variable = _VARIABLE + name.upper()
    if name in ("read_only", "users"):
        if text.lower() not in (*_TRUE, *_FALSE):
            raise ConfigurationError(f"{variable}={text!r}: give 1 or 0")
        return text.lower() in _TRUE
    if name in ("session_idle", "session_lifetime", "cache_seconds", "refresh_seconds", "cache_bytes"):
        try:
            return int(text) if name in ("refresh_seconds", "cache_bytes") else float(text)
        except ValueError:
            raise ConfigurationError(f"{variable}={text!r}: give a number") from None
    if name == "trusted_proxies":
        return listed(text)
    if name == "redact":
        return (*SECRET_NAMES, *listed(text))
    return mapped(variable, listed(text)) if name == "proxy_roles" else text


def listed(text: str) -> list[str]:
    """Return the parts of `text` between commas."""
    return [part for item in text.split(",") if (part := item.strip())]


def mapped(name: str, parts: Collection[str]) -> dict[str, str]:
    """Return ``group=role`` pairs as a mapping; raise ConfigurationError naming `name` for anything else."""
    found = {}
    for part in parts:
        group, equals, role = part.rpartition("=")
        if not equals or not group.strip():
            raise ConfigurationError(f"{name}={part!r}: give group=role, as in ops=operator")
        found[group.strip()] = role.strip()
    return found
