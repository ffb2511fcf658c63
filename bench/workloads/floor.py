"""Floor: what the database gives to one client, by pgbench.

`raw`: claim 100, delete 100, on a table with what a queue cannot do without: no history, no fence, no keys, no constraints, no
arguments sent. It is the floor of the targets. `raw_on_job_table`: the same on jobq's table. `statement`: jobq's own statement.
"""

from __future__ import annotations

import re
import subprocess

from bench.figures import Figures
from bench.floor import floor
from bench.peers import Peer
from bench.run import Run, RunFailed
from bench.workloads.base import Bench, Workload, only_jobq
from jobq.dev import bindir

_BATCH = 100
_BARE = """
CREATE SCHEMA bare;
CREATE TABLE bare.job (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, queue text NOT NULL DEFAULT 'default',
    priority smallint NOT NULL DEFAULT 5, state text NOT NULL DEFAULT 'ready', run_at timestamptz NOT NULL DEFAULT now(),
    attempt integer NOT NULL DEFAULT 0, task text NOT NULL, args jsonb NOT NULL);
CREATE INDEX ON bare.job (queue, priority, run_at, id) WHERE state = 'ready'
"""
_RAW = f"""
UPDATE {{table}} SET state = 'running', attempt = attempt + 1
WHERE id = ANY (ARRAY(
    SELECT id FROM {{table}}
    WHERE queue = 'default' AND priority = 5 AND state = 'ready' AND run_at <= now()
    ORDER BY run_at, id LIMIT {_BATCH} FOR UPDATE SKIP LOCKED))
RETURNING id
"""


def _floor(bench: Bench, peer: Peer, config: str) -> Figures:
    jobs = bench.number(20_000, 2_000)
    with bench.run(peer, config, 1) as run:
        run.connection.execute(_BARE.encode())
        raw = _raw(run, "bare.job", jobs)
    with bench.run(peer, config, 1) as run:
        on_job_table = _raw(run, "jobq.job", jobs)
    with bench.run(peer, config, 1) as run:
        return {
            "raw_per_s": raw,
            "raw_on_job_table_per_s": on_job_table,
            "statement_per_s": floor(bindir(), run.url, run.directory, jobs, _BATCH),
            "jobs": jobs,
        }


def _raw(run: Run, table: str, jobs: int) -> float:
    load = (
        f"INSERT INTO {table} (task, args) SELECT 'noop', jsonb_build_object('i', i) FROM generate_series(1, %s) AS i"
    )
    run.connection.execute(load.encode(), (jobs,))
    script = run.directory / "raw.sql"
    claim = " ".join(_RAW.format(table=table).split())
    script.write_text(
        f"WITH claimed AS ({claim}) SELECT coalesce(array_agg(id), '{{}}') AS ids FROM claimed \\gset\n"
        f"DELETE FROM {table} WHERE id = ANY (:ids);\n"
    )
    # As the worker's sessions have it: the statement is written for one plan.
    settings = (
        "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
    )
    done = subprocess.run(
        [
            bindir() / "pgbench",
            "-n",
            "-M",
            "prepared",
            "-t",
            str(jobs // _BATCH),
            "--define=ids={}",
            "-f",
            script,
            run.url,
        ],
        check=False,
        capture_output=True,
        text=True,
        env={"PGOPTIONS": settings},
    )
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    if done.returncode or found is None:
        raise RunFailed(f"pgbench ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    row = run.connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    if row != (0,):
        raise RunFailed(f"pgbench left jobs behind: {row}")
    return float(found[1]) * _BATCH


FLOOR = Workload(
    name="floor",
    about="jobs a second of one pgbench client, by 100: bare claim and delete, and jobq's own statement",
    measure=_floor,
    can=only_jobq,
    headline=("raw_per_s", "raw_on_job_table_per_s", "statement_per_s", "jobs"),
    seconds=6,
)
