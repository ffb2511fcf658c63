"""Everything by keyboard, and the keys switched off; themes; what may be typed next."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser import axe, seeds
from tests.browser.conftest import DataSet
from tests.browser.watching import Visitor
from tests.support.waiting import wait_until

Visit = Callable[..., Visitor]
Get = Callable[[seeds.Name], DataSet]


def test_the_list_of_keys(data_set: Get, visit: Visit) -> None:
    page = visit(data_set("little").url).page
    page.goto("/")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    for words in ("this list", "search", "Overview", "Failures", "pause"):
        expect(dialog).to_contain_text(words)
    assert axe.violations(page) == []
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    # Also for those who have no such key.
    page.locator("#keys").click()
    expect(dialog).to_be_visible()


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("o", "/"),
        ("q", "/queues"),
        ("j", "/jobs"),
        ("l", "/workflows"),
        ("f", "/failures"),
        ("w", "/workers"),
        ("c", "/schedules"),
        ("s", "/system"),
    ],
)
def test_going_to_a_page(data_set: Get, visit: Visit, key: str, path: str) -> None:
    served = data_set("little")
    page = visit(served.url).page
    page.goto("/audit")
    page.keyboard.press("g")
    page.keyboard.press(key)
    page.wait_for_url(served.url + path)


def test_through_the_rows(data_set: Get, visit: Visit) -> None:
    served = data_set("little")
    page = visit(served.url).page
    page.goto("/jobs")
    rows = page.locator("#main tbody tr")
    for key, row in (("j", 0), ("j", 1), ("j", 2), ("k", 1)):
        page.keyboard.press(key)
        expect(rows.nth(row).locator("a").first).to_be_focused()
    page.keyboard.press("x")
    expect(rows.nth(1).get_by_role("checkbox")).to_be_checked()
    page.keyboard.press("x")
    expect(rows.nth(1).get_by_role("checkbox")).not_to_be_checked()
    href = rows.nth(1).locator("a").first.get_attribute("href")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{served.url}{href}")


def test_searching(data_set: Get, visit: Visit) -> None:
    served = data_set("little")
    page = visit(served.url).page
    page.goto("/")
    page.keyboard.press("/")
    field = page.get_by_role("combobox").first
    expect(field).to_be_focused()
    field.press_sequentially("sta")
    options = page.get_by_role("option")
    expect(options.first).to_have_text("state:")
    page.keyboard.press("ArrowDown")
    expect(options.first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(field).to_have_value("state:")
    field.press_sequentially("fai")
    expect(options.first).to_have_text("state:failed")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    expect(field).to_have_value("state:failed ")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: url.startswith(f"{served.url}/jobs?q=state"))
    assert set(page.locator("#main tbody .state").all_inner_texts()) == {"failed"}


def test_the_keys_can_be_switched_off(data_set: Get, visit: Visit) -> None:
    served = data_set("little")
    page = visit(served.url).page
    page.goto("/jobs")
    page.keyboard.press("?")
    page.get_by_role("dialog").get_by_role("checkbox").uncheck()
    page.keyboard.press("Escape")
    page.reload()
    for key in ("?", "j", "g", "q"):
        page.keyboard.press(key)
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert page.evaluate("document.activeElement === document.body")
    assert page.url == f"{served.url}/jobs"


def test_letters_in_a_field_are_letters(data_set: Get, visit: Visit) -> None:
    served = data_set("little")
    page = visit(served.url).page
    page.goto("/jobs")
    page.locator("#q").click()
    page.keyboard.type("gq?jxp/")
    expect(page.locator("#q")).to_have_value("gq?jxp/")
    assert page.url == f"{served.url}/jobs"


def test_everything_has_its_place_in_the_order_of_tabs(data_set: Get, visit: Visit) -> None:
    page = visit(data_set("little").url).page
    page.goto("/")
    # A key pressed before the browser has given the new page the keyboard is lost, and moves nothing.

    def moved() -> bool:
        page.keyboard.press("Tab")
        return bool(page.evaluate("document.activeElement !== document.body"))

    wait_until(moved, what="the keyboard")
    expect(page.locator("a.skip")).to_be_focused()
    expect(page.locator("a.skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()


def test_the_theme_is_chosen_and_kept(data_set: Get, visit: Visit) -> None:
    page = visit(data_set("little").url, color_scheme="light").page
    background = "getComputedStyle(document.body).backgroundColor"
    page.goto("/")
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(background)
    assert light != dark
    # From the system's to light, to dark, and back.
    for expected in (light, dark, dark):
        page.locator("#theme").click()
        assert page.evaluate(background) == expected
    page.emulate_media(color_scheme="light")
    page.locator("#theme").click()
    page.locator("#theme").click()
    page.reload()
    assert page.evaluate(background) == dark


def test_nothing_moves_for_those_who_asked_for_it(data_set: Get, visit: Visit) -> None:
    page = visit(data_set("little").url, reduced_motion="reduce").page
    page.goto("/")
    moving = page.evaluate(
        "document.getAnimations().filter((one) => one.effect.getComputedTiming().duration > 10).length"
    )
    assert moving == 0
