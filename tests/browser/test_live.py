"""The page keeps itself up to date, cheaply, and stands still when it is asked to or would be in the way."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.apps import plain as apps
from tests.browser.conftest import Site
from tests.browser.watching import Visitor
from tests.support.checks import some
from tests.support.waiting import wait_until

Visit = Callable[..., Visitor]


def mark(page: Page) -> None:
    """Remember in the document that it is this one, so that a reload would show."""
    page.evaluate("window.sameDocument = true")


def unmoved(page: Page) -> bool:
    return bool(page.evaluate("window.sameDocument === true"))


def test_a_job_that_ends_shows_without_a_reload(site: Site, visit: Visit) -> None:
    page = visit(site.url).page
    (dead,) = site.failed(1)
    page.goto("/jobs")
    mark(page)
    new = apps.record.enqueue(site.conn, "new").id
    row = page.locator(f"#job-{new}")
    expect(row).to_contain_text("succeeded")
    # What stood there before stays the same element: what it holds, a tick or the focus, is not lost.
    expect(page.locator(f"#job-{dead}")).to_be_visible()
    assert unmoved(page)
    page.goto("/")
    mark(page)
    before = page.locator(".tile.succeeded, [data-state=succeeded]").first.inner_text()
    for n in range(3):
        apps.record.enqueue(site.conn, f"{n}")
    expect(page.locator(".tile.succeeded, [data-state=succeeded]").first).not_to_have_text(before)
    assert unmoved(page)


def test_nothing_new_costs_no_page(site: Site, visit: Visit) -> None:
    window = visit(site.url)
    page = window.page
    (dead,) = site.failed(1)
    page.goto(f"/jobs/{dead}")

    def unchanged() -> int:
        # Lets playwright hear of what came in meanwhile.
        page.evaluate("1")
        return [answer.status for answer in window.responses].count(304)

    # Longer than the server keeps what it has drawn: only the clock has moved, and that is no change.
    wait_until(lambda: unchanged() >= 5, what="five answers that nothing is new", timeout=60)
    full = [answer for answer in window.responses if answer.url.endswith(f"/jobs/{dead}") and answer.status == 200]
    # The page itself, and the first question, which had no tag yet.
    assert len(full) <= 2
    expect(page.get_by_role("button", name="Retry")).to_be_visible()


def test_it_stands_still_when_asked(site: Site, visit: Visit) -> None:
    window = visit(site.url)
    page = window.page
    page.clock.install()
    page.goto("/jobs")
    live = page.locator("#live")
    live.get_by_role("button", name="Pause").click()
    expect(live.get_by_role("status")).to_have_text("Paused")
    new = apps.record.enqueue(site.conn, "new").id
    site.jobs.wait(new)
    before = len(window.responses)
    page.clock.run_for(120_000)
    assert len(window.responses) == before
    assert page.locator(f"#job-{new}").count() == 0
    # It is remembered for this window, and ends when asked.
    page.reload()
    expect(live.get_by_role("status")).to_have_text("Paused")
    newer = apps.record.enqueue(site.conn, "newer").id
    site.jobs.wait(newer)
    live.get_by_role("button", name="Resume").click()
    expect(page.locator(f"#job-{newer}")).to_be_visible()


def test_an_open_form_is_not_taken_away(site: Site, visit: Visit) -> None:
    window = visit(site.url)
    page = window.page
    running = apps.wait.enqueue(site.conn, 600).id
    wait_until(lambda: (site.jobs.live(running) or {}).get("state") == "running", what="the job to run")
    page.clock.install()
    page.goto(f"/jobs/{running}")
    page.locator("summary", has_text="Cancel…").click()
    reason = page.get_by_label("Reason")
    reason.fill("half a sent")
    before = len(window.responses)
    page.clock.run_for(60_000)
    assert len(window.responses) == before
    expect(reason).to_have_value("half a sent")
    expect(reason).to_be_focused()
    expect(page.locator("#live").get_by_role("status")).to_have_text("Paused while in use")
    # Changed elsewhere meanwhile: once the form is closed the page goes on and tells, also if the
    # worker has obeyed by then.
    site.conn.execute("UPDATE jobq.job SET cancel_requested_at = now() WHERE id = %s", (running,))
    page.keyboard.press("Escape")
    page.clock.run_for(5_000)
    expect(page.locator(".title")).to_contain_text(re.compile("asked to stop|cancelled"))


def test_settings_that_are_being_written_are_not_taken_away(site: Site, visit: Visit) -> None:
    """Though nothing of the form has the focus: what was typed is not there to be drawn again."""
    window = visit(site.url)
    page = window.page
    site.conn.execute("INSERT INTO jobq.queue (name, paused_at) VALUES ('held', now())")
    page.clock.install()
    page.goto("/queues/held")
    page.locator("#set-queue > summary").click()
    rate = page.locator("#set-queue [name=rate]")
    rate.fill("50/s")
    rate.blur()
    before = len(window.responses)
    page.clock.run_for(60_000)
    assert len(window.responses) == before
    expect(rate).to_have_value("50/s")
    page.locator("#set-queue > summary").click()
    site.conn.execute("UPDATE jobq.queue SET paused_at = NULL")
    page.clock.run_for(5_000)
    expect(page.locator(".title")).to_contain_text("open")


def test_the_focus_stays_where_it_was(site: Site, visit: Visit) -> None:
    page = visit(site.url).page
    first, second = site.failed(2)
    page.goto("/jobs")
    mark(page)
    page.locator(f"#job-{first} a").first.focus()
    new = apps.record.enqueue(site.conn, "new").id
    expect(page.locator(f"#job-{new}")).to_be_visible()
    expect(page.locator(f"#job-{first} a").first).to_be_focused()
    assert unmoved(page)
    assert second != first


def test_a_server_that_is_away_is_told_of(site: Site, visit: Visit) -> None:
    window = visit(site.url)
    page = window.page
    (dead,) = site.failed(1)
    page.goto("/jobs")
    page.route("**/jobs*", lambda route: route.abort())
    expect(page.locator("#live").get_by_role("status")).to_contain_text("No response")
    # What was there can still be read.
    expect(page.locator(f"#job-{dead}")).to_be_visible()
    page.unroute("**/jobs*")
    expect(page.locator("#live").get_by_role("status")).to_have_text("Live")
    assert all(
        "no answer" in said or "Failed to fetch" in said or "ERR_FAILED" in said for said in some(window.trouble)
    )
    window.trouble.clear()
