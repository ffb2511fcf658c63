"""The floor under a worker: its own statement, driven by pgbench with nothing around it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from uuid import uuid4

import psycopg

from jobq._postgres.sql import statement


def floor_script(schema: str, batch: int) -> str:
    """Return a pgbench script that acknowledges the last claim and makes the next, as ack_and_claim.sql does."""
    text = statement("ack_and_claim", schema).text
    values = {
        "ids": ":ids",
        "claims": ":claims",
        "started": ":started",
        "results": ":results",
        "seconds": ":seconds",
        "worker": f"'{uuid4()}'::uuid",
        "queues": "array_fill('default'::text, ARRAY[10])",
        "priorities": "ARRAY[9,8,7,6,5,4,3,2,1,0]",
        "since": "array_fill(0::bigint, ARRAY[10])",
        "since_ids": "array_fill(0::bigint, ARRAY[10])",
        "want": str(batch),
    }
    text = re.sub(r"%\((\w+)\)s", lambda match: values[match[1]], text).replace("%%", "%")
    head, tail = text.rsplit("SELECT (SELECT count(*) FROM finished)", 1)
    assert "FROM claimed" in tail
    claimed = (
        "SELECT coalesce(array_agg(id ORDER BY id), '{}') AS ids, coalesce(array_agg(claims ORDER BY id), '{}') AS claims, "
        "coalesce(array_agg((extract(epoch FROM now()) * 1000000)::bigint), '{}') AS started, "
        "coalesce(array_agg('null'::text), '{}') AS results, coalesce(array_agg(0.001), '{}') AS seconds, "
        "count(args::text || headers::text) AS n FROM claimed"
    )
    return " ".join((head + claimed).split()) + " \\gset\n"


def floor(bindir: Path, url: str, directory: Path, jobs: int, batch: int, schema: str = "jobq") -> float:
    """Return jobs a second of one pgbench client that drains `jobs` no-op jobs; they are inserted first."""
    with psycopg.connect(url, autocommit=True) as connection:
        insert = f"INSERT INTO {schema}.job (task) SELECT 'noop' FROM generate_series(1, %s)"
        connection.execute(insert.encode(), (jobs,))
    script = directory / "floor.sql"
    script.write_text(floor_script(schema, batch))
    empty = [f"--define={name}={{}}" for name in ("ids", "claims", "started", "results", "seconds")]
    rounds = jobs // batch + 1
    done = subprocess.run(
        [bindir / "pgbench", "-n", "-M", "prepared", "-t", str(rounds), *empty, "-f", script, url],
        check=True,
        capture_output=True,
        text=True,
    )
    rate = re.search(r"tps = ([\d.]+)", done.stdout)
    assert rate, done.stdout
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(f"SELECT count(*) FROM {schema}.job".encode()).fetchone()
        assert row is not None
        assert row[0] == 0, f"{row[0]} jobs were left"
    return float(rate[1]) * jobs / rounds
