"""A database in which not every text can be stored is refused with a sentence, before anything is made in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from jobq import ConfigurationError, migrate
from jobq.cli import main
from tests.support.servers.postgres import Server


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
def other_url(request: pytest.FixtureRequest, server: Server) -> Iterator[str]:
    name = f"jobq_{request.param.lower()}"
    with server.admin() as admin:
        admin.execute(
            f"CREATE DATABASE {name} ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0".encode()
        )
        try:
            yield server.database_url(name)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def run(url: str, *command: str) -> Any:
    return CliRunner().invoke(main, [*command], env={"JOBQ_DATABASE_URL": url})


@pytest.mark.parametrize("suffix", ["", "client_encoding=SQL_ASCII"])
def test_it_is_refused(other_url: str, suffix: str) -> None:
    url = other_url + (("&" if "?" in other_url else "?") + suffix if suffix else "")
    with pytest.raises(ConfigurationError, match=r"has the encoding (SQL_ASCII|LATIN1)"):
        migrate.upgrade(url)
    for command in (("migrate",), ("doctor",)):
        found = run(url, *command)
        assert found.exit_code == 78, found.output
        assert "ENCODING 'UTF8'" in found.output
        assert "Traceback" not in found.output
    findings = json.loads(run(url, "doctor", "--json").stdout)
    assert "encoding" in [finding["check"] for finding in findings["checks"] if finding["status"] == "fail"]
    with psycopg.connect(other_url) as connection:
        assert connection.execute("SELECT to_regnamespace('jobq')").fetchone() == (None,)
