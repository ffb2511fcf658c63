"""The log of an attempt keeps the newest whole records, in bounded memory."""

from __future__ import annotations

import threading

import pytest

from jobq._core.logs.attempt import RECORD_BYTES, AttemptLog
from jobq.errors import ConfigurationError
from jobq.settings import Settings


def test_all_is_kept_that_fits() -> None:
    log = AttemptLog(1024)
    log.add("one\n  its second line")
    log.add("two")
    assert log.text() == "one\n  its second line\ntwo"


def test_the_oldest_records_go_and_whole_ones_stay() -> None:
    log = AttemptLog(1024)
    for number in range(1000):
        log.add(f"record {number}\n  its second line")
    first, *lines = log.text().split("\n")
    assert first == "… earlier records were left out …"
    assert lines[0].startswith("record ")
    assert lines[-2:] == ["record 999", "  its second line"]
    assert 900 < len(log.text().encode()) <= 1024


@pytest.mark.parametrize("text", ["x" * 100_000, "ü" * 100_000, "\x00" * 100_000, "\udc80" * 100_000])
@pytest.mark.parametrize("limit", [1024, 1025, 65_536])
def test_one_long_record_keeps_both_ends_and_the_limit(text: str, limit: int) -> None:
    log = AttemptLog(limit)
    log.add("before")
    log.add(f"begin {text} end")
    kept = log.text()
    assert len(kept.encode()) <= min(limit, RECORD_BYTES + 100)
    assert "begin " in kept
    assert kept.endswith(" end")
    assert "\x00" not in kept


def test_threads_of_one_job_add_at_once() -> None:
    log = AttemptLog(1024 * 1024)

    def add_many() -> None:
        for number in range(500):
            log.add(f"record {number}")

    threads = [threading.Thread(target=add_many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(log.text().split("\n")) == 4000


def test_the_setting() -> None:
    assert Settings.load({}).attempt_log_bytes == 65_536
    assert Settings.load({"JOBQ_ATTEMPT_LOG_BYTES": "0"}).attempt_log_bytes == 0
    for wrong in (-1, 1023, 1024 * 1024 + 1):
        with pytest.raises(ConfigurationError, match="expected 0, or a number from 1024 to 1048576"):
            Settings.load({}, attempt_log_bytes=wrong)
