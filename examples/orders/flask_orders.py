"""Orders by Flask and SQLAlchemy. The worker: `jobq dev flask_orders:q`, the server: `flask --app flask_orders run`."""

import os

from flask import Flask, abort, request
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import jobq
from jobq import JobNotFound, JobQ

# The database's URL is in JOBQ_DATABASE_URL, for jobq and for this application. SQLAlchemy wants the driver's name in it.
q = JobQ()
url = os.environ.get("JOBQ_DATABASE_URL", "postgresql://localhost/shop")
engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))


class Base(DeclarativeBase):
    """The application's tables."""


class Order(Base):
    """An order."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
    receipt: Mapped[str | None]


@q.task(queue="mail", max_attempts=8)
def send_receipt(order_id: int) -> str:
    """Send the receipt, and note it: this is where your own code goes."""
    with Session(engine) as session, session.begin():
        order = session.get_one(Order, order_id)
        order.receipt = f"receipt for {order.item}"
        return order.receipt


def create_app() -> Flask:
    """Make the application, with its tables; a real application has migrations."""
    Base.metadata.create_all(engine)
    app = Flask(__name__)

    @app.post("/orders")
    def create_order() -> dict[str, int]:
        """Store the order and enqueue its receipt: one commit, so there is never one without the other."""
        with Session(engine) as session, session.begin():
            order = Order(item=request.get_json()["item"])
            session.add(order)
            session.flush()
            ref = send_receipt.options(key=f"receipt:{order.id}").enqueue(session, order.id)
            return {"order": order.id, "job": ref.id}

    @app.get("/orders/jobs/<int:job_id>")
    def job(job_id: int) -> dict[str, str | None]:
        """Tell how far a job is."""
        ref = send_receipt.ref(job_id)
        try:
            return {"state": ref.status(), "error": ref.error()}
        except JobNotFound as error:
            abort(404, str(error))

    # The status page, for everyone who reaches this application: give `identify` and roles before you put it on the internet.
    app.register_blueprint(jobq.web.blueprint(url, read_only=True), url_prefix="/jobs")
    return app
