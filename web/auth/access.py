"""Three roles over named permissions. There is one table, which routes, templates and tests read."""

from __future__ import annotations

from dataclasses import dataclass

from jobq.pagetables import WEB_ROLES

ROLES = WEB_ROLES

# The permission of a route that must work before a login: the login itself.
ANYONE = "anyone"

# Each permission and the least role that has it; viewer < operator < admin.
LEAST_ROLE = {
    "view": "viewer",
    "export": "viewer",
    "retry": "operator",
    "cancel": "operator",
    "run_now": "operator",
    "snooze": "operator",
    "move": "operator",
    "pause": "operator",
    "configure": "operator",
    "bulk": "operator",
    "schedule": "operator",
    "worker_quiet": "operator",
    "worker_stop": "admin",
    # A user who may choose a task and its arguments can have anything done that the application can do.
    "schedule_add": "admin",
    "delete": "admin",
}
# What changes nothing, and stays allowed on a read-only page.
READING = frozenset({ANYONE, "view", "export"})


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a request comes from: the `name` that the audit gets, and a `role` of `ROLES`."""

    name: str
    role: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role={self.role!r}: give one of {', '.join(ROLES)}")


def may(role: str | None, permission: str) -> bool:
    """Whether `role` (None: no one is logged in) has `permission`. Raises KeyError for a permission not in the table: a
    misspelt one must not read as "no" in one place and go unseen.
    """
    if permission == ANYONE:
        return True
    least = LEAST_ROLE[permission]
    return role in ROLES and ROLES.index(role) >= ROLES.index(least)
