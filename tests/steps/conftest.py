"""What the tests of durable tasks share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file in which tasks leave lines (`tests.support.traces`), whatever user runs them."""
    tmp_path.chmod(0o777)
    return str(tmp_path / "trace")
