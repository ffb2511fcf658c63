"""What single recipes take for granted: an application, its tables and its tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from jobq import Backoff, JobQ, NodeOutcome, current_job


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    cents: Mapped[int]


@contextmanager
def application(database_url: str) -> Iterator[dict[str, Any]]:
    """Yield the names, on tables that are made in the database."""
    q = JobQ(database_url)
    engine = create_engine(q.settings.sqlalchemy_url())
    Base.metadata.create_all(engine)

    @q.task(queue="mail")
    def send_receipt(order_id: int, cents: int = 0) -> str:
        return f"sent {order_id}"

    @q.task
    def index(document_id: int) -> None: ...

    @q.task
    def report(customer: int = 0) -> None: ...

    @q.task
    def work() -> None: ...

    @q.task
    def sync_order(order_id: int) -> None: ...

    with Session(engine) as session:
        session.add_all([Account(id=1, cents=500), Account(id=2, cents=0), Order(id=7, item="a book")])
        session.commit()
        yield {
            "Backoff": Backoff,
            "NodeOutcome": NodeOutcome,
            "Order": Order,
            "Session": Session,
            "current_job": current_job,
            "customer": SimpleNamespace(id=42, zone="Europe/Berlin"),
            "doc": SimpleNamespace(id=3),
            "engine": engine,
            "index": index,
            "order": SimpleNamespace(id=7, customer_id=42),
            "order_ids": [7, 8, 9],
            "photo_ids": [1, 2, 3],
            "q": q,
            "report": report,
            "report_id": 5,
            "send_receipt": send_receipt,
            "session": session,
            "sync_order": sync_order,
            "tenant": SimpleNamespace(name="acme"),
            "user": SimpleNamespace(id=1, name="ann"),
            "work": work,
        }
    q.close()
    engine.dispose()
