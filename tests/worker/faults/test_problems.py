"""What a worker cannot do: bounded, whatever fails; and what an error of the database is about."""

from __future__ import annotations

import time

import psycopg
import pytest

from jobq._worker.database_errors import ErrorKind, Unreachable, classify
from jobq._worker.faults.problems import FORGET_AFTER, MOST, MOST_TEXT, Problems
from tests.support.checks import some


def test_a_problem_is_counted_until_it_is_over() -> None:
    problems = Problems()
    for _ in range(3):
        problems.note("write an outcome", ValueError("no\x00 room"), job=7)
    problems.note("write an outcome", ValueError("other"), job=8)
    first, second = problems.rows()
    assert (first["what"], first["job"], first["tries"], first["error"]) == ("write an outcome", 7, 3, "no\\x00 room")
    problems.clear("write an outcome", job=7)
    assert problems.rows() == [second]


def test_many_problems_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = Problems()
    for job in range(1000):
        problems.note("write an outcome", "x" * 10_000, job=job)
    assert len(problems.rows()) == MOST
    assert all(len(row["error"]) <= MOST_TEXT + 50 for row in some(problems.rows()))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + FORGET_AFTER + 1)
    assert problems.rows() == []


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        *((state, ErrorKind.CONNECTION) for state in ("08006", "57P01", "57P03", "25006", "26000")),
        *((state, ErrorKind.TRANSIENT) for state in ("55P03", "57014", "40001", "40P01", "53100", "53300", "55006")),
        *((state, ErrorKind.REFUSED) for state in ("22003", "23505", "42501", "P0001", "XX000", "42P01", "0A000")),
    ],
)
def test_what_an_error_is_about(state: str, kind: ErrorKind) -> None:
    assert classify(psycopg.errors.lookup(state)("said")) is kind


def test_errors_without_a_state() -> None:
    assert classify(psycopg.OperationalError("the connection is lost")) is ErrorKind.CONNECTION
    assert classify(psycopg.InterfaceError("the connection is closed")) is ErrorKind.CONNECTION
    assert classify(TimeoutError()) is ErrorKind.CONNECTION
    assert classify(Unreachable("no slots left", refused=True, state="53300")) is ErrorKind.CONNECTION
    assert classify(psycopg.DataError("NUL bytes cannot be sent")) is ErrorKind.REFUSED
