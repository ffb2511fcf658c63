"""Which Chromium the tests use, and how it starts: alone with this machine, headless, the same for tests and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.support import programs

_ARGUMENTS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--no-first-run",
    # No name leads anywhere: what a page asks for outside this machine fails, and the test with it.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
MISSING = f"{programs.missing('chromium')}; or set JOBQ_CHROMIUM to a program that is one"


@contextmanager
def running() -> Iterator[Browser]:
    """Start it; raises LookupError where there is none.

    While it runs, playwright's event loop counts as this thread's running one, and no other can be run in it.
    """
    found = programs.find("chromium")
    if found is None:
        raise LookupError(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            args=_ARGUMENTS,
            # Chromium's sandbox refuses root.
            chromium_sandbox=os.geteuid() != 0,
        )
        try:
            yield browser
        finally:
            browser.close()
