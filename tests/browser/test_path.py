"""The operator's path: from the overview to why a task failed last night, and those jobs run again."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Site
from tests.browser.watching import Visitor
from tests.support.rows import add_attempt
from tests.support.waiting import wait_until

Visit = Callable[..., Visitor]
ERROR = "ConnectionError: bank {n} did not answer within 30 s"


class Hand:
    """An operator's hand on the page: each click and each number typed counts."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.clicks = 0
        self.numbers = 0

    def click(self, what: Locator) -> None:
        what.click()
        self.clicks += 1

    def type(self, into: Locator, text: str) -> None:
        # By Tab or by a click: a field that has not the focus costs one.
        if not into.evaluate("one => one === document.activeElement"):
            self.click(into)
        self.page.keyboard.type(text)
        self.numbers += text.isdigit()


def night(site: Site, number: int) -> list[int]:
    """Let `number` jobs of task record have failed last night, each with a traceback, among others that failed otherwise."""
    ids = site.failed(number, error=ERROR)
    for id in ids:
        add_attempt(
            site.conn, id, error_type="ConnectionError", message="bank did not answer within 30 s",
            traceback="Traceback (most recent call last):\n  File \"/srv/shop/bank.py\", line 31, in _post\nConnectionError",
        )  # fmt: skip
    site.failed(25, task="noop", error="ValueError: order {n} has no lines", ago=3600)
    site.failed(5, task="record", error="KeyError: 'customer'", ago=1800)
    return ids


def walk(site: Site, visit: Visit, number: int, *, script: bool = True) -> Hand:
    """Go the path; return the hand that went it. The page must be at the operation, which runs."""
    page = visit(site.url, java_script_enabled=script).page
    page.goto("/")
    hand = Hand(page)
    # Which task, how many, and since when stands on the overview.
    group = page.locator("#main a").filter(has_text=re.compile("bank .* did not answer")).first
    hand.click(group)
    # Why: the error and the traceback of one of them.
    main = page.locator("#main")
    expect(main).to_contain_text("record")
    expect(main).to_contain_text(str(number))
    expect(main).to_contain_text("did not answer within 30 s")
    hand.click(page.get_by_role("button", name="Retry these"))
    page.wait_for_url(re.compile("/operations/[0-9]+"))
    expect(main).to_contain_text(str(number))
    hand.type(page.get_by_label("Reason"), "the bank is back")
    count = page.locator("#main input[name=typed]")
    if count.count():
        hand.type(count, str(number))
    hand.click(page.get_by_role("button", name=re.compile("^Retry")))
    return hand


def test_why_it_failed_last_night_and_those_37_again(site: Site, visit: Visit) -> None:
    ids = night(site, 37)
    hand = walk(site, visit, 37)
    assert hand.clicks <= 5
    assert hand.numbers <= 1
    wait_until(lambda: site.jobs.one("SELECT count(*) FROM ran WHERE job = ANY (%s)", ids) == 37, what="the 37")
    # Those, and no others.
    assert site.jobs.one("SELECT count(*) FROM ran") == 37
    assert site.jobs.one("SELECT count(*) FROM jobq.job_history WHERE state = 'failed'") == 30
    expect(hand.page.locator("#main")).to_contain_text("done")
    (start, *_) = [row for row in site.audit() if row[2] == "the bank is back"]
    assert start[0] == "ann"


def test_above_a_hundred_the_count_is_typed(site: Site, visit: Visit) -> None:
    ids = night(site, 137)
    hand = walk(site, visit, 137)
    assert hand.clicks <= 5 + 1
    assert hand.numbers == 1
    wait_until(lambda: site.jobs.one("SELECT count(*) FROM ran WHERE job = ANY (%s)", ids) == 137, what="the 137")
    assert site.jobs.one("SELECT count(*) FROM ran") == 137


def test_the_path_without_javascript(site: Site, visit: Visit) -> None:
    ids = night(site, 37)
    walk(site, visit, 37, script=False)
    wait_until(lambda: site.jobs.one("SELECT count(*) FROM ran WHERE job = ANY (%s)", ids) == 37, what="the 37")
