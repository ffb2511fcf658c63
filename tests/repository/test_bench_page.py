"""The page's bench, small: its seeds fill every page, and it finds each of them by itself. It measures nothing here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from bench.page import reads, seed, tabs
from jobq.web import create_app
from jobq.web.server import close
from tests.browser.serving import PageProcess
from tests.support.checks import some

# It asks for every page of the status page.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class NoServer:
    """Stands for the bench's server, of which only the CPU time is asked."""

    def cpu(self, without: Any = ()) -> float:
        return 0.0


def test_every_page_is_found_and_answers(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        seed.fill(connection, 0.0006, lambda _: None)
        seed.beat(connection)
        found = reads.measure(NoServer(), database_url, connection, 1)  # type: ignore[arg-type]
        [(states,)] = connection.execute("SELECT count(DISTINCT state) FROM jobq.job_history").fetchall()
    assert states == 4
    assert {case.name: case.error for case in found if case.error is not None} == {}
    assert all(len(case.times) == 1 for case in some(found))
    app = create_app(database_url=database_url)
    rules = {rule.rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())}
    close(app)
    measured = {case.name.split("  ")[0] for case in found}
    assert rules - measured == {
        rule
        for rule in rules
        if rule.endswith(("<path:filename>", "<path:anything>", "/livez", "/favicon.ico", "/login"))
    }


async def test_tabs_are_answered_with_what_they_know_already(database_url: str, tmp_path: Path) -> None:
    page = PageProcess(database_url, tmp_path / "page.log")
    try:
        got = await tabs.run(page.url, 3, 11)
    finally:
        page.close()
    assert got["requests"] == 7
    assert got["statuses"].keys() == {"200", "304"}
    assert got["statuses"]["304"] >= 2
