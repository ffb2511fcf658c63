"""The memory that a runner shares with its dispatcher: whole words, and no job both started and taken back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from jobq._worker.ipc.slot_table import SlotTable, Started

WRITER = """
import sys
from jobq._worker.ipc.slot_table import SlotTable
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


def test_the_newest_start_outlasts_its_job_and_is_the_newest_of_all_slots(table: SlotTable) -> None:
    assert table.newest == 0
    assert table.start(0, 5, 50, 1, now=1.0, deadline=None)
    assert table.start(1, 4, 40, 1, now=1.0, deadline=None)
    table.clear(0)
    assert (table.newest, [running.id for running in table.started()]) == (5, [40])
    assert table.start(0, 6, 60, 1, now=2.0, deadline=None)
    assert table.newest == 6


def test_two_tables_of_one_memory_tell_the_same(table: SlotTable) -> None:
    """As dispatcher and runner have them."""
    other = SlotTable(os.dup(table.fd), 2)
    try:
        other.beat(3.5, 0.25)
        table.lease_ends, table.revoked = 9.5, 7
        assert table.pulse == (3.5, 0.25)
        assert (other.lease_ends, other.revoked) == (9.5, 7)
        assert not other.start(1, 7, 70, 1, now=1.0, deadline=None)
        assert table.start(1, 8, 80, 2, now=1.0, deadline=4.0)
        assert other.at(1) == Started(80, 2, 1.0, 4.0)
    finally:
        other.close()


def test_why_a_runner_ended_itself_is_left_behind(table: SlotTable) -> None:
    assert (table.ended_by_lease, table.ended_cut_off, table.taken_for_over) == (False, False, 0.0)
    table.end_by_lease(12.5)
    assert (table.ended_by_lease, table.ended_cut_off, table.taken_for_over) == (True, False, 12.5)
    table.end_cut_off()
    assert (table.ended_by_lease, table.ended_cut_off) == (False, True)


def test_closing_again_is_no_error() -> None:
    table = SlotTable.create(1)
    table.close()
    table.close()
