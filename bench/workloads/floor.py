"""Floor: what the database gives to one client, by pgbench.

`raw`: claim 100, delete 100, on jobq's table as it is, but without history, fences, keys or arguments sent. `statement`: jobq's
own statement, with all of these.
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
_RAW = f"""
UPDATE jobq.job SET state = 'running', attempt = attempt + 1
WHERE id = ANY (ARRAY(
    SELECT id FROM jobq.job
    WHERE queue = 'default' AND priority = 5 AND state = 'ready' AND run_at <= now()
    ORDER BY run_at, id LIMIT {_BATCH} FOR UPDATE SKIP LOCKED))
RETURNING id
"""


def _floor(bench: Bench, peer: Peer, config: str) -> Figures:
    jobs = bench.number(20_000, 2_000)
    with bench.run(peer, config, 1) as run:
        raw = _raw(run, jobs)
    with bench.run(peer, config, 1) as run:
        return {
            "raw_per_s": raw,
            "statement_per_s": floor(bindir(), run.url, run.directory, jobs, _BATCH),
            "jobs": jobs,
        }


def _raw(run: Run, jobs: int) -> float:
    run.connection.execute(
        b"INSERT INTO jobq.job (task, args) SELECT 'noop', jsonb_build_object('i', i) FROM generate_series(1, %s) AS i",
        (jobs,),
    )
    script = run.directory / "raw.sql"
    claim = " ".join(_RAW.split())
    script.write_text(
        f"WITH claimed AS ({claim}) SELECT coalesce(array_agg(id), '{{}}') AS ids FROM claimed \\gset\n"
        "DELETE FROM jobq.job WHERE id = ANY (:ids);\n"
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
    row = run.connection.execute(b"SELECT count(*) FROM jobq.job").fetchone()
    if row != (0,):
        raise RunFailed(f"pgbench left jobs behind: {row}")
    return float(found[1]) * _BATCH


FLOOR = Workload(
    name="floor",
    about="jobs a second of one pgbench client, by 100: bare claim and delete, and jobq's own statement",
    measure=_floor,
    can=only_jobq,
    headline=("raw_per_s", "statement_per_s", "jobs"),
    seconds=6,
)
