"""Every statement is named by a test of its plan, or stands here with the reason why it needs none."""

from __future__ import annotations

import ast
from pathlib import Path

import jobq._postgres.sql

STATEMENTS = Path(jobq._postgres.sql.__file__).parent
PLANS = Path(__file__).resolve().parents[1] / "plans"

_MAINTENANCE = "the table of maintenance tasks has a handful of rows"
_FUNCTION = "one function scan: the tests of plans explain the statements inside the function"
_FEW_USERS = "the page has few users; by the primary key, or all of them"
_FEW_WORKERS = "the table of workers has a row a worker; by the primary key, or all of them"
_SCHEDULES = "the table of schedules; by its key, once a name, at a worker's start"
_NO_TABLE = "it reads no table"
WITHOUT_A_TEST = {
    "maintenance_claim": _MAINTENANCE,
    "maintenance_defer": _MAINTENANCE,
    "maintenance_done": _MAINTENANCE,
    "maintenance_register": _MAINTENANCE,
    "claim_limited": _FUNCTION,
    "enqueue_keyed": _FUNCTION,
    "workflow_add_nodes": _FUNCTION,
    "declare_rules": "by queue_pkey, once a worker's start",
    "rate_prune": "a maintenance task that reads a small table whole",
    "heartbeat_queues": "the table of queues is small and is read whole",
    "heartbeat_notify_mode": _NO_TABLE,
    "partitions_missing": _NO_TABLE,
    "schedule_declare": _SCHEDULES,
    "schedule_failed": _SCHEDULES,
    "schedule_lost": _SCHEDULES,
    "schedule_taken": _SCHEDULES,
    "schedule_undeclared": "a maintenance task that reads the schedules of applications, and the table of workers, whole",
    "schedule_withdraw": "a maintenance task that reads the schedules of applications, and the table of workers, whole",
    "schedule_workers": _FEW_WORKERS,
    "user_add": _FEW_USERS,
    "user_change": _FEW_USERS,
    "user_find": _FEW_USERS,
    "user_remove": _FEW_USERS,
    "users": _FEW_USERS,
    "poller_lead": _NO_TABLE,
    "poller_lead_leave": _NO_TABLE,
    "transaction_mark": _NO_TABLE,
    "notify_mode_get": _NO_TABLE,
    "notify_mode_set": _NO_TABLE,
    "poller_lead_take": _NO_TABLE,
    "notify_workers": _NO_TABLE,
    "worker_lock": _NO_TABLE,
    "worker_peers": _FEW_WORKERS,
    "worker_register": "one row is inserted",
}


def statements() -> set[str]:
    """The names of all statements, whatever folder they are in; fragments are parts of statements and none themselves."""
    return {path.stem for path in STATEMENTS.rglob("*.sql") if "fragments" not in path.parts}


def named() -> set[str]:
    """The texts in the tests of plans that can be names of statements: keys of parameters cannot."""
    found: set[str] = set()
    for path in PLANS.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        keys = {key for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in keys:
                # Without folder and variant.
                found.add(node.value.rpartition("/")[2].partition(":")[0])
    return found


def test_every_statement_is_named_by_a_test_of_its_plan() -> None:
    assert len(statements()) > 100
    missing = statements() - named() - WITHOUT_A_TEST.keys()
    assert not missing, f"add a test in tests/plans, or a reason in {Path(__file__).name}: {sorted(missing)}"


def test_the_exceptions_are_needed() -> None:
    assert WITHOUT_A_TEST.keys() <= statements(), "a statement is gone: remove its exception"
    assert WITHOUT_A_TEST.keys().isdisjoint(named()), "there is a test of the plan: remove the exception"
