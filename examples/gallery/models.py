"""The gallery's own tables, in a schema of its own beside jobq's.

An upload keeps the id of its workflow's run, written in the same transaction: so a page can tell how far it is.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    DateTime,
    Engine,
    ForeignKey,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    select,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.schema import CreateSchema

SCHEMA = "gallery"


class Base(DeclarativeBase):
    """Base of the gallery's tables."""

    metadata = MetaData(schema=SCHEMA)


class Album(Base):
    """A title with photos in it."""

    __tablename__ = "album"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    title: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    sheet_path: Mapped[str | None] = mapped_column(Text)

    uploads: Mapped[list[Upload]] = relationship(back_populates="album", order_by="Upload.created_at")
    photos: Mapped[list[Photo]] = relationship(back_populates="album", order_by="Photo.id")


class Upload(Base):
    """One press of the button. Its token comes with the form, so a second press brings the same one."""

    __tablename__ = "upload"

    token: Mapped[str] = mapped_column(Text, primary_key=True)
    album_id: Mapped[int] = mapped_column(ForeignKey(Album.id), index=True)
    email: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    run: Mapped[int | None] = mapped_column(BigInteger)
    mailed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))

    album: Mapped[Album] = relationship(back_populates="uploads")
    photos: Mapped[list[Photo]] = relationship(back_populates="upload", order_by="Photo.id")


class Photo(Base):
    """One uploaded file. Refused photos keep their row: the sender is told which ones, and why."""

    __tablename__ = "photo"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    album_id: Mapped[int] = mapped_column(ForeignKey(Album.id), index=True)
    upload_token: Mapped[str] = mapped_column(ForeignKey(Upload.token), index=True)
    name: Mapped[str] = mapped_column(Text)
    original_path: Mapped[str] = mapped_column(Text)
    original_bytes: Mapped[int] = mapped_column(BigInteger)
    refused: Mapped[str | None] = mapped_column(Text)
    # Of the two jobs of a broken picture, the one that said so: that one fails, the other is cancelled.
    refused_by: Mapped[int | None] = mapped_column(BigInteger)

    album: Mapped[Album] = relationship(back_populates="photos")
    upload: Mapped[Upload] = relationship(back_populates="photos")
    files: Mapped[list[File]] = relationship(back_populates="photo")

    def file(self, kind: str) -> File | None:
        """Return the file of this kind (``thumbnail`` or ``web``), if it has been made."""
        return next((file for file in self.files if file.kind == kind), None)

    @property
    def settled(self) -> bool:
        """Whether nothing more will happen to this photo: refused, or both its files are there."""
        return self.refused is not None or len(self.files) == len(KINDS)


KINDS = ("thumbnail", "web")


class File(Base):
    """A picture made from a photo. At most one of a kind, however often its task ran."""

    __tablename__ = "file"
    __table_args__ = (UniqueConstraint("photo_id", "kind"),)

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    photo_id: Mapped[int] = mapped_column(ForeignKey(Photo.id))
    kind: Mapped[str] = mapped_column(Text)
    path: Mapped[str] = mapped_column(Text)
    width: Mapped[int]
    height: Mapped[int]

    photo: Mapped[Photo] = relationship(back_populates="files")


def create_all(engine: Engine) -> None:
    """Create the schema and tables where they are missing. Two processes may do so at once."""
    with engine.begin() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(text("'gallery tables'"), 0))))
        connection.execute(CreateSchema(SCHEMA, if_not_exists=True))
        Base.metadata.create_all(connection)
        # Tables of a gallery whose uploads had no runs.
        connection.execute(text(f"ALTER TABLE {SCHEMA}.upload ADD COLUMN IF NOT EXISTS run bigint"))
