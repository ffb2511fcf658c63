"""The gallery's pages."""

from __future__ import annotations

import re
import secrets
from hmac import compare_digest
from typing import Any

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    redirect,
    render_template,
    request,
    send_from_directory,
    session,
    url_for,
)
from sqlalchemy import func, select
from sqlalchemy.orm import Session, selectinload
from werkzeug.exceptions import HTTPException, SecurityError

from jobq.gallery import uploads
from jobq.gallery.models import Album, Photo
from jobq.gallery.runs import RunStates, run_states
from jobq.gallery.settings import GallerySettings, engine

MAX_REQUEST_BYTES = 512 * 1024 * 1024
_POLICY = "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; " + (
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

pages = Blueprint("gallery", __name__)


def create_app(settings: GallerySettings, *, status_url: str | None = None, sender: str = "you@example.org") -> Flask:
    """Return the gallery as a WSGI application. `status_url`: where jobq's status page is, for the links.

    Its tables must be there (``models.create_all``).
    """
    app = Flask("jobq.gallery")
    app.config.update(
        GALLERY=settings,
        STATUS_URL=status_url.rstrip("/") if status_url else None,
        SENDER=sender,
        # Forms that were open when the process ended must be loaded again: good enough for an example.
        SECRET_KEY=secrets.token_bytes(32),
        SESSION_COOKIE_NAME="gallery",
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_COOKIE_HTTPONLY=True,
        MAX_CONTENT_LENGTH=MAX_REQUEST_BYTES,
        # Another site's name that resolves to this machine must not get in.
        TRUSTED_HOSTS=["127.0.0.1", "localhost"],
    )
    app.register_blueprint(pages)
    app.after_request(_secure)
    app.register_error_handler(HTTPException, _show_error)
    app.context_processor(_context)
    return app


@pages.get("/")
def index() -> str:
    """The upload form and the albums, newest first."""
    with _session() as database:
        counts = (
            select(Album, func.count(Photo.id), func.min(Photo.id).filter(Photo.refused.is_(None)).label("cover"))
            .outerjoin(Photo)
            .group_by(Album.id)
            .order_by(Album.id.desc())
            .limit(60)
        )
        albums = [
            {"id": album.id, "title": album.title, "photos": photos, "cover": cover}
            for album, photos, cover in database.execute(counts)
        ]
        return render_template("gallery/index.html", albums=albums, upload_token=uploads.new_token())


@pages.post("/uploads")
def upload() -> Any:
    """Take an upload in and show its album. The same token a second time leads to the same album."""
    if not compare_digest(request.form.get("csrf", ""), session.get("csrf", secrets.token_hex())):
        abort(400, "The form is too old, or comes from another page: load the page again.")
    album = request.form.get("album", "")
    files = [
        uploads.Incoming(name=file.filename or "", stream=file.stream)
        for file in request.files.getlist("photos")
        if file.filename
    ]
    try:
        taken = uploads.take(
            _settings(),
            token=request.form.get("token", ""),
            email=request.form.get("email", "").strip(),
            title=request.form.get("title", ""),
            album_id=int(album) if re.fullmatch(r"[0-9]{1,18}", album) else None,
            files=files,
        )
    except uploads.BadUpload as error:
        abort(400, str(error))
    return redirect(url_for("gallery.album", album_id=taken.album_id), 303)


@pages.get("/albums/<int:album_id>")
def album(album_id: int) -> str:
    """An album: its pictures, and how far the jobs are that make them."""
    with _session() as database:
        found, states = _album(database, album_id)
        return render_template("gallery/album.html", album=found, states=states, upload_token=uploads.new_token())


@pages.get("/albums/<int:album_id>/live")
def live(album_id: int) -> Response:
    """The album's changing part as HTML, for live.js. Gallery-Pending tells whether to come again."""
    with _session() as database:
        found, states = _album(database, album_id)
        response = Response(render_template("gallery/live.html", album=found, states=states))
        response.headers["Gallery-Pending"] = "yes" if states.pending else "no"
        return response


@pages.get("/pictures/<any(thumbnail, web):kind>/<int:photo_id>.jpg")
def picture(kind: str, photo_id: int) -> Response:
    """One of a photo's files."""
    return send_from_directory(_settings().path(kind), f"{photo_id}.jpg", max_age=3600)


@pages.get("/albums/<int:album_id>/contact-sheet.pdf")
def contact_sheet(album_id: int) -> Response:
    """The album's contact sheet."""
    return send_from_directory(_settings().path("sheets"), f"album-{album_id}.pdf", max_age=0)


def _album(database: Session, album_id: int) -> tuple[Album, RunStates]:
    found = database.get(
        Album,
        album_id,
        options=[selectinload(Album.photos).selectinload(Photo.files), selectinload(Album.uploads)],
    )
    if found is None:
        abort(404, "There is no such album.")
    return found, run_states(database, found, _settings().schema)


def _settings() -> GallerySettings:
    settings: GallerySettings = current_app.config["GALLERY"]
    return settings


def _session() -> Session:
    return Session(engine(_settings().database_url))


def _context() -> dict[str, Any]:
    """What every template may use. The session's CSRF token is made when a form first asks for it."""

    def csrf() -> str:
        token: str = session.setdefault("csrf", secrets.token_hex(16))
        return token

    return {
        "csrf": csrf,
        "status_url": current_app.config["STATUS_URL"],
        "sender": current_app.config["SENDER"],
        "max_files": uploads.MAX_FILES,
    }


def _secure(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    return response


def _show_error(error: HTTPException) -> tuple[str, int]:
    if isinstance(error, SecurityError):  # by another host's name, no address of a page can be told
        return "Open the gallery as 127.0.0.1 or localhost.", 400
    return render_template("gallery/error.html", error=error), error.code or 500
