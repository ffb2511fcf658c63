"""Connecting: one place, which names each connection and sets what jobq relies on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import AsyncConnection

import jobq
from jobq._postgres import connecting

SEEN = (
    "SELECT current_setting('application_name'), current_setting('client_encoding'), current_setting('DateStyle'), "
    "current_setting('bytea_output')"
)


@pytest.fixture
def odd_url(database_url: str) -> str:
    """An address with settings that jobq cannot work with, and a name."""
    return make_conninfo(
        database_url,
        application_name="theirs",
        client_encoding="LATIN1",
        options="-c DateStyle=SQL -c bytea_output=escape",
    )


@pytest.mark.parametrize(("purpose", "name"), [("cli", "jobq cli"), ("", "jobq"), (None, "theirs")])
async def test_names_and_settings(odd_url: str, purpose: str | None, name: str) -> None:
    want = (name, "UTF8", "ISO, YMD", "hex")
    with connecting.connect(odd_url, purpose, autocommit=True) as connection:
        assert connection.execute(SEEN).fetchone() == want
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    made = await connecting.connect_async_as(psycopg.AsyncConnection[Any], odd_url, purpose, within=5)
    async with made:
        assert made.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert await (await made.execute(SEEN)).fetchone() == want


async def test_engines_take_every_form_of_address(odd_url: str) -> None:
    engine = connecting.engine(lambda: connecting.connect(odd_url, "migrate"), NullPool)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT current_setting('application_name')")) == "jobq migrate"

    async def create() -> psycopg.AsyncConnection[Any]:
        return await connecting.connect_async_as(psycopg.AsyncConnection[Any], odd_url, "task")

    other = connecting.async_engine(create, NullPool)
    opened: AsyncConnection
    async with other.connect() as opened:
        assert await opened.scalar(text("SELECT current_setting('application_name')")) == "jobq task"


@pytest.mark.parametrize(("within", "whole"), [(0.2, 2), (1, 2), (2.4, 2), (10, 10), (1e9, 3600), (float("inf"), 3600)])
def test_timeouts_are_whole_seconds(within: float, whole: int) -> None:
    assert connecting.session_options("cli", within=within)["connect_timeout"] == whole
    assert "connect_timeout" not in connecting.session_options("cli")


def calls(path: Path) -> Iterator[str]:
    """The calls that connect or make an engine."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if (
            called.rpartition(".")[2] in ("create_engine", "create_async_engine")
            or (
                called.rpartition(".")[2] == "connect"
                and called.split(".")[-2:-1] in (["psycopg"], ["Connection"], ["kind"])
            )
            or (called.rpartition(".")[2] == "connect" and "Connection" in called)
        ):
            yield f"{path.name}:{node.lineno}"


def test_no_other_module_connects() -> None:
    root = Path(jobq.__file__).parent
    paths = [path for folder in (root, root / "web", root / "migrations") for path in folder.rglob("*.py")]
    found = {path: list(calls(path)) for path in paths}
    assert [call for path, made in found.items() if path != Path(connecting.__file__) for call in made] == []
    assert len(found[Path(connecting.__file__)]) == 4
