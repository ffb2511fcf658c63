"""What is particular to the page of one job: its life to scale, attempts and what differs between them, large arguments."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser import seeds
from tests.browser.conftest import DataSet
from tests.browser.watching import Visitor

Visit = Callable[..., Visitor]
Get = Callable[[seeds.Name], DataSet]


def test_the_life_is_drawn_to_scale(data_set: Get, visit: Visit) -> None:
    served = data_set("little")
    page = visit(served.url).page
    page.goto(f"/jobs/{served.seeded.jobs['failed']}")
    drawing = page.locator("svg.timeline")
    expect(drawing).to_be_visible()
    width: dict[str, float] = {}
    for kind in ("timeout", "crashed"):
        box = drawing.locator(f"rect.{kind}").bounding_box()
        assert box is not None
        width[kind] = box["width"]
    # They ran for 30 s and for 22 s.
    assert width["timeout"] / width["crashed"] == pytest.approx(30 / 22, rel=0.1)
    fold = page.locator("details", has_text="As a table").last
    if fold.get_attribute("open") is None:
        fold.locator("summary").click()
    table = page.get_by_role("table", name="The timeline of the job, oldest first")
    for word in ("created", "attempt 1", "attempt 2", "attempt 3", "attempt 4", "failed"):
        expect(table).to_contain_text(word)


def test_what_differs_between_two_attempts(data_set: Get, visit: Visit) -> None:
    served = data_set("little")
    page = visit(served.url).page
    page.goto(f"/jobs/{served.seeded.jobs['retrying']}")
    page.locator("details.diff-of summary").first.click()
    diff = page.locator("pre.diff").first
    expect(diff).to_be_visible()
    expect(diff).to_contain_text("-shop.bank.BankUnavailable: bank answered 502 after 3.4 s")
    expect(diff).to_contain_text("+shop.bank.BankUnavailable: bank answered 502 after 6.4 s")


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("paused", "paused"),
        ("scheduled", "due"),
        ("unserved", "thumbnail.render"),
        ("retrying", "due"),
        ("grouped", "of its group customer:42, which is running"),
        ("turn", "before it"),
    ],
)
def test_why_it_waits(data_set: Get, visit: Visit, job: str, words: str) -> None:
    served = data_set("little")
    page = visit(served.url).page
    page.goto(f"/jobs/{served.seeded.jobs[job]}")
    expect(page.locator("#why")).to_contain_text(words, ignore_case=True)


def test_a_large_argument(data_set: Get, visit: Visit, tmp_path: Any) -> None:
    served = data_set("lot")
    page = visit(served.url).page
    id = served.seeded.jobs["huge"]
    began = time.monotonic()
    page.goto(f"/jobs/{id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(str(id))
    # Generous: the page must not carry the 2 MB.
    assert time.monotonic() - began < 15
    assert len(page.content()) < 400_000
    with page.expect_download() as download:
        page.locator("section[aria-labelledby=args]").get_by_role("link", name="Download").click()
    kept = tmp_path / "args.json"
    download.value.save_as(kept)
    stored = served.conn.execute("SELECT args FROM jobq.job WHERE id = %s", (id,)).fetchone()
    assert stored is not None
    assert json.loads(kept.read_text(encoding="utf-8")) == stored[0]


def test_numbers_and_depth_are_as_stored(data_set: Get, visit: Visit) -> None:
    served = data_set("lot")
    page = visit(served.url).page
    page.goto(f"/jobs/{served.seeded.jobs['deep']}")
    shown = page.locator("section[aria-labelledby=args]")
    expect(shown).to_contain_text("9007199254740993")
    expect(shown).to_contain_text("12345678901234567890123")


def test_secrets_are_not_shown(data_set: Get, visit: Visit) -> None:
    served = data_set("little")
    page = visit(served.url).page
    for path in (f"/jobs/{served.seeded.jobs['failed']}", "/jobs", f"/api/jobs/{served.seeded.jobs['failed']}"):
        page.goto(path)
        assert "tok_4242" not in page.content()


def test_times_by_the_reader_s_clock(data_set: Get, visit: Visit) -> None:
    served = data_set("little")
    page = visit(served.url, timezone_id="Asia/Kolkata").page
    page.goto(f"/jobs/{served.seeded.jobs['failed']}")
    created = page.locator("dl.facts time").first
    expect(created).to_contain_text("UTC")
    page.locator("#zone").click()
    expect(created).to_contain_text("+05:30")
    page.reload()
    expect(created).to_contain_text("+05:30")
