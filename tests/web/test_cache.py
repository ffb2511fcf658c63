"""Kept pages: one answer for many who ask the same, never another's, never one from before a change; and 304."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient

from jobq import queries
from jobq.web import Identity
from jobq.web.rendering.cache import CachedResponse, PageCache, tag
from tests.support.rows import add_finished, add_job, add_worker
from tests.support.waiting import wait_until
from tests.support.web import PAGES, Conn, token


def who() -> Identity | None:
    name = request.headers.get("X-Test-User")
    return Identity(name, request.headers.get("X-Test-Role", "admin")) if name else None


@pytest.fixture
def app(make_app: Callable[..., Flask], database_url: str) -> Flask:
    # Longer than any test: what is not kept is not kept for other reasons.
    return make_app(database_url, identify=who, secret_key="s", cache_seconds=600)


def client_of(app: Flask, name: str, role: str = "admin") -> FlaskClient:
    client = app.test_client()
    client.environ_base |= {"HTTP_X_TEST_USER": name, "HTTP_X_TEST_ROLE": role}
    return client


def shown(client: FlaskClient) -> set[str]:
    return set(re.findall(r'href="/jobs/(\d+)"', client.get("/jobs").text))


def test_one_answer_for_many(app: Flask, db: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = queries.workers
    monkeypatch.setattr("jobq.queries.workers", lambda *values: (asked.append(1), real(*values))[1])  # type: ignore[func-returns-value]
    client = client_of(app, "ann")
    texts = {re.sub(r'value="[^"]+"', "", client_of(app, "ann").get("/workers").text) for _ in range(5)}
    assert len(texts) == 1
    assert len(asked) == 1
    # Another address, another user and another role are other pages; a made-up note is none.
    client.get("/workers?x=1")
    client_of(app, "ben").get("/workers")
    client_of(app, "ann", "viewer").get("/workers")
    assert len(asked) == 4
    assert client.get("/workers?note=made-up").status_code == 200
    assert len(asked) == 4


def test_each_browser_has_its_own_tokens(app: Flask, db: Conn) -> None:
    add_job(db, queue="mail")
    ann, also_ann, ben = client_of(app, "ann"), client_of(app, "ann"), client_of(app, "ben")
    tokens = [token(one, "/queues") for one in (ann, also_ann, ben)]
    assert len(set(tokens)) == 3
    text = ann.get("/queues").text
    assert "token-" not in text
    form = {"queue": "mail", "csrf": token(ann, "/queues")}
    assert also_ann.post("/queues/pause", data=form).status_code == 403
    assert ben.post("/queues/pause", data=form).status_code == 403
    assert ann.post("/queues/pause", data=form).status_code == 303


def test_ones_own_change_is_seen_at_once(app: Flask, db: Conn) -> None:
    ann, ben = client_of(app, "ann"), client_of(app, "ben")
    id = add_finished(db, "failed")
    good = token(ann)
    for one in (ann, ben):
        assert 'class="state failed"' in one.get(f"/jobs/{id}").text
    response = ann.post(f"/jobs/{id}/retry", data={"csrf": good})
    assert 'class="state ready"' in ann.get(response.location).text
    for one in (ann, ben):
        assert 'class="state ready"' in one.get(f"/jobs/{id}").text
        assert str(id) not in re.findall(r'href="/jobs/(\d+)"', one.get("/jobs?state=failed").text)
    # A note is shown once, and to no one else.
    assert "The job is due now." not in ben.get(f"/jobs/{id}").text
    assert "The job is due now." not in ann.get(f"/jobs/{id}").text


def test_another_processs_change_is_seen_after_ones_own_action(app: Flask, db: Conn) -> None:
    """With a note, which every action leads to, a page is read again: the action may have been another process's."""
    client = client_of(app, "ann")
    id = add_finished(db, "failed")
    location = client.post(f"/jobs/{id}/retry", data={"csrf": token(client)}).location
    client.get(f"/jobs/{id}")
    db.execute("UPDATE jobq.job SET state = 'parked' WHERE id = %s", (id,))
    assert 'class="state ready"' in client.get(f"/jobs/{id}").text
    assert 'class="state parked"' in client.get(location).text


def test_known_pages_are_304(app: Flask, db: Conn) -> None:
    add_worker(db)
    client = client_of(app, "ann")
    for path in (*PAGES, "/api/overview", f"/jobs/{add_finished(db, 'failed')}"):
        client.get(path)  # brings the cookie, with which the tags go
        first = client.get(path)
        tagged = first.headers["ETag"]
        assert tagged.startswith('W/"')
        response = client.get(path, headers={"If-None-Match": tagged})
        assert (response.status_code, response.data) == (304, b"")
        assert response.headers["ETag"] == tagged
        assert response.headers["Cache-Control"] == "no-store"
        assert "Cookie" in response.headers["Vary"]
        assert "Content-Security-Policy" in response.headers
        assert client.get(path, headers={"If-None-Match": 'W/"other"'}).status_code == 200
        # Another user who knows the tag is not told that nothing has changed.
        assert client_of(app, "ben").get(path, headers={"If-None-Match": tagged}).status_code == 200
    assert client.get("/nothing").status_code == 404
    assert "ETag" not in client.get("/nothing").headers


def test_a_page_with_forms_is_not_known_to_a_browser_whose_token_is_old(app: Flask, db: Conn) -> None:
    add_job(db)
    client = client_of(app, "ann")
    client.get("/jobs")
    tagged = client.get("/jobs").headers["ETag"]
    assert client.get("/jobs", headers={"If-None-Match": tagged}).status_code == 304
    client.delete_cookie("jobq_csrf")
    response = client.get("/jobs", headers={"If-None-Match": tagged})
    assert response.status_code == 200
    assert "jobq_csrf" in response.headers["Set-Cookie"]


def test_tags_are_the_same_while_only_time_passes(make_app: Callable[..., Flask], database_url: str, db: Conn) -> None:
    add_finished(db, "failed", ago=1000)
    app = make_app(database_url, identify=who, secret_key="s", cache_seconds=0.001)
    client = client_of(app, "ann")
    client.get("/jobs")
    tagged = client.get("/jobs").headers["ETag"]
    before = client.get("/jobs").text
    # Until the page says another time; and another process with the same key says so, too.
    wait_until(
        lambda: client.get("/jobs").text.split("data-now")[1] != before.split("data-now")[1], what="a second to pass"
    )
    assert client.get("/jobs", headers={"If-None-Match": tagged}).status_code == 304
    other = client_of(make_app(database_url, identify=who, secret_key="s", cache_seconds=600), "ann")
    cookie = client.get_cookie("jobq_csrf")
    assert cookie is not None
    other.set_cookie("jobq_csrf", cookie.value)
    assert other.get("/jobs", headers={"If-None-Match": tagged}).status_code == 304
    add_finished(db, "failed")
    assert client.get("/jobs", headers={"If-None-Match": tagged}).status_code == 200


def test_errors_are_not_kept(app: Flask, db: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(app, "ann")

    def fail(*_: Any) -> Any:
        raise RuntimeError("once")

    with monkeypatch.context() as patched:
        patched.setattr("jobq.queries.workers", fail)
        assert client.get("/workers").status_code == 500
    assert client.get("/workers").status_code == 200
    assert client.get("/jobs/1").status_code == 404
    assert client.get(f"/jobs/{add_job(db)}").status_code == 200


# --- The cache by itself ---


def answer(text: str, size: int = 0) -> CachedResponse:
    return CachedResponse(body=text.encode().ljust(size), mimetype="text/html", headers=(), tag=text)


def test_what_is_kept_ends() -> None:
    now = 0.0
    cache = PageCache(seconds=2, limit=1_000_000, clock=lambda: now)
    made = iter("abc")

    def ask() -> str:
        found = cache.get("key", lambda: answer(next(made)))
        assert found is not None
        return found.tag

    assert (ask(), ask()) == ("a", "a")
    now = 1.99
    assert ask() == "a"
    now = 2.0
    assert ask() == "b"
    cache.clear()
    assert ask() == "c"


def test_memory_is_bounded() -> None:
    cache = PageCache(seconds=600, limit=100_000)
    for n in range(500):
        cache.get(n, lambda n=n: answer(str(n), 10_000))  # type: ignore[misc]
        assert cache.size <= 100_000
        cache.get(0, lambda: answer("0", 10_000))  # in use, and so it stays
    assert cache.get(0, lambda: answer("made again")).tag == "0"  # type: ignore[union-attr]
    assert cache.get(1, lambda: answer("made again")).tag == "made again"  # type: ignore[union-attr]
    assert cache.get("big", lambda: answer("big", 200_000)).tag == "big"  # type: ignore[union-attr]
    assert cache.get("big", lambda: answer("not kept")).tag == "not kept"  # type: ignore[union-attr]
    cache.clear()
    assert cache.size == 0


def test_a_change_while_a_page_is_made_is_not_missed() -> None:
    cache = PageCache(seconds=600, limit=1_000_000)

    def make() -> CachedResponse:
        cache.clear()  # another POST commits after this page has read, and before it is kept
        return answer("old")

    assert cache.get("key", make).tag == "old"  # type: ignore[union-attr]
    assert cache.get("key", lambda: answer("new")).tag == "new"  # type: ignore[union-attr]


def together(cache: PageCache, make: Callable[[], CachedResponse | None], threads: int = 8) -> list[Any]:
    """What `threads` that ask at once are answered; an exception is its type."""
    found: list[Any] = []
    start = threading.Barrier(threads)

    def ask() -> None:
        start.wait(20)
        try:
            found.append(cache.get("key", make))
        except Exception as error:
            found.append(type(error))

    started = [threading.Thread(target=ask) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(60)
    return found


def test_one_makes_it_and_the_others_wait() -> None:
    cache = PageCache(seconds=600, limit=1_000_000)
    made: list[int] = []
    waiting = threading.Event()

    def make() -> CachedResponse:
        made.append(1)
        waiting.wait(0.3)
        return answer("a")

    assert [one.tag for one in together(cache, make)] == ["a"] * 8
    assert len(made) == 1


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobq.web.rendering.cache._RENDER_TIMEOUT", 0.05)
    cache = PageCache(seconds=600, limit=1_000_000)
    release, first = threading.Event(), threading.Event()

    def stuck() -> CachedResponse:
        first.set()
        release.wait(60)
        return answer("late")

    thread = threading.Thread(target=lambda: cache.get("key", stuck))
    thread.start()
    assert first.wait(20)
    assert cache.get("key", lambda: answer("own")).tag == "own"  # type: ignore[union-attr]
    release.set()
    thread.join(20)


def test_an_exception_is_its_makers_alone() -> None:
    cache = PageCache(seconds=600, limit=1_000_000)
    tries: list[int] = []

    def make() -> CachedResponse:
        tries.append(1)
        if len(tries) == 1:
            threading.Event().wait(0.2)
            raise RuntimeError("the first")
        return answer("good")

    found = together(cache, make)
    assert found.count(RuntimeError) == 1
    assert len(found) == 8


def test_what_moves_is_not_in_the_tag() -> None:
    page = b'<p>%s <time datetime="2026-01-01">%s</time> as of <time data-now datetime="%s">%s</time></p>'
    first = tag(page % (b"a", b"1 min ago", b"10:00", b"10:00"))
    assert first == tag(page % (b"a", b"2 min ago", b"10:01", b"10:01"))
    assert first != tag(page % (b"b", b"1 min ago", b"10:00", b"10:00"))
    assert first != tag((page % (b"a", b"1 min ago", b"10:00", b"10:00")).replace(b"2026", b"2027"))
    assert first != tag(page % (b"a", b"1 min ago", b"10:00", b"10:00"), "ann")
