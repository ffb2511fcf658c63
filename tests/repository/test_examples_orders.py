"""The three small applications of examples/orders: an order and its job are one commit, and the job runs."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest
from httpx import ASGITransport, AsyncClient

from jobq._worker.inline import drain
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import ROOT, WorkerProcess

ORDERS = ROOT / "examples" / "orders"


@pytest.fixture
def load(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    def load_it(name: str) -> ModuleType:
        monkeypatch.setenv("JOBQ_DATABASE_URL", database_url)
        spec = importlib.util.spec_from_file_location(name, ORDERS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # As an import does: pydantic looks annotations up there.
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load_it


async def test_fastapi(load: Callable[[str], ModuleType], db: psycopg.Connection[Any]) -> None:
    orders = load("fastapi_orders")
    there = AsyncClient(transport=ASGITransport(app=orders.app), base_url="http://shop")
    async with orders.lifespan(orders.app), there as client:
        made = (await client.post("/orders", json={"item": "a book"})).json()
        assert (await client.get(f"/jobs/{made['job']}")).json() == {"state": "ready", "error": None}
        assert (await asyncio.to_thread(drain, orders.q, db)).succeeded == 1
        assert (await client.get(f"/jobs/{made['job']}")).json() == {"state": "succeeded", "error": None}
        assert (await client.get("/jobs/4711")).status_code == 404
    assert db.execute("SELECT id, receipt FROM orders").fetchall() == [(made["order"], "receipt for a book")]


def test_flask(load: Callable[[str], ModuleType], db: psycopg.Connection[Any]) -> None:
    orders = load("flask_orders")
    client = orders.create_app().test_client()
    made = client.post("/orders", json={"item": "a book"}).get_json()
    assert drain(orders.q, db).succeeded == 1
    assert client.get(f"/orders/jobs/{made['job']}").get_json() == {"state": "succeeded", "error": None}
    assert client.get("/orders/jobs/4711").status_code == 404
    assert "send_receipt" in client.get("/jobs/jobs").text
    assert db.execute("SELECT id, receipt FROM orders").fetchall() == [(made["order"], "receipt for a book")]
    orders.engine.dispose()


@pytest.mark.process
def test_script(database_url: str, jobs: Jobs, tmp_path: Path) -> None:
    """With a worker of its own, from the folder where it is."""
    code = (ORDERS / "script_orders.py").read_text(encoding="utf-8")
    (tmp_path / "script_orders.py").write_text(code, encoding="utf-8")
    env = {"PYTHONPATH": str(tmp_path)}
    worker = WorkerProcess(database_url, tmp_path / "log", app="script_orders:q", env=env)
    try:
        wait_until(lambda: "working" in worker.log, what="the worker")
        done = subprocess.run(
            [sys.executable, "script_orders.py", "a book"],
            check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60,
            env={"PATH": "", "JOBQ_DATABASE_URL": database_url},
        )  # fmt: skip
    finally:
        worker.close()
    assert (done.returncode, done.stdout) == (0, "receipt for order 1\n"), done.stderr
