"""A visitor of the gallery: loads the form and sends it, over HTTP, like a browser does."""

from __future__ import annotations

import html
import http.client
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jobq.gallery.samples import Sample

_CHUNK = 256 * 1024


class VisitFailed(Exception):
    """The gallery did not answer as it should; the message has its status and words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A file to send: bytes in memory or a file on disk."""

    name: str
    content: bytes | Path

    @classmethod
    def of(cls, sample: Sample) -> Picture:
        """Return the picture of a sample."""
        return cls(name=sample.name, content=sample.data)

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @property
    def sent_name(self) -> str:
        """Its name as a header can carry it."""
        name = self.name.encode(errors="replace").decode()
        return re.sub(r"[\\\x00-\x1f\x7f]", "_", name).replace('"', "%22")

    def read(self) -> Iterator[bytes]:
        """Yield its bytes, in pieces."""
        if isinstance(self.content, bytes):
            yield self.content
            return
        with self.content.open("rb") as source:
            while piece := source.read(_CHUNK):
                yield piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """An upload form as it was loaded: its tokens, and the cookie that goes with them."""

    token: str
    csrf: str
    cookie: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Someone with a browser, looking at the gallery on `host`:`port`."""

    host: str
    port: int
    email: str = "visitor@example.org"

    def form(self) -> Form:
        """Load the upload form."""
        status, headers, body = self._ask("GET", "/")
        if status != 200:
            raise VisitFailed(f"the form could not be loaded: status {status}")
        cookie = (headers.get("Set-Cookie") or "").partition(";")[0]
        return Form(token=_hidden(body, "token"), csrf=_hidden(body, "csrf"), cookie=cookie)

    def upload(
        self,
        pictures: Sequence[Picture],
        *,
        title: str = "",
        album: int | None = None,
        form: Form | None = None,
    ) -> int:
        """Send the pictures and return the album's id. Raises VisitFailed."""
        form = form or self.form()
        fields = {"csrf": form.csrf, "token": form.token, "email": self.email, "title": title}
        if album is not None:
            fields["album"] = str(album)
        boundary = secrets.token_hex(16)
        parts = list(_parts(boundary, fields, pictures))
        sent = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(sum(len(p) if isinstance(p, bytes) else p.size for p in parts)),
            "Cookie": form.cookie,
        }
        status, headers, body = self._ask("POST", "/uploads", sent, _pieces(parts))
        found = re.search(r"/albums/(\d+)$", headers.get("Location") or "")
        if status != 303 or found is None:
            said = re.search(r"<p>(.*?)</p>", body, re.DOTALL)
            raise VisitFailed(f"the upload got status {status}: {html.unescape(said[1]) if said else body[:200]}")
        return int(found[1])

    def double_click(self, pictures: Sequence[Picture], *, title: str = "") -> tuple[str, list[int]]:
        """Send one form twice at the same time; return its token and the album that each answer named."""
        form = self.form()
        with ThreadPoolExecutor(2) as presses:
            answers = [presses.submit(self.upload, pictures, title=title, form=form) for _ in range(2)]
            return form.token, [answer.result() for answer in answers]

    def _ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: Iterator[bytes] | None = None,
    ) -> tuple[int, http.client.HTTPMessage, str]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.msg, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise VisitFailed(f"{method} {path}: {error}") from error
        finally:
            connection.close()


def pictures_in(directory: Path) -> list[Picture]:
    """Return the files in `directory` whose names end like a picture's, by name."""
    endings = {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".tif", ".tiff"),
        *(".bmp", ".heic", ".heif", ".avif"),  # refused, and said so
    }
    with os.scandir(directory) as entries:
        paths = sorted(Path(entry.path) for entry in entries if entry.is_file())
    return [
        Picture(name=path.name, content=path)
        for path in paths
        if path.suffix.lower() in endings and not path.name.startswith(".")
    ]


def _parts(boundary: str, fields: dict[str, str], pictures: Sequence[Picture]) -> Iterator[bytes | Picture]:
    for name, value in fields.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        yield head.encode()
    for picture in pictures:
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="photos"; filename="{picture.sent_name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        yield head.encode()
        yield picture
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _pieces(parts: Sequence[bytes | Picture]) -> Iterator[bytes]:
    for part in parts:
        if isinstance(part, bytes):
            yield part
        else:
            yield from part.read()


def _hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    if found is None:
        raise VisitFailed(f"the form has no field {name}")
    return html.unescape(found[1])
