"""Everything that the demo runs, started in order and stopped in the reverse order, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobq import migrate
from jobq.dev import DevPostgres
from jobq.dev.programs import die_with_parent
from jobq.gallery import models, site
from jobq.gallery.mailserver import MailServer
from jobq.gallery.settings import GallerySettings, engine
from jobq.gallery.webserver import WebServer
from jobq.settings import Settings, libpq_url

APP = "jobq.gallery.app:q"
QUEUES = "pictures,documents,mail"


class Worker:
    """`jobq worker` as a process of its own, as in production."""

    def __init__(self, settings: GallerySettings, log: Path) -> None:
        self.log = log
        # Pictures keep CPUs busy and take memory: few at a time are as fast.
        concurrency = max(4, min(16, 2 * (os.cpu_count() or 1)))
        options = ["--log-format", "text", "--concurrency", str(concurrency)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jobq", "worker", APP, "--queues", QUEUES, *options],
                env=os.environ | settings.environ(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C reaches the demo alone, which then stops things in order.
                start_new_session=True,
                preexec_fn=die_with_parent(os.getpid()),  # noqa: PLW1509 - calls nothing that takes locks
            )

    @property
    def exit_code(self) -> int | None:
        """How the process ended; None while it runs."""
        return self._process.poll()

    def last_words(self, lines: int = 15) -> str:
        """Return the end of its log."""
        text = self.log.read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self, timeout: float = 40) -> None:
        """Let running jobs end, then kill what is left of the process group."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The running parts."""

    settings: GallerySettings
    mail: MailServer
    gallery: WebServer
    status: WebServer
    worker: Worker


@contextmanager
def set_up(
    home: Path, database_url: str | None, *, port: int = 0, say: Callable[[str], None] = lambda line: None
) -> Iterator[Stage]:
    """Start database, mail, pages and worker; stop them when the block ends. `say` hears of every step.

    Without `database_url`, an embedded Postgres is started, with its data in `home`.
    Raises EmbeddedPostgresError, DatabaseUnavailable, SchemaError, and OSError for a port that is taken.
    """
    from jobq.web import create_app as create_status_page

    home.mkdir(parents=True, exist_ok=True, mode=0o711)
    with ExitStack() as stack:
        if database_url is None:
            say("starting Postgres")
            database_url = stack.enter_context(DevPostgres(home / "postgres")).url()
        database_url = libpq_url(database_url)
        jobq_settings = Settings.load(database_url=database_url)
        say("making the tables")
        migrate.upgrade(database_url, jobq_settings.schema)
        database = engine(database_url)
        stack.callback(database.dispose)
        models.create_all(database)
        say("starting mail server, pages and worker")
        mail = stack.enter_context(MailServer())
        settings = GallerySettings(database_url=database_url, home=home, smtp=mail.address, schema=jobq_settings.schema)
        status = stack.enter_context(WebServer(create_status_page(jobq_settings), threads=4))
        gallery = stack.enter_context(WebServer(site.create_app(settings, status_url=status.url), port))
        worker = Worker(settings, home / "worker.log")
        stack.callback(worker.stop)
        yield Stage(settings=settings, mail=mail, gallery=gallery, status=status, worker=worker)
