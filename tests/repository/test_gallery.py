"""The example application: its pages, its transaction, its tasks; and the whole demo as a user starts it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from flask.testing import FlaskClient
from psycopg.rows import dict_row
from werkzeug.test import TestResponse

from jobq._worker.inline import drain
from jobq.gallery import app, models, samples, settings, sheet, site, uploads
from jobq.gallery.mailserver import MailServer
from jobq.gallery.receipts import message_id
from jobq.gallery.settings import GallerySettings, engine
from tests.support.checks import some
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
GOOD = samples.sixteen_bits(64, 48)
BROKEN = b"no picture at all"
QUEUES = ("pictures", "documents", "mail")


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture
def gallery(
    database_url: str, tmp_path: Path, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GallerySettings]:
    """The gallery's settings, its tables made, and this process's tasks pointed at them."""
    here = GallerySettings(database_url=database_url, home=tmp_path / "gallery", smtp=mail.address)
    for name, value in here.environ().items():
        monkeypatch.setenv(name, value)
    settings.current.cache_clear()
    models.create_all(engine(database_url))
    before = app.q.settings.database_url
    app.q.configure(database_url=database_url)  # where a task reads the results of a map
    yield here
    app.q.configure(database_url=before)
    engine(database_url).dispose()
    settings.current.cache_clear()


@pytest.fixture
def client(gallery: GallerySettings) -> FlaskClient:
    return site.create_app(gallery, status_url="http://127.0.0.1:1/").test_client()


@pytest.fixture
def rows(gallery: GallerySettings) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """A function that runs SQL on the gallery's database and returns the rows as dictionaries."""
    with psycopg.connect(gallery.database_url, autocommit=True, row_factory=dict_row) as connection:

        def run(query: str, *values: Any) -> list[dict[str, Any]]:
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description is not None else []

        yield run


@pytest.fixture
def work(gallery: GallerySettings, rows: Any) -> Callable[[], None]:
    """A function that runs every job until none is left; those of the future are made due first."""

    def run() -> None:
        with psycopg.connect(gallery.database_url, autocommit=True) as connection:
            for _ in range(50):
                rows("UPDATE jobq.job SET run_at = now() WHERE state = 'ready' AND run_at > now()")
                drain(app.q, connection, queues=QUEUES)
                if not rows("SELECT 1 FROM jobq.job"):
                    return
        raise AssertionError(f"jobs are left: {rows('SELECT id, task, state, attempt FROM jobq.job')}")

    return run


def fields_of(client: FlaskClient) -> dict[str, str]:
    page = client.get("/").text
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))


def send(
    client: FlaskClient, *files: tuple[str, bytes], fields: dict[str, str] | None = None, **more: str
) -> TestResponse:
    data: dict[str, Any] = {"title": "A walk", "email": "you@example.org"}
    data |= fields if fields is not None else fields_of(client)
    data |= more
    data["photos"] = [(io.BytesIO(content), name) for name, content in files]
    return client.post("/uploads", data=data, content_type="multipart/form-data")


def drain_queues(here: GallerySettings, *queues: str) -> None:
    """Run the due jobs of these queues alone."""
    with psycopg.connect(here.database_url, autocommit=True) as connection:
        drain(app.q, connection, queues=queues)


def noted_sheets(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return a list that gets the names on each contact sheet that is drawn from now on."""
    drawn: list[list[str]] = []

    def note(title: str, entries: Sequence[sheet.Entry], target: Path, **options: Any) -> int:
        drawn.append([entry.name for entry in entries])
        return sheet.make_contact_sheet(title, entries, target, **options)

    monkeypatch.setattr(app, "draw_contact_sheet", note)
    return drawn


def take(here: GallerySettings, *files: tuple[str, bytes], token: str | None = None, **more: Any) -> uploads.Taken:
    incoming = [uploads.Incoming(name=name, stream=io.BytesIO(content)) for name, content in files]
    return uploads.take(here, token=token or uploads.new_token(), email="you@example.org", files=incoming, **more)


# --- Pages ---------------------------------------------------------------------------------------------------------------


def test_an_upload_leads_to_its_album_and_the_album_shows_it(client: FlaskClient, work: Any, rows: Any) -> None:
    answer = send(client, ("one.png", GOOD), ("two.jpg", samples.turned_jpeg()), ("three.jpg", BROKEN))
    assert answer.status_code == 303
    page = client.get(answer.location)
    assert "0 of 8 jobs finished" in page.text
    assert 'data-pending="yes"' in page.text
    work()
    live = client.get(f"{answer.location}/live")
    assert live.headers["Gallery-Pending"] == "no"
    assert "8 of 8 jobs finished" in live.text
    assert "Refused: the file is not a picture" in live.text
    assert "http://127.0.0.1:1/jobs/" in live.text
    (run,) = rows("SELECT id, name, key, state FROM jobq.workflow")
    (upload,) = rows("SELECT token, run FROM gallery.upload")
    assert run == {"id": upload["run"], "name": "upload", "key": upload["token"], "state": "succeeded"}
    assert f"http://127.0.0.1:1/workflows/{run['id']}" in live.text
    assert "upload 1 · done" in live.text
    for link in some(re.findall(r'(?:src|href)="(/[^"]+)"', live.text)):
        assert client.get(link).status_code == 200, link
    assert client.get(f"{answer.location}/contact-sheet.pdf").data.startswith(b"%PDF-")
    assert "A walk" in client.get("/").text


def test_every_page_has_a_strict_policy_and_no_inline_script(client: FlaskClient, work: Any) -> None:
    album = send(client, ("one.png", GOOD)).location
    work()
    for path in ("/", album, f"{album}/live", "/albums/999", "/nowhere"):
        answer = client.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style| style=| on\w+=|javascript:", answer.text), path
    cookie = client.get("/").headers.get("Set-Cookie") or ""
    fresh = client.application.test_client().get("/").headers["Set-Cookie"]
    assert "SameSite=Strict" in fresh
    assert "HttpOnly" in fresh
    assert "SameSite" in cookie or not cookie


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"csrf": "wrong"}, "load the page again"),
        ({"csrf": ""}, "load the page again"),
        ({"token": "x"}, "load the page again"),
        ({"email": "nobody"}, "you@example.org"),
        ({"email": "a@b\r\nBcc: c@d"}, "you@example.org"),
        ({"email": "a" * 300 + "@b"}, "you@example.org"),
        ({"album": "77"}, "no such album"),
    ],
)
def test_a_bad_form_is_refused_with_what_to_do(
    client: FlaskClient, rows: Any, change: dict[str, str], words: str
) -> None:
    answer = send(client, ("one.png", GOOD), fields=fields_of(client) | change)
    assert answer.status_code == 400
    assert words in answer.text
    assert rows("SELECT 1 FROM gallery.upload") == rows("SELECT 1 FROM jobq.workflow") == []


def test_no_file_too_many_files_and_too_many_bytes_are_refused(
    client: FlaskClient, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert send(client).status_code == 400
    monkeypatch.setattr(uploads, "MAX_FILES", 2)
    assert "at most 2" in send(client, *(("one.png", GOOD),) * 3).text
    client.application.config["MAX_CONTENT_LENGTH"] = 1000
    assert send(client, ("large.png", bytes(2000))).status_code == 413
    assert rows("SELECT 1 FROM gallery.photo") == []


def test_a_form_from_another_session_is_refused(client: FlaskClient) -> None:
    stranger = client.application.test_client()
    assert send(client, ("one.png", GOOD), fields=fields_of(stranger)).status_code == 400


def test_another_sites_name_for_this_machine_is_refused(client: FlaskClient) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\sea.jpg", "sea.jpg"),
        ("a\x00b\x1b[31m\u202egpj.exe", "a b [31m gpj.exe"),
        ("<script>alert(1)<!--.jpg", "<script>alert(1)<!--.jpg"),
        ("x" * 400 + ".jpg", "x" * 150),
        ("  ", "without a name"),
        ("\ud800.jpg", ".jpg"),
        ("日本.jpg", "日本.jpg"),
    ],
)
def test_names_are_shown_and_never_paths(
    gallery: GallerySettings, client: FlaskClient, rows: Any, given: str, stored: str
) -> None:
    taken = take(gallery, (given, GOOD))
    assert [row["name"] for row in rows("SELECT name FROM gallery.photo")] == [stored]
    assert "<script>alert" not in client.get(f"/albums/{taken.album_id}").text
    assert {path.parent.name for path in gallery.home.rglob("*") if path.is_file()} == {"originals"}


# --- One transaction -----------------------------------------------------------------------------------------------------


def test_rows_and_the_run_are_one_transaction(
    gallery: GallerySettings, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = uploads._enqueue

    def fail(*given: Any) -> int:
        enqueue(*given)
        raise RuntimeError("stopped just before the commit")

    with monkeypatch.context() as patch:
        patch.setattr(uploads, "_enqueue", fail)
        with pytest.raises(RuntimeError):
            take(gallery, ("one.png", GOOD))
    assert rows("SELECT 1 FROM gallery.album") == rows("SELECT 1 FROM gallery.photo") == []
    assert rows("SELECT 1 FROM jobq.job") == rows("SELECT 1 FROM jobq.workflow") == []
    assert [path for path in gallery.home.rglob("*") if path.is_file()] == []

    take(gallery, ("one.png", GOOD))
    tasks = [row["task"] for row in rows("SELECT task FROM jobq.job ORDER BY task")]
    assert tasks == ["make_thumbnail", "make_web_size"]
    nodes = [row["name"] for row in rows("SELECT name FROM jobq.workflow_node ORDER BY number")]
    assert nodes == ["thumbnails", "web sizes", "contact sheet", "receipt"]


def test_a_double_click_stores_and_mails_once(gallery: GallerySettings, rows: Any, work: Any, mail: MailServer) -> None:
    token = uploads.new_token()
    together = threading.Barrier(6)

    def press(_: int) -> uploads.Taken:
        together.wait()
        return take(gallery, ("one.png", GOOD), token=token)

    with ThreadPoolExecutor(6) as presses:
        taken = list(presses.map(press, range(6)))
    assert len({one.album_id for one in taken}) == 1
    assert sorted(one.repeated for one in taken) == [False] + [True] * 5
    assert len(rows("SELECT 1 FROM gallery.photo")) == 1
    assert len(rows("SELECT 1 FROM jobq.workflow")) == len(rows("SELECT 1 FROM gallery.album")) == 1
    work()
    assert take(gallery, ("one.png", GOOD), token=token).repeated
    work()
    assert [message["Message-ID"] for message in mail.accepted()] == [message_id(token)]


def test_the_last_sheet_of_an_album_has_the_pictures_of_all_uploads(
    gallery: GallerySettings, rows: Any, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = noted_sheets(monkeypatch)
    album = take(gallery, ("one.png", GOOD)).album_id
    take(gallery, ("two.png", GOOD), album_id=album)
    take(gallery, ("three.jpg", BROKEN), album_id=album)
    work()
    assert len(drawn) == 3
    assert drawn[-1] == ["one.png", "two.png", "three.jpg"]
    assert rows("SELECT DISTINCT state FROM jobq.workflow") == [{"state": "succeeded"}]


def test_a_sheet_leaves_out_what_another_upload_is_still_making(
    gallery: GallerySettings, rows: Any, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = noted_sheets(monkeypatch)
    album = take(gallery, ("one.png", GOOD)).album_id
    take(gallery, ("two.png", GOOD), album_id=album)
    with psycopg.connect(gallery.database_url) as connection:
        app.make_contact_sheet.enqueue(connection, album, [], [])
    drain_queues(gallery, "documents")
    assert drawn == [[]]
    work()
    assert drawn[-1] == ["one.png", "two.png"]


# --- Tasks ---------------------------------------------------------------------------------------------------------------


def test_a_broken_picture_is_one_failed_job_beside_the_others(
    gallery: GallerySettings, rows: Any, work: Any, mail: MailServer
) -> None:
    bad = samples.bad_samples()
    take(gallery, ("good.png", GOOD), *((one.name, one.data) for one in bad), ("fine.gif", samples.animation()))
    work()
    failed = rows("SELECT id, args, error FROM jobq.job_history WHERE state = 'failed'")
    photos = {row["id"]: row for row in rows("SELECT * FROM gallery.photo")}
    assert sorted(photos[job["args"]["photo_id"]]["name"] for job in failed) == sorted(one.name for one in bad)
    for job in some(failed):
        assert photos[job["args"]["photo_id"]]["refused"] in job["error"]
    assert len(rows("SELECT 1 FROM jobq.job_history WHERE state = 'cancelled'")) == len(bad)
    made = rows("SELECT name, kind FROM gallery.file JOIN gallery.photo ON photo.id = photo_id ORDER BY 1, 2")
    assert [(row["name"], row["kind"]) for row in made] == [
        ("fine.gif", "thumbnail"),
        ("fine.gif", "web"),
        ("good.png", "thumbnail"),
        ("good.png", "web"),
    ]
    (message,) = mail.accepted()
    assert message["Subject"].startswith("2 of 6 pictures")
    for one in bad:
        assert f"- {one.name}: " in message.get_content()


def test_a_refused_picture_can_be_retried_after_what_to_do(gallery: GallerySettings, rows: Any, work: Any) -> None:
    from jobq import operations

    take(gallery, ("one.png", BROKEN))
    work()
    (job,) = rows("SELECT id FROM jobq.job_history WHERE state = 'failed'")
    (photo,) = rows("SELECT * FROM gallery.photo")

    def retry() -> None:
        with psycopg.connect(gallery.database_url, row_factory=dict_row) as connection:
            operations.retry(connection, gallery.schema, [job["id"]], actor="test")

    retry()
    work()
    assert rows("SELECT refused, refused_by FROM gallery.photo") == [
        {"refused": photo["refused"], "refused_by": job["id"]}
    ], "a second failure says the same"
    gallery.path(photo["original_path"]).write_bytes(GOOD)
    retry()
    work()
    assert rows("SELECT refused, refused_by FROM gallery.photo") == [{"refused": None, "refused_by": None}]
    assert rows("SELECT state FROM jobq.job_history WHERE id = %s", job["id"]) == [{"state": "succeeded"}]


def test_running_every_job_twice_changes_nothing(
    gallery: GallerySettings, rows: Any, work: Any, mail: MailServer
) -> None:
    take(gallery, ("one.png", GOOD))
    work()
    before = rows("SELECT * FROM gallery.file ORDER BY id"), [str(one) for one in mail.accepted()]
    rows(
        "INSERT INTO jobq.job (task, args, queue) SELECT task, args, queue FROM jobq.job_history "
        "WHERE state = 'succeeded'"
    )
    work()
    assert (rows("SELECT * FROM gallery.file ORDER BY id"), [str(one) for one in mail.accepted()]) == before


def test_sheet_and_receipt_begin_when_all_pictures_have_ended(
    gallery: GallerySettings, rows: Any, work: Any, mail: MailServer
) -> None:
    take(gallery, ("one.png", GOOD), ("two.jpg", BROKEN))
    assert {row["queue"] for row in rows("SELECT queue FROM jobq.job")} == {"pictures"}
    drain_queues(gallery, "pictures")
    assert [row["task"] for row in rows("SELECT task FROM jobq.job")] == ["make_contact_sheet"]
    drain_queues(gallery, "documents")
    assert [row["task"] for row in rows("SELECT task FROM jobq.job")] == ["mail_receipt"]
    work()
    (message,) = mail.accepted()
    assert "Sizes made: 2. Pages of the album's contact sheet: 1." in message.get_content()


def test_a_run_that_is_held_up_is_shown_and_goes_on_after_a_retry(
    gallery: GallerySettings,
    client: FlaskClient,
    rows: Any,
    work: Any,
    mail: MailServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from jobq import Fail, operations

    def fail(*_: Any, **__: Any) -> int:
        raise Fail("the disk is full")

    album = send(client, ("one.png", GOOD)).location
    with monkeypatch.context() as patch:
        patch.setattr(app, "draw_contact_sheet", fail)
        work()
    live = client.get(f"{album}/live")
    assert live.headers["Gallery-Pending"] == "no"
    assert "upload 1 · held up" in live.text
    assert "the disk is full" in live.text
    assert "receipt · waiting" in live.text
    (run,) = rows("SELECT id FROM jobq.workflow")
    with psycopg.connect(gallery.database_url, row_factory=dict_row) as connection:
        operations.retry_workflow(connection, gallery.schema, run["id"], actor="test")
    work()
    assert "upload 1 · done" in client.get(f"{album}/live").text
    assert len(mail.accepted()) == 1


def test_an_album_is_shown_after_its_runs_have_been_removed(client: FlaskClient, rows: Any, work: Any) -> None:
    album = send(client, ("one.png", GOOD)).location
    work()
    rows("DELETE FROM jobq.workflow")
    live = client.get(f"{album}/live")
    assert live.status_code == 200
    assert live.headers["Gallery-Pending"] == "no"
    assert 'alt="one.png"' in live.text


def test_a_mail_refused_for_now_is_tried_again_and_arrives_once(
    gallery: GallerySettings, rows: Any, work: Any, mail: MailServer
) -> None:
    for n in range(3):
        take(gallery, (f"{n}.png", GOOD))
    work()
    assert mail.refusals == 2
    assert len({message["Message-ID"] for message in mail.accepted()}) == len(mail.accepted()) == 3
    errors = rows("SELECT outcome, message FROM jobq.job_attempt")
    assert len(errors) == 2
    assert all(row["outcome"] == "error" and "451" in row["message"] for row in errors)


@pytest.mark.parametrize("stage", ["handle_RCPT", "handle_DATA"])
def test_a_mail_refused_for_good_fails_at_once(
    gallery: GallerySettings, rows: Any, work: Any, mail: MailServer, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    async def refuse(self: Any, *_: Any) -> str:
        return "550 5.1.1 No such person"

    monkeypatch.setattr(MailServer, stage, refuse, raising=False)
    take(gallery, ("one.png", GOOD))
    work()
    (job,) = rows("SELECT attempt, error FROM jobq.job_history WHERE state = 'failed'")
    assert job["attempt"] == 1
    assert "550" in job["error"]


def test_jobs_for_what_is_gone_are_cancelled(gallery: GallerySettings, rows: Any, work: Any) -> None:
    with psycopg.connect(gallery.database_url) as connection:
        app.make_thumbnail.enqueue(connection, 999)
        app.make_contact_sheet.enqueue(connection, 999, [], [])
        app.mail_receipt.enqueue(connection, "gone", app.ContactSheet(path="x.pdf", pages=1, made=0))
    work()
    assert [row["state"] for row in rows("SELECT state FROM jobq.job_history")] == ["cancelled"] * 3


def test_the_nightly_report_tells_of_refused_pictures(gallery: GallerySettings, rows: Any, work: Any) -> None:
    take(gallery, ("one.png", GOOD), ("two.jpg", b""))
    work()
    with psycopg.connect(gallery.database_url) as connection:
        app.nightly_report.enqueue(connection)
    work()
    (report,) = (gallery.home / "reports").iterdir()
    assert report.read_text() == "1 albums, 2 photos; refused in the last day: 1\n  two.jpg: the file is empty\n"


# --- The whole demo ------------------------------------------------------------------------------------------------------


def demo(*args: str, timeout: float = 110) -> tuple[int, dict[str, Any], str]:
    """Run `jobq demo --once --json`; return its exit code, its document and what it said beside it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("JOBQ_", "GALLERY_"))}
    ended = subprocess.run(
        [sys.executable, "-m", "jobq", "demo", "--once", "--json", *args],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return ended.returncode, json.loads(ended.stdout or "{}"), ended.stderr


@pytest.mark.slow
def test_the_demo_brings_its_own_postgres_and_checks_its_own_work() -> None:
    code, summary, said = demo()
    assert code == 0, (summary, said)
    good, bad = samples.good_samples(), samples.bad_samples()
    assert summary["ok"] is True
    assert summary["problems"] == []
    assert summary["pictures"] == len(good) + len(bad) + 1
    assert sorted(one["name"] for one in summary["refused"]) == sorted(one.name for one in bad)
    assert summary["jobs_failed"] == summary["jobs_cancelled"] == len(bad)
    assert summary["jobs_done"] == 2 * (len(good) + 1) + 2 + 2
    assert summary["files_made"] == 2 * (len(good) + 1) + 2
    assert summary["mails"] == 2
    assert summary["jobs_retried"] >= summary["mails_refused"] == 1
    assert said == ""


@pytest.mark.slow
def test_the_demo_takes_a_directory_of_pictures(empty_database_url: str, tmp_path: Path) -> None:
    photos = tmp_path / 'some "pictures", été'
    photos.mkdir()
    for n in range(45):
        (photos / f"picture {n:02} ünd.PNG").write_bytes(GOOD)
    (photos / "broken.jpg").write_bytes(BROKEN)
    (photos / "notes.txt").write_text("not sent")
    (photos / ".hidden.jpg").write_bytes(GOOD)
    code, summary, said = demo("--photos", str(photos), "--database-url", empty_database_url)
    assert code == 0, (summary, said)
    assert summary["pictures"] == 46
    assert [one["name"] for one in summary["refused"]] == ["broken.jpg"]
    assert summary["mails"] == 2, "two batches are two uploads into one album"


@pytest.mark.slow
def test_the_demo_runs_until_it_is_told_to_stop_and_leaves_nothing(empty_database_url: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    command = [sys.executable, "-m", "jobq", "demo", "--home", str(tmp_path), "--database-url", empty_database_url]
    with said.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_until(lambda: "Ctrl-C" in said.read_text() or process.poll() is not None, timeout=60, what="the demo")
        urls = re.findall(r"http://127\.0\.0\.1:\d+", said.read_text())
        assert len(urls) == 2, said.read_text()
        for url in urls:
            with urllib.request.urlopen(f"{url}/", timeout=10) as page:
                assert page.status == 200
        port = urls[0].rpartition(":")[2]
        code, _, refusal = demo("--port", port, "--database-url", empty_database_url)
        assert code == 78
        assert f"port={port}" in refusal
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.terminate()
        assert process.wait(60) == 0, said.read_text()
        assert psutil.wait_procs(children, timeout=10)[1] == []
    finally:
        process.kill()
        process.wait()


def test_the_demo_says_no_to_a_directory_without_pictures(tmp_path: Path) -> None:
    code, summary, said = demo("--photos", str(tmp_path))
    assert code == 78
    assert summary == {}
    assert "no pictures" in said
