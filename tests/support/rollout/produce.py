"""A producer: `python produce.py NAME PER_SECOND`. It commits so many transactions a second until SIGTERM.

It notes each job that it has committed, with the moment at which it was due, and how long the transaction took. An error is
noted too: none may come of a migration.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from importlib import import_module
from types import FrameType

import psycopg

_ledger = os.open(os.environ["SHOP_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)


def produce(name: str, rate: float) -> None:
    shop = import_module("shop")
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    begun = time.monotonic()
    with psycopg.connect(os.environ["JOBQ_DATABASE_URL"], application_name=f"producer {name}") as connection:
        n = 0
        while not stopped:
            at = time.monotonic()
            try:
                placed = shop.place(connection, name, n)
                due = time.time()
                connection.commit()
                took = time.monotonic() - at
                lines = [f"placed {job} {due + delay:.6f} {took:.6f}\n" for job, delay in placed]
                os.write(_ledger, "".join(lines).encode())
            except Exception as error:
                connection.rollback()
                os.write(
                    _ledger,
                    f"error 0 {time.time():.6f} {type(error).__name__}: {str(error).splitlines()[0]}\n".encode(),
                )
            n += 1
            time.sleep(max(0.0, begun + n / rate - time.monotonic()))


if __name__ == "__main__":
    produce(sys.argv[1], float(sys.argv[2]))
