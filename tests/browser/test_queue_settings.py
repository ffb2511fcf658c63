"""A queue's limit, rates and rule for groups: set through the form, with JavaScript and without, and told of its jobs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Site
from tests.browser.watching import Visitor
from tests.support.rows import add_job

pytestmark = pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])

Visit = Callable[..., Visitor]


def settings(page: Page, which: str = "Change…") -> None:
    """Open a form of the card, as it is not while the page is only read."""
    page.locator("details.fold > summary", has_text=which).click()


def fill(page: Page, form: str, **fields: str) -> None:
    for name, value in fields.items():
        page.locator(f"#{form} [name={name}]").fill(value)


def press(page: Page, form: str, name: str) -> None:
    page.locator(f"#{form}").get_by_role("button", name=name, exact=True).click()
    expect(page.locator("#note")).to_be_visible()


def test_a_queue_is_limited_and_freed_again(site: Site, visit: Visit, script: bool) -> None:
    page = visit(site.url, java_script_enabled=script).page
    # Held, so that the worker takes none of the jobs.
    site.conn.execute("INSERT INTO jobq.queue (name, paused_at) VALUES ('held', now())")
    site.heard()
    add_job(site.conn, task="record", queue="held")

    page.goto("/queues/held")
    expect(page.locator("#main")).to_contain_text("No limit, no rate and no group rule")
    settings(page)
    fill(page, "set-queue", limit="20", rate="50/s", burst="10", groups="limited:1", reason="their API")
    press(page, "set-queue", "Save")
    expect(page.locator("#main")).to_contain_text("At most 50 starts a second, up to 10 of them at once.")
    expect(page.locator("#main")).to_contain_text("0 of 20 running")

    settings(page, "Limit of one group…")
    fill(page, "set-group", group="customer:42", limit="3")
    press(page, "set-group", "Save")
    expect(page.locator("#main")).to_contain_text("Limits of individual groups: customer:42 3")

    grouped = add_job(site.conn, task="record", queue="held", group_key="customer:42")
    page.goto("/queues/held")
    expect(page.get_by_role("link", name="customer:42")).to_be_visible()
    page.get_by_role("link", name="customer:42").click()
    expect(page.locator(f"#job-{grouped}")).to_be_visible()
    page.goto(f"/jobs/{grouped}")
    expect(page.locator("#why")).to_contain_text("Queue held has been paused")

    page.goto("/queues/held")
    settings(page)
    fill(page, "set-queue", limit="", rate="", groups="")
    press(page, "set-queue", "Save")
    expect(page.locator("#main")).to_contain_text("No limit, no rate and no group rule")
    assert [(actor, action) for actor, action, _ in site.audit()] == [
        ("ann", "configure"), ("ann", "configure_group"), ("ann", "configure"),
    ]  # fmt: skip


def test_what_cannot_be_is_told(site: Site, visit: Visit, script: bool) -> None:
    window = visit(site.url, java_script_enabled=script)
    page = window.page
    add_job(site.conn, task="record", queue="later", run_in=3600)
    window.expect_status(400)
    page.goto("/queues/later")
    settings(page)
    fill(page, "set-queue", rate="0/s")
    page.locator("#set-queue").get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#main")).to_contain_text("a rate of 0 starts nothing: pause the queue for that")
    assert site.audit() == []
