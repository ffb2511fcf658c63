"""Each page with each data set, in both themes, wide and on a phone: whole, calm, accessible. Leaves its pictures."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser import axe, pages, seeds
from tests.browser.conftest import DataSet
from tests.browser.look import THEMES, WIDTHS, picture
from tests.browser.watching import Visitor

CASES = [(data, name) for data in seeds.NAMES for name in pages.names(data)]


def test_no_page_is_forgotten(data_set: Callable[[seeds.Name], DataSet]) -> None:
    for data in seeds.NAMES:
        assert list(pages.addresses(data_set(data).seeded)) == pages.names(data)


@pytest.mark.parametrize(("data", "name"), CASES, ids=[f"{data}-{name}" for data, name in CASES])
def test_page(
    data: seeds.Name, name: str, data_set: Callable[[seeds.Name], DataSet], visit: Callable[..., Visitor]
) -> None:
    served = data_set(data)
    window = visit(served.url)
    page = window.page
    if name == "not-found":
        window.expect_status(404)
    page.goto(pages.addresses(served.seeded)[name])
    page.wait_for_load_state("networkidle")
    wrong: list[str] = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            picture(page, f"{data}-{name}-{width}-{theme}")
            wrong += [f"{width} {theme}: {said}" for said in axe.violations(page)]
        wide = page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth")
        if wide > 0:
            wrong.append(f"{width}: the page is {wide} pixels wider than the window, by {page.evaluate(_WIDEST)}")
    assert not wrong, "\n".join(wrong)


# The elements that reach beyond the window's right edge and are in no box that scrolls by itself.
_WIDEST = """() => [...document.querySelectorAll("body *")].filter((one) => {
    if (one.getBoundingClientRect().right <= window.innerWidth + 1) return false;
    for (let box = one.parentElement; box; box = box.parentElement)
        if (box !== document.body && getComputedStyle(box).overflowX !== "visible") return false;
    return true;
}).slice(0, 5).map((one) => one.tagName.toLowerCase() + (one.className ? "." + one.className : ""))"""
