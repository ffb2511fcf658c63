"""What axe finds against WCAG 2.2, levels A and AA, on the page as it stands."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from playwright.sync_api import Page

_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa"]
_RUN = """tags => axe.run(document, {runOnly: {type: "tag", values: tags}, resultTypes: ["violations"]})"""


@cache
def _source() -> str:
    # The package's own Python is not used: it knows no tags.
    return files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def violations(page: Page) -> list[str]:
    """Return each violation: its rule, what it means, and the elements."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(_source())
    found: dict[str, Any] = page.evaluate(_RUN, _TAGS)
    return [
        f"{one['id']} ({one['help']}): " + "; ".join(_told(node) for node in one["nodes"][:5])
        for one in found["violations"]
    ]


def _told(node: dict[str, Any]) -> str:
    said = " ".join(str(check["message"]) for check in (*node["any"], *node["all"], *node["none"]))
    return f"{' '.join(map(str, node['target']))} {node['html'][:160]} - {said[:200]}"
