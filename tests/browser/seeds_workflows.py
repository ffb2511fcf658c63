"""Runs of workflows to look at: of a small shop, and the worst."""

from __future__ import annotations

import uuid
from typing import Any

from jobq import JobQ
from tests.browser.seeds import DAY, HOUR, Conn
from tests.support.workflows.node_ends import cancel
from tests.support.workflows.runs import end_node, move_times, start_node

q = JobQ(database_url="postgresql://127.0.0.1:1/none")


@q.task(name="order.load")
def load(order_id: int) -> dict[str, Any]:
    return {"order": order_id}


@q.task(name="order.step")
def step(*, of: Any = None, note: str = "") -> int:
    return 1


@q.task(name="mail.send")
def send(address: int, note: str = "") -> str:
    return ""


def little(conn: Conn, worker: uuid.UUID) -> dict[str, int]:
    """An order that went well, one that a bank holds up, a nightly import under way, and one that was given up."""
    found = {"succeeded": _order(conn, "order-4101")}
    run = found["succeeded"]
    for name, started, ended in (("load", 3599, 3598.6), ("payment/reserve", 3598, 3594), ("stock", 3598, 3590),
                                 ("payment/capture", 3589, 3570), ("invoice", 3569, 3561)):  # fmt: skip
        end_node(conn, run, name, started=started, ended=ended, result={"order": 4101})
    for item in range(3):
        end_node(conn, run, "mails", item=item, started=3569 - item, ended=3566 - item, result="sent")
    end_node(conn, run, "close", started=3560.5, ended=3560, result=1)
    move_times(conn, run, 3600)

    run = found["blocked"] = _order(conn, "order-4102")
    end_node(conn, run, "load", started=899, ended=898.5, result={"order": 4102})
    end_node(conn, run, "payment/reserve", started=898, ended=894, result=1)
    end_node(conn, run, "stock", started=898, ended=820, result=1)
    end_node(
        conn,
        run,
        "payment/capture",
        "failed",
        started=818,
        ended=700,
        error="BankUnavailable: bank answered 502 after 6.4 s",
    )
    move_times(conn, run, 900)

    run = found["running"] = _import(conn)
    end_node(conn, run, "download", started=298, ended=240, result={"order": 1})
    for part in ("products", "prices", "stock"):
        end_node(
            conn,
            run,
            f"{part}/parse",
            started=235,
            ended={"products": 120, "prices": 200, "stock": 190}[part],
            result=1,
        )
    end_node(conn, run, "prices/check", started=199, ended=150, result=1)
    end_node(conn, run, "prices/store", started=149, ended=130, result=1)
    end_node(conn, run, "stock/check", started=180, ended=179, result=1)
    start_node(conn, run, "products/check", started=90, worker=worker)
    for item in range(37):
        end_node(
            conn,
            run,
            "stock/store",
            "failed" if item == 20 else "succeeded",
            item=item,
            started=170 - item,
            ended=168 - item,
        )
    start_node(conn, run, "stock/store", item=37, started=12, worker=worker)
    move_times(conn, run, 300)

    run = found["cancelled"] = _order(conn, "order-4103")
    end_node(conn, run, "load", started=2 * HOUR - 1, ended=2 * HOUR - 2, result={"order": 1})
    cancel(conn, run)
    move_times(conn, run, 2 * HOUR)
    return found


def _order(conn: Conn, key: str) -> int:
    with q.workflow("order", key=key, deadline=DAY) as wf:
        loaded = load.node(int(key[-4:])).named("load")
        with wf.part("payment"):
            reserved = step.node(of=loaded.result).named("reserve")
        stock = step.node(of=loaded.result).named("stock")
        with wf.part("payment"):
            captured = step.node(of=reserved.result).named("capture").after(stock)
        invoice = step.node(of=captured.result).named("invoice")
        mails = send.map([1, 2, 3]).named("mails").after(captured)
        step.node().named("close").after(invoice, mails)
    return wf.enqueue(conn).id


def _import(conn: Conn) -> int:
    with q.workflow("import.nightly") as wf:
        download = load.node(1).named("download")
        stored = []
        for part in ("products", "prices", "stock"):
            with wf.part(part):
                parsed = step.node(of=download.result).named("parse")
                checked = step.node(of=parsed.result).named("check")
                many = (
                    send.map(range(60)).named("store").after(checked)
                    if part == "stock"
                    else step.node(of=checked.result).named("store")
                )
                stored.append(many)
        index = step.node().named("search index").after(*stored)
        report = step.node().named("report").after(*stored)
        step.node().named("publish").after(index, report)
        step.node().named("mail to the shop's owners").after(report)
    return wf.enqueue(conn).id


def lot(conn: Conn, hostile: str, arabic: str, long: str) -> dict[str, int]:
    """More runs than a page has, names that no one would wish for, and more nodes than can be drawn."""
    for n in range(70):
        with q.workflow(f"tenant {n % 9}", key=f"night {n}") as wf:
            step.node()
        wf.enqueue(conn)
    found = {"hostile": _hostile(conn, hostile, arabic, long), "parts": _parts(conn), "flat": _flat(conn)}
    end_node(conn, found["hostile"], "hostile", "failed", error=hostile)
    # As another version, or someone by hand, may have written it.
    conn.execute("UPDATE jobq.workflow_node SET name = %s WHERE name = 'hostile'", (hostile[:190],))
    cancel(conn, found["hostile"])
    conn.execute("UPDATE jobq.workflow SET reason = %s WHERE id = %s", (hostile, found["hostile"]))
    for n in range(40):
        end_node(
            conn, found["parts"], f"shard {n:02}/begin", "failed" if n == 7 else "succeeded", started=99, ended=90 - n
        )
    move_times(conn, found["parts"], 100)
    return found


def _hostile(conn: Conn, hostile: str, arabic: str, long: str) -> int:
    with q.workflow(hostile[:200], key=hostile[:500]) as wf:
        first = step.node().named("hostile")
        others = [
            step.node().named(name).after(first) for name in (arabic, long[:200], "x" * 200, "文字" * 40, "a\u202ec")
        ]
        before = others
        for layer in range(6):
            before = [step.node().named(f"wide {layer}.{n}").after(*before) for n in range(2 + layer * 3)]
        send.map(range(999_999)).named("many").after(*before)
        step.node().named("far").after(first, *before)
    return wf.enqueue(conn).id


def _parts(conn: Conn) -> int:
    with q.workflow("shards") as wf:
        ends = []
        for n in range(120):
            with wf.part(f"shard {n:02}"):
                begin = step.node().named("begin")
                middle = [step.node().named(f"step {k}").after(begin) for k in range(5)]
                ends.append(step.node().named("end").after(*middle))
        step.node().named("merge").after(*ends)
    return wf.enqueue(conn).id


def _flat(conn: Conn) -> int:
    """Everything after everything: without a junction, 90,000 lines in each of its eight gaps."""
    with q.workflow("flat") as wf:
        before: list[Any] = []
        for layer in range(9):
            before = [step.node().named(f"{layer}-{n}").after(*before) for n in range(300 if layer else 20)]
    return wf.enqueue(conn).id
