"""A window that notices what goes wrong in it: errors on the console, violations of the policy, requests that fail."""

from __future__ import annotations

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request, Response

from tests.browser.seeds_lot import INJECTED

_TELL_VIOLATIONS = """
window.addEventListener("securitypolicyviolation",
    (event) => console.error("policy: " + event.violatedDirective + " " + event.blockedURI + " " + event.sample));
"""
# Nothing that is waited for takes longer than this, in ms, on a machine that is busy with other tests.
PATIENCE = 15_000


class Visitor:
    """One browser window; `page` is playwright's. `trouble` is what went wrong, in words."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.trouble: list[str] = []
        self.responses: list[Response] = []
        self.expected: set[int] = set()
        context.set_default_timeout(PATIENCE)
        context.add_init_script(_TELL_VIOLATIONS)
        self.page = context.new_page()
        self._watch(self.page)

    def _watch(self, page: Page) -> None:
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.trouble.append(f"uncaught: {error}"))
        page.on("requestfailed", self._failed)
        page.on("response", self._answered)

    def _said(self, message: ConsoleMessage) -> None:
        # Chromium tells of each answer above 399 here too; those are counted as answers.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.trouble.append(f"console {message.type}: {message.text}")

    def _failed(self, request: Request) -> None:
        # Aborted: the window went on to another page, or the answer was a file to keep.
        if request.failure != "net::ERR_ABORTED":
            self.trouble.append(f"no answer to {request.method} {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        self.responses.append(response)
        if response.status >= 400 and response.status not in self.expected:
            self.trouble.append(f"{response.status} for {response.request.method} {response.url}")

    def expect_status(self, *statuses: int) -> None:
        """Answers with these statuses are what the test is about."""
        self.expected |= set(statuses)

    def check(self) -> None:
        """Fail if anything went wrong, or a script from a job's strings has run."""
        assert not self.trouble, "\n".join(self.trouble)
        assert self.page.evaluate(INJECTED) is None, "a script in a job's string has run"

    def close(self) -> None:
        self.context.close()
