"""Each page with each data set, in both themes, wide and on a phone: whole, calm, accessible. Leaves its pictures."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from jobq.web import create_app
from jobq.web.server import close
from tests.browser import axe, pages, seeds
from tests.browser.conftest import DataSet
from tests.browser.look import THEMES, WIDTHS, picture
from tests.browser.watching import Visitor

CASES = [(data, name) for data in seeds.NAMES for name in pages.names(data)]


# Addresses that answer with no page: data for the page's own script and for programs, and redirections to pages.
NO_PAGES = {
    "favicon", "livez",
    "jobq.static", "jobq.series", "jobq.job_part", "jobq.jobs_ndjson", "jobq.suggest", "jobq.metrics",
    "jobq.queue_at", "jobq.schedule_at",
}  # fmt: skip


def test_no_page_is_forgotten(data_set: Callable[[seeds.Name], DataSet]) -> None:
    app = create_app(database_url="postgresql://127.0.0.1:1/none")
    adapter = app.url_map.bind("localhost")
    routes = {rule.endpoint for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())}
    close(app)
    seen = set()
    for data in seeds.NAMES:
        addresses = pages.addresses(data_set(data).seeded)
        assert list(addresses) == pages.names(data)
        seen |= {adapter.match(urlsplit(address).path, method="GET")[0] for address in addresses.values()}
    # The address that is none is one of the pages, too.
    forgotten = {route for route in routes - seen - NO_PAGES if not route.startswith("jobq.api_")} - {"jobq.nothing"}
    assert not forgotten, f"add these to tests/browser/pages.py: {forgotten}"
    assert len(seen) > 10
    assert not seen & NO_PAGES


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
