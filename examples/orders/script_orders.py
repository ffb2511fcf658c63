"""Orders by a script and psycopg. The worker: `jobq dev script_orders:q`; then `python script_orders.py "a book"`."""

import os
import sys

import psycopg

from jobq import JobQ

q = JobQ()  # the database's URL is in JOBQ_DATABASE_URL


@q.task(queue="mail", max_attempts=8)
def send_receipt(order_id: int) -> str:
    """Send the receipt: this is where your own code goes."""
    return f"receipt for order {order_id}"


def main(item: str) -> None:
    """Store an order and enqueue its receipt: one commit. Then wait for the receipt."""
    with psycopg.connect(os.environ["JOBQ_DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS orders (id serial PRIMARY KEY, item text NOT NULL)")
        [(order_id,)] = connection.execute("INSERT INTO orders (item) VALUES (%s) RETURNING id", (item,)).fetchall()
        ref = send_receipt.options(key=f"receipt:{order_id}").enqueue(connection, order_id)
    print(ref.result(timeout=30))


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "a book")
