"""The demo: the gallery on stage, with its worker, its mail server and jobq's status page. `jobq demo` calls `run`."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from jobq.errors import ConfigurationError
from jobq.gallery import samples, verdict
from jobq.gallery.models import Album
from jobq.gallery.settings import engine
from jobq.gallery.stage import Stage, set_up
from jobq.gallery.uploads import display_name
from jobq.gallery.verdict import Sent, Summary
from jobq.gallery.visitor import Picture, VisitFailed, Visitor, pictures_in

STALL = 60.0  # seconds in which no job moves before the demo gives up
_SHOWN = 15  # problems; the JSON document has all
_BATCH_FILES, _BATCH_BYTES = 40, 200 * 1024 * 1024


def run(
    *,
    once: bool = False,
    photos: Path | None = None,
    as_json: bool = False,
    port: int | None = None,
    home: Path | None = None,
    database_url: str | None = None,
) -> int:
    """Run the demo and return the process's exit code: 0, or 1 when something is missing or broke off.

    `once`: upload `photos` (or pictures drawn here), wait, check, print a summary (`as_json`: as one JSON document),
    in `home` or a temporary one; otherwise run until Ctrl-C, in `home` or ``.jobq``. `port`: the gallery's, else a free one.
    `database_url`: use this Postgres instead of an embedded one.
    Raises ConfigurationError, EmbeddedPostgresError, DatabaseUnavailable, SchemaError.
    """
    screen = Console(stderr=True, highlight=False)
    if photos is not None:
        _files_of(photos)  # before anything is started
    with _terminated_like_interrupted():
        try:
            if once:
                with _home_for_once(home) as place, set_up(place, database_url, port=port or 0) as stage:
                    summary = _upload_and_check(stage, photos, screen)
                _report(summary, as_json=as_json)
                return 0 if summary.ok else 1
            place = (home or Path(".jobq")).absolute() / "gallery"
            with set_up(place, database_url, port=port or 0, say=screen.print) as stage:
                return _run_until_interrupted(stage, photos, screen)
        except KeyboardInterrupt:
            screen.print("stopped")
            return 0 if not once else 130
        except VisitFailed as error:
            screen.print(f"the gallery failed: {error}", style="red", markup=False)
            return 1
        except OSError as error:
            if port and "in use" in str(error):
                raise ConfigurationError(
                    f"port={port}: another program listens there; give another, or none"
                ) from error
            raise


def _upload_and_check(stage: Stage, photos: Path | None, screen: Console) -> Summary:
    began = time.monotonic()
    problems: list[str] = []
    sent = _upload(stage, photos, problems)
    problems += _wait(stage, sent, screen)
    return verdict.judge(stage, sent, time.monotonic() - began, problems)


def _upload(stage: Stage, photos: Path | None, problems: list[str]) -> list[Sent]:
    """Send every picture; the first form is sent twice, as by a double click."""
    visitor = Visitor(host="127.0.0.1", port=stage.gallery.port)
    if photos is None:
        good, bad = samples.good_samples(), samples.bad_samples()
        batches = [("Drawn for the demo", [Picture.of(sample) for sample in good])]
        batches.append(("Good, broken and hostile", [Picture.of(sample) for sample in [*bad, good[0]]]))
        hostile: frozenset[str] | None = frozenset(sample.name for sample in bad)
    else:
        title = display_name(photos.resolve().name)
        batches = [(title, batch) for batch in _batches(_files_of(photos))]
        hostile = None
    sent: list[Sent] = []
    for title, batch in batches:
        if not sent:
            token, answers = visitor.double_click(batch, title=title)
            album = answers[0]
            if answers[0] != answers[1]:
                problems.append(f"a double click made two albums: {answers}")
        else:
            form = visitor.form()
            into = sent[0].album_id if photos is not None else None
            token, album = form.token, visitor.upload(batch, title=title, album=into, form=form)
        names = tuple(display_name(picture.sent_name) for picture in batch)
        refused = None if hostile is None else hostile & set(names)
        sent.append(Sent(token=token, album_id=album, names=names, refused=refused))
    return sent


def _wait(stage: Stage, sent: Sequence[Sent], screen: Console) -> list[str]:
    """Show how far the jobs are until all runs have ended; return why not, if they do not."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        line = bar.add_task("jobs", total=None)
        before: object = None
        moved = time.monotonic()
        while True:
            states = verdict.read(stage, sent)
            jobs = [job for each in states for job in each.jobs]
            bar.update(line, total=len(jobs), completed=sum(each.finished for each in states))
            if not any(each.pending for each in states):
                return []
            if stage.worker.exit_code is not None:
                return [f"the worker ended with code {stage.worker.exit_code}:\n{stage.worker.last_words()}"]
            now = [(job.id, job.state, job.attempts) for job in jobs]
            if now != before:
                before, moved = now, time.monotonic()
            elif time.monotonic() - moved > STALL:
                return [f"no job has moved for {STALL:.0f} s; the worker's last words:\n{stage.worker.last_words()}"]
            time.sleep(0.05)


def _run_until_interrupted(stage: Stage, photos: Path | None, screen: Console) -> int:
    with Session(engine(stage.settings.database_url)) as session:
        empty = not session.scalar(select(func.count()).select_from(Album))
    if empty or photos is not None:
        screen.print("uploading pictures to begin with")
        _upload(stage, photos, [])
    table = Table.grid(padding=(0, 2))
    table.add_row("gallery", stage.gallery.url)
    table.add_row("status page", stage.status.url)
    table.add_row("mail server", f"{stage.mail.address[0]}:{stage.mail.address[1]}, refuses every second mail once")
    table.add_row("files and logs", str(stage.settings.home))
    Console(highlight=False).print(table, soft_wrap=True)
    screen.print("Ctrl-C stops all of it.")
    never = threading.Event()
    while not never.wait(0.5):
        if stage.worker.exit_code is not None:
            screen.print(f"the worker ended with code {stage.worker.exit_code}:", style="red")
            screen.print(stage.worker.last_words(), markup=False)
            return 1
    return 0


def _report(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        document = dataclasses.asdict(summary) | {"ok": summary.ok}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    screen = Console(highlight=False)
    table = Table.grid(padding=(0, 2))
    for name, value in dataclasses.asdict(summary).items():
        if name not in ("refused", "problems"):
            table.add_row(name.replace("_", " "), str(value))
    screen.print(table)
    for one in summary.refused:
        screen.print(f"refused: {one['name']}: {one['reason']}", markup=False, soft_wrap=True)
    for problem in summary.problems[:_SHOWN]:
        screen.print(f"problem: {problem}", style="red", markup=False, soft_wrap=True)
    if len(summary.problems) > _SHOWN:
        screen.print(f"and {len(summary.problems) - _SHOWN} problems more", style="red")
    screen.print("all there" if summary.ok else "not all there", style="green" if summary.ok else "red")


def _files_of(photos: Path) -> list[Picture]:
    try:
        found = pictures_in(photos)
    except OSError as error:
        raise ConfigurationError(f"photos={str(photos)!r}: {error.strerror}: give a readable directory") from error
    if not found:
        raise ConfigurationError(f"photos={str(photos)!r}: no pictures there: give a directory that holds some")
    return found


def _batches(pictures: Sequence[Picture]) -> Iterator[list[Picture]]:
    batch: list[Picture] = []
    for picture in pictures:
        size = sum(one.size for one in batch) + picture.size
        if batch and (len(batch) == _BATCH_FILES or size > _BATCH_BYTES):
            yield batch
            batch = []
        batch.append(picture)
    yield batch


@contextmanager
def _home_for_once(home: Path | None) -> Iterator[Path]:
    if home is not None:
        yield home.absolute() / "gallery"
        return
    place = Path(tempfile.mkdtemp(prefix="jobq-demo-"))
    # Postgres runs as another user when this is root, and must pass through.
    place.chmod(0o711)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM stop everything as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
