"""Debounced calls timed to the claim of their job: the last version of every document is worked on."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from bench.reliability import debounce


@pytest.mark.parametrize("limited", [False, True])
def test_no_version_is_lost(database_url: str, tmp_path: Path, limited: bool) -> None:
    queue = debounce.limited(database_url) if limited else "default"
    found = debounce.debounce(database_url, tmp_path, documents=240, authors=12, queue=queue)
    assert (found.calls, found.neither, found.lost, found.keys_left) == (720, 0, 0, 0)
    # Some were replaced: there were fewer runs than calls.
    assert 240 <= found.runs < 720
    with psycopg.connect(database_url) as connection:
        ended = connection.execute("SELECT state, count(*) FROM jobq.job_history GROUP BY 1").fetchall()
    assert ended == [("succeeded", found.runs)]
