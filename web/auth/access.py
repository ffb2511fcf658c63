"""Roles and permissions: one table that routes, templates and tests read."""

from __future__ import annotations

from dataclasses import dataclass

from jobq._postgres.tables.page import WEB_ROLES

ROLES = WEB_ROLES

# The permission of routes that must work before a login, such as the login page itself.
ANYONE = "anyone"

# Each permission and the lowest role that has it: viewer < operator < admin.
REQUIRED_ROLE = {
    "view": "viewer",
    "export": "viewer",
    "retry": "operator",
    "cancel": "operator",
    "run_now": "operator",
    "snooze": "operator",
    "move": "operator",
    "signal": "operator",
    "pause": "operator",
    "configure": "operator",
    "bulk": "operator",
    "schedule": "operator",
    "worker_quiet": "operator",
    "worker_stop": "admin",
    # Admins only: a user who chooses a task and its arguments can make the application do anything
    # it can do.
    "schedule_add": "admin",
    "delete": "admin",
}
# Permissions that change nothing; a read-only page allows them.
READING = frozenset({ANYONE, "view", "export"})


@dataclass(frozen=True, slots=True)
class Identity:
    """The user of a request: the `name` that the audit records, and one of `ROLES`."""

    name: str
    role: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role={self.role!r}: expected one of {', '.join(ROLES)}")


def may(role: str | None, permission: str) -> bool:
    """Return whether `role` has `permission`; None stands for a user who is not logged in.

    Raises KeyError for an unknown permission, so that a misspelled name cannot pass for "not
    allowed".
    """
    if permission == ANYONE:
        return True
    least = REQUIRED_ROLE[permission]
    return role in ROLES and ROLES.index(role) >= ROLES.index(least)
