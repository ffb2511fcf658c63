"""Batches in the slot table: which of their jobs have started, as the other process sees it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobq._worker.ipc.slot_table import MARKS, SlotTable, Started


@pytest.fixture
def table() -> Iterator[SlotTable]:
    table = SlotTable.create(2)
    yield table
    table.close()


def test_a_batch_is_seen_with_its_number_and_size(table: SlotTable) -> None:
    assert table.start_batch(1, 7, [(3, 1), (9, 2)], now=5.0, deadline=6.0) == [0, 1]
    assert table.at(0) is None
    assert table.started() == [Started(-7, 2, 5.0, 6.0, 7)]
    assert [table.batch_of(mark) for mark in (1, 2, 3)] == [7, 7, 0]
    # The jobs before them may still wait.
    assert table.newest == 0


def test_a_batch_that_has_ended_leaves_its_marks(table: SlotTable) -> None:
    table.start_batch(0, 1, [(1, 1)], now=5.0, deadline=None)
    table.clear(0)
    assert (table.started(), table.batch_of(1)) == ([], 1)
    table.reset_mark(1)
    assert table.batch_of(1) == 0


def test_jobs_that_were_taken_back_are_left_out_and_their_marks_not_touched(table: SlotTable) -> None:
    table.revoked = 2
    # The dispatcher may have given the mark to another job meanwhile.
    table.start_batch(0, 1, [(8, 1)], now=5.0, deadline=None)
    assert table.start_batch(1, 2, [(1, 1), (2, 2), (3, 3)], now=5.0, deadline=None) == [2]
    assert [table.batch_of(mark) for mark in (1, 2, 3)] == [1, 0, 2]
    assert [slot.claims for slot in table.started()] == [1, 1]


def test_a_batch_whose_jobs_were_all_taken_back_does_not_start(table: SlotTable) -> None:
    table.revoked = 2
    assert table.start_batch(0, 1, [(1, 1), (2, 2)], now=5.0, deadline=None) == []
    assert table.started() == []


def test_jobs_that_are_taken_back_during_the_start_do_not_start(table: SlotTable) -> None:
    """The start writes the marks first, and then looks again."""

    class Revoking(list[tuple[int, int]]):
        """A batch during whose start the dispatcher takes jobs back: after the first look at their serials."""

        def __getitem__(self, place: object) -> tuple[int, int]:  # type: ignore[override]
            table.revoked = 1
            return super().__getitem__(place)  # type: ignore[no-any-return, call-overload]

    assert table.start_batch(0, 1, Revoking([(1, 1), (2, 2)]), now=5.0, deadline=None) == [1]
    assert [table.batch_of(mark) for mark in (1, 2)] == [0, 1]
    [started] = table.started()
    assert started.claims == 1


def test_the_last_mark_fits(table: SlotTable) -> None:
    table.start_batch(1, 1, [(1, MARKS)], now=5.0, deadline=None)
    assert table.batch_of(MARKS) == 1
