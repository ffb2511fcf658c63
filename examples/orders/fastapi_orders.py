"""Orders by FastAPI and async SQLAlchemy. The worker: `jobq dev fastapi_orders:q`, the server: `uvicorn fastapi_orders:app`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from jobq import JobNotFound, JobQ

# The database's URL is in JOBQ_DATABASE_URL, for jobq and for this application. SQLAlchemy wants the driver's name in it.
q = JobQ()
url = os.environ.get("JOBQ_DATABASE_URL", "postgresql://localhost/shop")
engine = create_async_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
sessions = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    """The application's tables."""


class Order(Base):
    """An order."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
    receipt: Mapped[str | None]


@q.task(queue="mail", max_attempts=8)
async def send_receipt(order_id: int) -> str:
    """Send the receipt, and note it: this is where your own code goes."""
    async with sessions.begin() as session:
        order = await session.get_one(Order, order_id)
        order.receipt = f"receipt for {order.item}"
        return order.receipt


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make the tables at the start; a real application has migrations."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield


app = FastAPI(lifespan=lifespan)


class NewOrder(BaseModel):
    """What a customer asks for."""

    item: str


@app.post("/orders")
async def create_order(new: NewOrder) -> dict[str, int]:
    """Store the order and enqueue its receipt: one commit, so there is never one without the other."""
    async with sessions.begin() as session:
        order = Order(item=new.item)
        session.add(order)
        await session.flush()
        ref = await send_receipt.options(key=f"receipt:{order.id}").enqueue_async(session, order.id)
    return {"order": order.id, "job": ref.id}


@app.get("/jobs/{job_id}")
async def job(job_id: int) -> dict[str, str | None]:
    """Tell how far a job is."""
    ref = send_receipt.ref(job_id)
    try:
        return {"state": await ref.status_async(), "error": await ref.error_async()}
    except JobNotFound as error:
        raise HTTPException(404, str(error)) from error
