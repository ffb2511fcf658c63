"""Records made inside a task carry its job, whatever handlers the application has."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from jobq import JobQ
from jobq._core.logs import context as log_context
from jobq._core.logs import formats
from jobq.testing import eager, fake_job

q = JobQ()
shop = logging.getLogger("shop")


@q.task(queue="mail")
def send(extra: dict[str, Any]) -> None:
    shop.warning("sending", extra=extra)


@q.task
async def fetch() -> None:
    shop.warning("in the coroutine")
    await asyncio.gather(
        asyncio.create_task(_log("in a task of its own")), asyncio.to_thread(shop.warning, "in a thread")
    )


@q.task(max_attempts=3)
def bound() -> None:
    structlog.contextvars.bind_contextvars(customer=7)
    structlog.get_logger().info("charged")


async def _log(message: str) -> None:
    shop.warning(message)


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler = Kept()
    shop.addHandler(handler)
    yield handler
    shop.removeHandler(handler)


def carried(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name in log_context.FIELDS}


def test_a_record_inside_a_task_carries_its_job(kept: Kept) -> None:
    with eager(q) as jobs:
        send.submit({})
        [job] = jobs.jobs
    shop.warning("afterwards")
    inside, after = kept.records
    assert carried(inside) == {"job_id": job.id, "task": "send", "queue": "mail", "attempt": 1}
    assert carried(after) == {}


def test_the_formats_show_it(kept: Kept) -> None:
    with eager(q):
        send.submit({})
    line = json.loads(formats.JsonFormatter().format(kept.records[0]))
    assert (line["task"], line["queue"], line["attempt"]) == ("send", "mail", 1)
    assert "task=send queue=mail attempt=1" in formats.TextFormatter().format(kept.records[0])
    own = logging.Formatter("%(job_id)s %(task)s: %(message)s", defaults=dict.fromkeys(log_context.FIELDS, "-"))
    assert own.format(kept.records[0]) == f"{line['job_id']} send: sending"
    shop.warning("outside")
    assert own.format(kept.records[1]) == "- -: outside"


def test_the_applications_own_fields_of_these_names_stay(kept: Kept) -> None:
    with eager(q):
        send.submit({"task": "pack", "queue": 3})
    assert (vars(kept.records[0])["task"], vars(kept.records[0])["queue"]) == ("pack", 3)
    assert vars(kept.records[0])["attempt"] == 1


def test_asyncio_tasks_and_their_threads_inherit_it(kept: Kept) -> None:
    with eager(q) as jobs:
        fetch.submit()
        [job] = jobs.jobs
    assert len(kept.records) == 3
    assert [carried(record)["job_id"] for record in kept.records] == [job.id] * 3


def test_a_fake_job_is_carried(kept: Kept) -> None:
    with fake_job(id=17, task="send", queue="mail", attempt=2):
        shop.warning("inside")
        assert structlog.contextvars.get_contextvars() == {
            "job_id": 17, "task": "send", "queue": "mail", "attempt": 2,
        }  # fmt: skip
    assert carried(kept.records[0]) == {"job_id": 17, "task": "send", "queue": "mail", "attempt": 2}
    assert structlog.contextvars.get_contextvars() == {}


def test_structlog_has_it_and_loses_it_with_the_job() -> None:
    stream = io.StringIO()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    try:
        with eager(q) as jobs:
            bound.submit()
            [job] = jobs.jobs
    finally:
        structlog.reset_defaults()
    assert json.loads(stream.getvalue()) == {
        "event": "charged", "customer": 7, "job_id": job.id, "task": "bound", "queue": "default", "attempt": 1,
    }  # fmt: skip
    assert structlog.contextvars.get_contextvars() == {}


def test_it_is_installed_once() -> None:
    log_context.install()
    installed = logging.Logger.makeRecord
    log_context.install()
    assert logging.Logger.makeRecord is installed
