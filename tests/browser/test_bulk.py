"""Bulk operations from a filter: preview, the number typed, progress, pause, cancel, and the outcome of each job."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser import axe
from tests.browser.conftest import Site
from tests.browser.watching import Visitor
from tests.support.rows import add_finished, add_job
from tests.support.waiting import wait_until

Visit = Callable[..., Visitor]


def preview(page: Page, filter: str, action: str = "retry", **more: str) -> int:
    """From the list of jobs to the preview of an operation; return its id."""
    page.goto("/jobs")
    page.locator("#q").fill(filter)
    page.locator("#q").press("Enter")
    page.locator("summary", has_text="Change all that match…").click()
    box = page.locator("#bulk-all")
    box.get_by_label("Action").select_option(action)
    for label, value in more.items():
        box.locator(f"input[name={label}]").fill(value)
    box.get_by_role("button", name="Preview").click()
    page.wait_for_url(re.compile("/operations/[0-9]+"))
    found = re.search("/operations/([0-9]+)", page.url)
    assert found is not None
    return int(found[1])


def start(page: Page, *, reason: str = "", typed: str = "", rate: str = "") -> None:
    main = page.locator("#main")
    for name, text in (("reason", reason), ("typed", typed), ("rate", rate)):
        if text:
            main.locator(f"input[name={name}]").fill(text)
    main.get_by_role("button", name=re.compile("^(Start|Retry|Cancel the|Delete|Move|Snooze)")).first.click()


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_from_a_filter_to_the_last_job(site: Site, visit: Visit, script: bool) -> None:
    window = visit(site.url, java_script_enabled=script)
    page = window.page
    ids = site.failed(120)
    other = add_finished(site.conn, "failed", task="noop", error="something else")
    operation = preview(page, "state:failed task:record")
    main = page.locator("#main")
    expect(main).to_contain_text("state:failed task:record")
    expect(main).to_contain_text("120")
    # A sample to recognise them by: the newest.
    expect(main.get_by_role("link", name=str(ids[-1]), exact=True)).to_be_visible()
    assert main.locator("tbody tr").count() >= 20
    if script:
        assert axe.violations(page) == []
    # Failed after it was asked for: not touched, though it is like them.
    late = add_finished(site.conn, "failed", task="record", args={"note": "late"})

    # Nothing with a wrong number.
    window.expect_status(400)
    start(page, reason="the bank is back", typed="12")
    expect(page.locator("#main")).to_contain_text("120")
    assert site.jobs.one("SELECT state FROM jobq.operation WHERE id = %s", operation) == "draft"
    assert site.jobs.one("SELECT count(*) FROM ran") == 0

    page.goto(f"/operations/{operation}")
    start(page, reason="the bank is back", typed="120")
    wait_until(lambda: site.jobs.one("SELECT count(*) FROM ran WHERE job = ANY (%s)", ids) == 120, what="the 120")
    if not script:
        wait_until(lambda: site.jobs.one("SELECT state FROM jobq.operation") == "done", what="its end")
        page.reload()
    expect(page.locator("#main .state.done").first).to_be_visible()
    expect(main).to_contain_text("the bank is back")
    assert site.jobs.finished(late) is not None
    assert site.jobs.finished(other) is not None
    assert site.jobs.one("SELECT count(*) FROM ran") == 120
    assert site.jobs.one("SELECT done FROM jobq.operation") == 120
    # In the list, and in the audit.
    page.goto("/operations")
    expect(page.get_by_role("row").filter(has_text="state:failed task:record")).to_contain_text("120")
    page.goto("/audit")
    expect(page.locator("#main")).to_contain_text("the bank is back")
    assert {(actor, reason) for actor, _, reason in site.audit()} == {("ann", "the bank is back")}


def test_it_is_slowed_down_paused_and_cancelled(site: Site, visit: Visit) -> None:
    page = visit(site.url).page
    site.failed(1600)
    preview(page, "state:failed")
    # A batch of 500 each 10 s: there is time to think again.
    start(page, reason="slowly", typed="1600", rate="50")
    main = page.locator("#main")
    main.get_by_role("button", name="Pause", exact=True).click()
    expect(main.locator(".state.paused").first).to_be_visible()
    wait_until(lambda: site.jobs.one("SELECT state FROM jobq.operation") == "paused", what="the pause")
    main.get_by_role("button", name="Resume", exact=True).click()
    expect(main.locator(".state.running").first).to_be_visible()
    stop = main.locator("summary", has_text="Cancel")
    if stop.count():
        stop.click()
    main.get_by_role("button", name=re.compile("^Cancel")).last.click()
    expect(main.locator(".state.cancelled").first).to_be_visible()
    done = site.jobs.one("SELECT done FROM jobq.operation")
    assert done < 1600
    wait_until(lambda: site.jobs.one("SELECT count(*) FROM ran") == done, what="those that were begun")
    assert site.jobs.one("SELECT count(*) FROM jobq.job_history WHERE state = 'failed'") == 1600 - done


def test_each_job_has_its_outcome(site: Site, visit: Visit) -> None:
    page = visit(site.url).page
    conn = site.conn
    conn.execute("INSERT INTO jobq.queue (name, paused_at) VALUES ('held', now())")
    site.heard()
    kept = [add_job(conn, task="noop", queue="held") for _ in range(3)]
    running = kept[1]
    operation = preview(page, "queue:held state:ready", "delete")
    # Meanwhile one of them begins to run: it cannot be deleted any more.
    conn.execute("UPDATE jobq.job SET state = 'running', started_at = now() WHERE id = %s", (running,))
    start(page, reason="not needed")
    main = page.locator("#main")
    expect(main.locator(".state.done").first).to_be_visible()
    for id in (kept[0], kept[2]):
        assert site.jobs.live(id) is None
    assert site.jobs.live(running) is not None
    assert site.jobs.one("SELECT done FROM jobq.operation WHERE id = %s", operation) == 2


def test_an_empty_filter_is_no_filter(site: Site, visit: Visit) -> None:
    page = visit(site.url).page
    site.failed(2)
    page.goto("/jobs")
    expect(page.locator("#main tbody tr")).to_have_count(2)
    assert page.locator("summary", has_text="Change all that match…").count() == 0
