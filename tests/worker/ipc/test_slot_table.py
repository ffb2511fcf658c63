"""The memory that a runner shares with its dispatcher: whole words, and no job both started and taken back."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from jobq.worker.slots import SlotTable, Started

WRITER = """
import sys
from jobq.worker.slots import SlotTable
table, at = SlotTable(int(sys.argv[1]), 2), 1
print("go", flush=True)
while True:
    for _ in range(1000):
        at += 1
        table.revoked = at
        table.lease_ends = float(at)
        table.beat(float(at), 0.0)
"""


@pytest.fixture
def table() -> Iterator[SlotTable]:
    table = SlotTable.create(2)
    yield table
    table.close()


def test_no_field_is_seen_half_written(table: SlotTable) -> None:
    """A serial that is read as zero for a moment would let a runner start what was taken back long ago."""
    table.revoked, table.lease_ends = 1, 1.0
    table.beat(1.0, 0.0)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(table.fd)], pass_fds=[table.fd], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "go\n"
        last = (0, 0.0, 0.0)
        until = time.monotonic() + 1
        while time.monotonic() < until or last[0] < 1000:
            for _ in range(1000):
                seen = (table.revoked, table.lease_ends, table.pulse[0])
                assert all(now >= before for now, before in zip(seen, last, strict=True)), (last, seen)
                last = seen
    finally:
        writer.kill()
        writer.communicate()


def test_what_was_taken_back_does_not_start(table: SlotTable) -> None:
    assert table.start(0, 1, 77, 3, now=5.0, deadline=None)
    assert table.started() == [Started(77, 3, 5.0, None)]
    table.clear(0)
    assert (table.started(), table.newest) == ([], 1)
    table.revoked = 2
    assert not table.start(0, 2, 78, 1, now=6.0, deadline=7.0)
    assert (table.started(), table.newest) == ([], 1)
    assert table.start(1, 3, 78, 2, now=6.0, deadline=7.0)
    assert (table.started(), table.newest) == ([Started(78, 2, 6.0, 7.0)], 3)
    assert table.at(0) is None
