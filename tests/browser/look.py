"""Pictures of the page, for work on its looks: ``python -m tests.browser.look --data lot --page /jobs``.

Without options: every page with every data set, light and dark, at 1440 and 390 pixels. They land in
tests/browser/screenshots, named data-page-width-theme.png.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Literal

import psycopg
from playwright.sync_api import Browser, Page

from jobq import migrate
from tests.browser import chromium, pages, seeds
from tests.browser.serving import PageProcess
from tests.support.servers import postgres

SCREENSHOTS = Path(__file__).parent / "screenshots"
WIDTHS = (1440, 390)
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
# What no picture shows below: a phone's page of 5,000 rows tells no more than its beginning.
_MOST_HIGH = 6000


def picture(page: Page, name: str, *, directory: Path = SCREENSHOTS) -> Path:
    """Write the whole of `page` as it now stands, down to what is sensible."""
    directory.mkdir(parents=True, exist_ok=True)
    high = min(int(page.evaluate("document.documentElement.scrollHeight")), _MOST_HIGH)
    size = page.viewport_size
    assert size is not None
    file = directory / f"{name}.png"
    clip = {"x": 0.0, "y": 0.0, "width": float(size["width"]), "height": float(max(high, size["height"]))}
    page.screenshot(path=file, full_page=True, clip=clip, animations="disabled")  # type: ignore[arg-type]
    return file


def _look(
    browser: Browser, server: postgres.Server, template: str, asked: argparse.Namespace, data: seeds.Name
) -> None:
    with (
        postgres.database(server, template) as url,
        psycopg.connect(url, autocommit=True) as conn,
        tempfile.TemporaryDirectory() as directory,
    ):
        seeded = seeds.fill(conn, data)
        served = PageProcess(url, Path(directory) / "log", refresh_seconds=0)
        try:
            known = pages.addresses(seeded)
            wanted = {name: path for name, path in known.items() if not asked.page or asked.page in (name, path)}
            if asked.page and not wanted:
                wanted = {str(asked.page).strip("/").replace("/", "-").replace("?", "-") or "overview": str(asked.page)}
            for theme in [theme for theme in THEMES if theme in (asked.theme or THEMES)]:
                context = browser.new_context(color_scheme=theme, java_script_enabled=not asked.no_js)
                page = context.new_page()
                for width in asked.width or WIDTHS:
                    page.set_viewport_size({"width": width, "height": 900 if width > 600 else 800})
                    for name, path in wanted.items():
                        seeded.beat(conn)
                        page.goto(served.url + path)
                        page.wait_for_load_state("networkidle")
                        print(picture(page, f"{data}-{name}-{width}-{theme}"), flush=True)
                context.close()
        finally:
            served.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.browser.look", description=__doc__)
    parser.add_argument("--data", action="append", choices=seeds.NAMES, help="none, little, lot (default: all)")
    parser.add_argument(
        "--page", help="a name, such as job-failed, or a path, such as /jobs?q=state:failed (default: all)"
    )
    parser.add_argument("--theme", action="append", choices=THEMES, help="default: both")
    parser.add_argument("--width", action="append", type=int, help="pixels (default: 1440 and 390)")
    parser.add_argument("--no-js", action="store_true", help="as it is without JavaScript")
    asked = parser.parse_args()
    server = postgres.start()
    try:
        template = "jobq_template"
        with server.admin() as admin:
            admin.execute(f"CREATE DATABASE {template}".encode())
        migrate.upgrade(server.database_url(template))
        with chromium.running() as browser:
            for data in asked.data or seeds.NAMES:
                _look(browser, server, template, asked, data)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
