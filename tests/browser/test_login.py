"""Users and their rights: logging in and out, guessing passwords, and what a viewer is shown."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from jobq.web.auth import users
from tests.browser import axe
from tests.browser.conftest import Conn
from tests.browser.look import picture
from tests.browser.serving import PageProcess
from tests.browser.watching import Visitor
from tests.support.jobs import Jobs
from tests.support.rows import add_finished, add_job, add_worker
from tests.support.waiting import wait_until

Visit = Callable[..., Visitor]
Serve = Callable[..., PageProcess]
PASSWORD = "a long enough password"


@pytest.fixture
def guarded(plain: Conn, serve: Serve) -> PageProcess:
    """A page with a user of each role, and one failed job."""
    for role in ("viewer", "operator", "admin"):
        assert users.add(plain, "jobq", f"{role} ann", role, PASSWORD, actor="test")
    add_finished(plain, "failed", task="record", args={"note": "x"}, error="it is no use")
    return serve(users=True)


def log_in(page: Page, name: str, password: str = PASSWORD) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_in_and_out(guarded: PageProcess, visit: Visit, script: bool) -> None:
    window = visit(guarded.url, java_script_enabled=script, viewport={"width": 1440, "height": 900})
    page = window.page
    window.expect_status(403)
    page.goto("/jobs?q=state:failed")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    if script:
        assert axe.violations(page) == []
        picture(page, "login-1440-light")
    log_in(page, "operator ann", "a wrong password")
    expect(page.get_by_role("alert")).to_contain_text("The name or the password is wrong")
    expect(page.get_by_label("Name")).to_have_value("operator ann")
    log_in(page, "operator ann")
    # On to where they wanted.
    page.wait_for_url(f"{guarded.url}/jobs?q=state:failed")
    expect(page.locator("header.side")).to_contain_text("operator ann")
    page.get_by_role("button", name="Log out").click()
    page.goto("/jobs")
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_who_guesses_has_to_wait(guarded: PageProcess, visit: Visit) -> None:
    window = visit(guarded.url)
    page = window.page
    window.expect_status(403, 429)
    page.goto("/login")

    def told_after(password: str) -> str:
        with page.expect_response(lambda response: response.request.method == "POST"):
            log_in(page, "admin ann", password)
        page.wait_for_load_state()
        return page.get_by_role("alert").inner_text()

    def has_to_wait() -> bool:
        """Whether so long that the next try cannot come too late: every 10 s another is allowed, however slow the machine."""
        wait = re.search(r"Try again in (\d+)", told_after("a guess"))
        return wait is not None and int(wait[1]) > 5

    wait_until(has_to_wait, timeout=60, what="the end of the tries")
    # The right one does not help now.
    assert "Try again in" in told_after(PASSWORD)


def test_a_viewer_sees_no_forms(guarded: PageProcess, plain: Conn, jobs: Jobs, visit: Visit) -> None:
    add_worker(plain)
    waiting = add_job(plain, task="record", run_in=3600)
    dead = jobs.one("SELECT id FROM jobq.job_history")
    seen: dict[str, dict[str, int]] = {}
    for role in ("viewer", "operator", "admin"):
        page = visit(guarded.url).page
        page.goto("/login")
        log_in(page, f"{role} ann")
        page.wait_for_url(f"{guarded.url}/")
        seen[role] = {}
        for path in (
            "/",
            "/queues",
            "/jobs?q=state:failed",
            f"/jobs/{dead}",
            f"/jobs/{waiting}",
            "/failures",
            "/schedules",
            "/workers",
        ):
            page.goto(path)
            expect(page.locator("#main")).to_be_visible()
            seen[role][path] = page.locator("#main form[method=post]").count()
    assert set(seen["viewer"].values()) == {0}
    # An operator lacks what cannot be undone: deleting a job, and stopping a worker.
    for path in (f"/jobs/{dead}", f"/jobs/{waiting}", "/workers"):
        assert 0 < seen["operator"][path] < seen["admin"][path], path


def test_a_page_that_changes_nothing(plain: Conn, serve: Serve, visit: Visit) -> None:
    dead = add_finished(plain, "failed", task="record", args={"note": "x"})
    page = visit(serve(read_only=True).url).page
    page.goto(f"/jobs/{dead}")
    expect(page.locator("#main")).to_contain_text("read-only")
    assert page.locator("#main form[method=post]").count() == 0


def test_a_session_that_ended_elsewhere(guarded: PageProcess, plain: Conn, visit: Visit) -> None:
    page = visit(guarded.url).page
    page.goto("/login")
    log_in(page, "viewer ann")
    page.wait_for_url(f"{guarded.url}/")
    users.remove(plain, "jobq", "viewer ann", actor="test")

    def asked_again() -> bool:
        page.goto("/queues")
        return page.get_by_role("heading", name="Log in").count() > 0

    wait_until(asked_again, what="the end of a removed user's session")
