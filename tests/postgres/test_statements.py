"""Running a named statement: one function, whatever the connection's row factory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import scalar_row, tuple_row

import jobq
from jobq._postgres.statements import execute, fetch
from jobq.errors import PermissionDenied, SchemaError

Conn = psycopg.Connection[Any]


def test_rows_as_dictionaries_or_as_wanted(db: Conn) -> None:
    db.row_factory = scalar_row
    (row,) = fetch(db, "jobq", "next_id_above", {"after": 0})
    assert row == {"id": None}
    assert fetch(db, "jobq", "next_id_above", {"after": 0}, tuple_row) == [(None,)]
    execute(db, "jobq", "worker_leave", {"id": "00000000-0000-0000-0000-000000000000"})


def test_refusals_have_names(db: Conn) -> None:
    with pytest.raises(SchemaError, match="run `jobq migrate`") as raised, db.transaction():
        fetch(db, "no such schema", "next_id_above", {"after": 0})
    assert isinstance(raised.value, psycopg.errors.UndefinedTable)
    # Rolled back: roles belong to the whole server.
    db.autocommit = False
    db.execute("CREATE ROLE stranger")
    db.execute("SET LOCAL ROLE stranger")
    with pytest.raises(PermissionDenied):
        execute(db, "jobq", "worker_leave", {"id": "00000000-0000-0000-0000-000000000000"})
    db.rollback()


def test_no_other_module_runs_a_named_statement() -> None:
    """But for the worker, whose statements have deadlines, and the executors of all kinds of connections."""
    root = Path(jobq.__file__).parent
    found = [
        str(path.relative_to(root))
        for folder in (root, root / "web")
        for path in folder.rglob("*.py")
        if re.search(r"statement\([^)]*\)\.query", path.read_text(encoding="utf-8"))
    ]
    assert [path for path in found if not path.startswith(("worker/", "_worker/"))] == ["_postgres/statements.py"]
