"""Each action through its form against a real worker, with JavaScript and without."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.apps import plain as apps
from tests.browser.conftest import Site
from tests.browser.watching import Visitor
from tests.support.rows import add_finished, add_job
from tests.support.waiting import wait_until

pytestmark = pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])

Visit = Callable[..., Visitor]


def said(page: Page) -> str:
    """What the page says of the last action, once it does."""
    expect(page.locator("#note")).to_be_visible()
    return page.locator("#note").inner_text()


def form(page: Page, title: str) -> None:
    """Open the form behind “title…”."""
    page.locator("details.ask > summary", has_text=f"{title}…").click()


def fill(page: Page, label: str, text: str) -> None:
    """Fill a field of the form that is open."""
    page.locator("details.ask[open]").get_by_label(label, exact=True).fill(text)


def press(page: Page, name: str) -> None:
    page.locator("#main").get_by_role("button", name=name, exact=True).click()


def test_a_job_is_retried_and_run_now(site: Site, visit: Visit, script: bool) -> None:
    page = visit(site.url, java_script_enabled=script).page
    (dead,) = site.failed(1)
    page.goto(f"/jobs/{dead}")
    press(page, "Retry")
    assert said(page)
    assert site.jobs.wait(dead)["state"] in ("failed", "succeeded")
    wait_until(lambda: site.jobs.traces(dead) == ["0"], what="the job's second life")

    later = add_job(site.conn, task="record", args={"note": "later"}, run_in=3600)
    page.goto(f"/jobs/{later}")
    press(page, "Run now")
    assert said(page)
    assert site.jobs.wait(later)["state"] == "succeeded"
    assert [action for _, action, _ in site.audit()] == ["retry", "run_now"]
    assert {actor for actor, _, _ in site.audit()} == {"ann"}


def test_a_job_is_snoozed_moved_and_cancelled(site: Site, visit: Visit, script: bool) -> None:
    page = visit(site.url, java_script_enabled=script).page
    conn = site.conn
    conn.execute("INSERT INTO jobq.queue (name, paused_at) VALUES ('held', now())")
    site.heard()
    snoozed, moved, cancelled = (
        add_job(conn, task="record", queue="held", args={"note": note}) for note in ("snoozed", "moved", "cancelled")
    )
    running = apps.wait.enqueue(conn, 600).id
    wait_until(lambda: (site.jobs.live(running) or {}).get("state") == "running", what="the job to run")

    page.goto(f"/jobs/{snoozed}")
    form(page, "Snooze")
    fill(page, "Delay", "2h")
    fill(page, "Reason", "not before the evening")
    press(page, "Snooze")
    assert said(page)
    assert 7000 < site.jobs.one("SELECT extract(epoch FROM run_at - now()) FROM jobq.job WHERE id = %s", snoozed) < 7201

    page.goto(f"/jobs/{moved}")
    form(page, "Move")
    fill(page, "Queue", "default")
    fill(page, "Priority, 0 to 9", "9")
    press(page, "Move")
    assert said(page)
    ended = site.jobs.wait(moved)
    assert (ended["queue"], ended["priority"], ended["state"]) == ("default", 9, "succeeded")

    for id in (cancelled, running):
        page.goto(f"/jobs/{id}")
        form(page, "Cancel")
        fill(page, "Reason", "a mistake")
        press(page, "Cancel the job")
        assert said(page)
        assert site.jobs.wait(id)["state"] == "cancelled"
    assert site.jobs.traces(cancelled) == []
    assert [(action, reason) for _, action, reason in site.audit()] == [
        ("snooze", "not before the evening"), ("move", None), ("cancel", "a mistake"), ("cancel", "a mistake"),
    ]  # fmt: skip


def test_a_job_is_deleted(site: Site, visit: Visit, script: bool) -> None:
    window = visit(site.url, java_script_enabled=script)
    page = window.page
    gone = add_finished(site.conn, "succeeded", task="record", args={"note": "gone"})
    page.goto(f"/jobs/{gone}")
    form(page, "Delete")
    # Where the job was there is nothing to come back to.
    press(page, f"Delete job {gone}")
    assert str(gone) in said(page) or "deleted" in said(page).lower()
    assert site.jobs.finished(gone) is None
    window.expect_status(404)
    page.goto(f"/jobs/{gone}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not found")


def test_a_reload_does_nothing_twice(site: Site, visit: Visit, script: bool) -> None:
    page = visit(site.url, java_script_enabled=script).page
    (dead,) = site.failed(1)
    page.goto(f"/jobs/{dead}")
    press(page, "Retry")
    assert said(page)
    page.reload()
    page.go_back()
    page.go_forward()
    wait_until(lambda: site.jobs.traces(dead), what="the retry")
    assert len(site.audit()) == 1


def test_ticked_jobs_are_retried(site: Site, visit: Visit, script: bool) -> None:
    page = visit(site.url, java_script_enabled=script).page
    first, second, third = site.failed(3)
    page.goto("/jobs?q=state:failed")
    for id in (first, third):
        page.get_by_label(f"Job {id}", exact=True).check()
    page.locator("[data-bulk]").get_by_label("Reason").fill("the bank is back")
    page.locator("[data-bulk]").get_by_role("button", name="Retry").click()
    assert "2" in said(page)
    for id, note in ((first, "0"), (third, "2")):
        wait_until(lambda id=id, note=note: site.jobs.traces(id) == [note], what=f"job {id}")  # type: ignore[misc]
    assert site.jobs.finished(second) is not None
    assert site.jobs.traces(second) == []
    assert site.audit()[0] == ("ann", "retry", "the bank is back")
    # The filter is still there.
    expect(page.locator("#q")).to_have_value("state:failed")


def test_a_queue_is_paused_and_resumed(site: Site, visit: Visit, script: bool) -> None:
    page = visit(site.url, java_script_enabled=script).page
    conn = site.conn
    site.jobs.wait(apps.record.options(queue="mails & more").enqueue(conn, "before").id)
    conn.execute("INSERT INTO jobq.queue (name) VALUES ('mails & more') ON CONFLICT DO NOTHING")
    page.goto("/queues")
    row = page.get_by_role("row").filter(has_text="mails & more")
    row.locator("summary", has_text="Pause…").click()
    row.get_by_label("Reason").fill("the mail server is being moved")
    row.get_by_role("button", name="Pause", exact=True).click()
    assert "mails & more" in said(page)
    expect(row).to_contain_text("the mail server is being moved")
    site.heard()
    held = apps.record.options(queue="mails & more").enqueue(conn, "held").id
    # A job of another queue that was put in later has run: the worker has looked, and left the paused one alone.
    site.jobs.wait(apps.record.enqueue(conn, "other").id)
    page.goto(f"/jobs/{held}")
    expect(page.locator("#why")).to_contain_text("paused")
    expect(page.locator("#why")).to_contain_text("ann")
    assert site.jobs.finished(held) is None
    page.goto("/queues")
    row.get_by_role("button", name="Resume").click()
    assert "mails & more" in said(page)
    assert site.jobs.wait(held)["state"] == "succeeded"
    assert site.audit() == [
        ("ann", "pause", "the mail server is being moved"), ("ann", "resume", None),
    ]  # fmt: skip


def test_a_worker_is_quieted_resumed_and_stopped(site: Site, visit: Visit, script: bool) -> None:
    page = visit(site.url, java_script_enabled=script).page
    conn = site.conn
    page.goto("/workers")
    press(page, "Quiet")
    assert said(page)
    wait_until(lambda: site.jobs.one("SELECT state FROM jobq.worker") == "quiet", what="the worker to be quiet")
    held = apps.record.enqueue(conn, "held").id
    page.goto("/workers")
    expect(page.get_by_role("row").filter(has_text=str(site.worker.pid))).to_contain_text("quiet")
    assert site.jobs.finished(held) is None
    press(page, "Resume")
    assert said(page)
    assert site.jobs.wait(held)["state"] == "succeeded"
    page.goto("/workers")
    form(page, "Stop")
    fill(page, "Reason", "new machine")
    press(page, "Stop the worker")
    assert said(page)
    assert site.worker.wait() == 0
    assert [(action, reason) for _, action, reason in site.audit()][-1][1] == "new machine"
    assert len(site.audit()) == 3
