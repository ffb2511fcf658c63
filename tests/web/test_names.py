"""Names that browsers, forms and terminals would change: every link and form of theirs is followed."""

from __future__ import annotations

import re
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from jobq.cli import main
from jobq.filters import JobFilter
from jobq.filters.words import quote
from jobq.web.rendering import formatting
from tests.support.rows import add_finished, add_job, add_worker
from tests.support.web import PAGES, Conn, words

NAMES = [
    ".", "..", "../../etc/passwd", "/", "//elsewhere.example/x", "a/../b", "a//b", "%2e%2e", "a\nb", "a\r\nb", "a\tb", "a\x1bb",
    "a\u2028b", "a?b=c&d", "a#b", 'a"b', "\\u000a", "<b>x</b>", "é 🦄", "set",
]  # fmt: skip


class Page(HTMLParser):
    """What a browser takes from a page: links, and forms with what they would send."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forms: list[tuple[str, str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "form":
            self.forms.append((found.get("method", "get"), found.get("action", ""), {}))
        if tag == "input" and self.forms and "name" in found:
            value = found.get("value", "")
            if found.get("type", "text") != "hidden":
                # A field of one line has no line ends.
                value = re.sub(r"[\r\n]", "", value)
            self.forms[-1][2][found["name"]] = re.sub(r"\r\n?|\n", "\r\n", value)


def followed(base: str, link: str) -> str:
    """Where a browser goes: dot segments are taken out of paths, tabs and line ends out of the whole."""
    whole = urljoin(f"http://localhost{base}", re.sub(r"[\t\r\n]", "", link).replace("\\", "/"))
    parts = urlsplit(whole)
    assert parts.netloc == "localhost", link
    path = re.sub(r"%2e", ".", parts.path, flags=re.IGNORECASE)
    steps: list[str] = []
    for step in path.split("/")[1:]:
        if step == "..":
            steps[-1:] = []
        elif step != ".":
            steps.append(step)
    return "/" + "/".join(steps) + (f"?{parts.query}" if parts.query else "")


@pytest.fixture
def named(db: Conn) -> None:
    """A queue, a task, a group and a schedule of each name."""
    for name in NAMES:
        add_job(db, queue=name, task=name, group_key=name)
        add_finished(db, "failed", queue=name, task=name, error=f"{name} failed", group_key=name)
        db.execute("INSERT INTO jobq.queue (name) VALUES (%s)", (name,))
        db.execute(
            "INSERT INTO jobq.schedule (name, task, cron, queue) VALUES (%s, %s, '0 7 * * *', %s)", (name, name, name)
        )
    add_worker(db, queues=NAMES)


@pytest.mark.usefixtures("named")
def test_every_link_leads_where_it_says(client: FlaskClient) -> None:
    seen: set[str] = set()
    waiting = [*PAGES, "/queues?page=2", "/failures?page=2", "/schedules?page=2", "/jobs?q=state:failed"]
    titles: Counter[str] = Counter()
    while waiting:
        at = waiting.pop()
        response = client.get(at)
        assert response.status_code in (200, 303), (at, words(response.text)[:300])
        if response.mimetype != "text/html" or response.status_code == 303:
            response.close()
            continue
        title = re.search(r"<h1>(.*?)</h1>", response.text, re.DOTALL)
        assert title is not None, at
        if at.startswith(("/queue?", "/schedule?")):
            titles[f"{at.partition('?')[0]} {unescape(re.sub('<[^>]+>', '', title[1])).strip()}"] += 1
        for link in Page(response.text).links:
            where = followed(at, link)
            # Sorting and paging of the same lists, the charts of each, and each job's own pages add nothing here.
            if where in seen or re.search(r"[?&](sort|hours|before|order)=|/jobs/\d+|\.ndjson|/api/", where):
                continue
            seen.add(where)
            # The lists of one name's jobs lead nowhere else: they are read by the names themselves below.
            if not where.startswith("/jobs?"):
                waiting.append(where)
    expected = {f"{kind} {formatting.line(name, 200).strip()}" for kind in ("/queue", "/schedule") for name in NAMES}
    assert set(titles) == expected


@pytest.mark.usefixtures("named")
def test_every_form_is_about_what_it_says(client: FlaskClient, db: Conn) -> None:
    for name in NAMES:
        forms_of(client, db, name)
        db.execute("UPDATE jobq.queue SET paused_at = NULL, max_running = NULL")
        db.execute("UPDATE jobq.schedule SET paused_at = NULL")
        db.execute("TRUNCATE jobq.operation CASCADE")


def forms_of(client: FlaskClient, db: Conn, name: str) -> None:
    at = followed("/queues", client.application.url_map.bind("localhost").build("jobq.queue", {"name": name}))
    (pause,) = [form for form in Page(client.get(at).text).forms if "/pause" in form[1]]
    response = client.post(followed(at, pause[1]), data=pause[2])
    assert response.status_code == 303
    assert db.execute("SELECT array_agg(name) FROM jobq.queue WHERE paused_at IS NOT NULL").fetchone() == ([name],)
    said = client.get(response.location).text
    assert re.sub(r"\s+", " ", f"Queue {formatting.line(name)} is paused.") in words(said)
    (limit,) = [form for form in Page(client.get(at).text).forms if "/queues/set?" in form[1]]
    response = client.post(followed(at, limit[1]), data=limit[2] | {"limit": "3"})
    assert client.get(response.location).status_code == 200
    assert db.execute("SELECT name, max_running FROM jobq.queue WHERE max_running IS NOT NULL").fetchall() == [
        (name, 3)
    ]

    at = followed("/", client.application.url_map.bind("localhost").build("jobq.schedule", {"name": name}))
    for what in ("pause", "run"):
        (form,) = [form for form in Page(client.get(at).text).forms if f"/schedules/{what}?" in form[1]]
        assert client.post(followed(at, form[1]), data=form[2]).status_code == 303
    assert db.execute("SELECT array_agg(name) FROM jobq.schedule WHERE paused_at IS NOT NULL").fetchone() == ([name],)

    # The filter in the search field, sent again as it is.
    at = f"/jobs?q={'queue%3A' + _percent(quote(name))}"
    shown = Page(client.get(at).text)
    (search,) = [form for form in shown.forms if form[0] == "get" and form[1] == "/jobs" and form[2].get("q")]
    again = client.get("/jobs", query_string=search[2]).text
    assert len(re.findall(r'<tr id="job-', again)) == 3
    (draft,) = [form for form in shown.forms if "draft" in form[1]]
    response = client.post("/operations/draft", data=draft[2] | {"action": "retry", "q": draft[2]["q"]})
    assert response.status_code == 303
    assert db.execute("SELECT filter FROM jobq.operation").fetchall() == [(f"state:failed {JobFilter(queue=name)}",)]


@pytest.mark.usefixtures("named")
def test_a_name_is_one_line_of_a_table(database_url: str) -> None:
    runner = CliRunner()
    for command in (
        ["queues", "list"],
        ["jobs", "list"],
        ["schedules", "list"],
        ["workers", "list"],
        ["jobs", "show", "1"],
    ):
        result = runner.invoke(main, ["--database-url", database_url, *command])
        assert result.exit_code == 0, result.output
        assert not re.search(r"^b\b", result.stdout, re.MULTILINE), command
        assert result.stdout.replace("\n", "").isprintable(), command


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())
