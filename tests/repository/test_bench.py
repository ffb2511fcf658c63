"""The bench's pure parts: figures, plan, targets, registry. Its runs are shown by `make bench ARGS=--quick`."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import pytest

from bench import targets
from bench.cpu import cpu_of, cpu_of_family, family
from bench.figures import fifths, medians, overlap, percentile, rate
from bench.peers import PEERS, SCRIPTS, Peer, by_name
from bench.plan import Clock, Selection, select, select_peers
from bench.record import Record
from bench.report import label
from bench.workloads import WORKLOADS


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(reversed(values), share) for share in (0, 1, 50, 95, 99, 100)] == [1, 1, 50, 95, 99, 100]
    assert percentile([7.0], 50) == 7
    assert percentile([1.0, 2.0], 99) == 2
    with pytest.raises(ValueError, match="empty"):
        percentile([], 50)
    with pytest.raises(ValueError, match="share=101"):
        percentile([1.0], 101)


def test_fifths_show_where_a_drain_slows_down() -> None:
    steady = [at / 100 for at in range(501)]
    assert fifths(steady) == pytest.approx([100] * 5)
    # The last fifth takes twice as long.
    slowing = [at / 100 for at in range(401)] + [4 + at / 50 for at in range(1, 101)]
    assert fifths(reversed(slowing)) == pytest.approx([100, 100, 100, 100, 50])
    with pytest.raises(ValueError, match="9 starts"):
        fifths([float(at) for at in range(9)])


def test_a_rate_is_of_the_first_starts_only() -> None:
    starts = [0.0, 1.0, 2.0, 2.1, 2.2]
    assert rate(starts, 3) == pytest.approx(1)
    assert rate(starts) == pytest.approx(4 / 2.2)


def test_clients_count_while_all_of_them_call() -> None:
    early = [at / 10 for at in range(100)]  # 0 to 9.9
    late = [5 + at / 10 for at in range(100)]  # 5 to 14.9
    seconds, calls = overlap([early, late])
    assert seconds == pytest.approx(4.9)
    assert calls == pytest.approx(98, abs=2)
    assert overlap([[1.0, 2.0], [3.0, 4.0]]) == (0.0, 0)
    assert overlap([[1.0, 2.0], []]) == (0.0, 0)


def test_medians_are_over_the_rounds_that_have_the_figure() -> None:
    assert medians([{"a": 1, "b": 5}, {"a": 3}, {"a": 2, "b": None}]) == {"a": 2, "b": 5}


def _run(workload: str, peer: str, config: str, **figures: float) -> dict[str, Any]:
    return {"workload": workload, "peer": peer, "config": config, "round": 1, "figures": figures}


def test_targets_are_judged_by_ratios_of_medians() -> None:
    runs = [
        *(_run("drain", "jobq", "default", jobs_per_s=value) for value in (10_000, 22_000, 30_000)),
        _run("drain", "pgqueuer", "tuned", jobs_per_s=10_000),
        _run("drain", "celery+redis", "default", jobs_per_s=1_000),
        _run("drain", "celery+rabbitmq", "tuned", jobs_per_s=2_000),
        _run("latency", "jobq", "default", start_p50_ms=1.4, start_p99_ms=4.2),
        _run("latency", "oban", "tuned", start_p50_ms=2.8, start_p99_ms=4.0),
        _run("latency", "pgqueuer", "tuned", start_p50_ms=2.0, start_p99_ms=9.0),
        # Not on Postgres: not compared.
        _run("latency", "dramatiq+rabbitmq", "tuned", start_p50_ms=0.1, start_p99_ms=0.1),
        {"workload": "drain", "peer": "oban", "config": "tuned", "round": 1, "error": "it broke"},
    ]
    found = {verdict.target.name: verdict for verdict in targets.verdicts(runs)}
    assert found["drain / pgqueuer tuned"].met
    assert found["drain / pgqueuer tuned"].text == "met"
    celery = found["drain / celery"]
    assert celery.met is False
    assert celery.found is not None
    assert (celery.found.value, celery.found.against) == (11, "celery+rabbitmq tuned, 2,000")
    assert celery.text == "missed by 8%"
    assert found["latency p50"].met
    assert found["latency p99"].missed_by == pytest.approx(0.2)
    p50 = found["latency p50 / best on Postgres"]
    assert p50.met
    assert p50.found is not None
    assert p50.found.value == pytest.approx(0.7)
    assert found["latency p99 / best on Postgres"].met is False
    for name in ("drain / oban tuned", "bulk / graphile-worker", "sustained p99"):
        assert found[name].met is None
        assert found[name].text == "not measured"


def test_the_worst_fifth_counts() -> None:
    shares = {f"fifth_{number}_held_over_free": 1.0 for number in range(1, 6)} | {"fifth_4_held_over_free": 0.85}
    verdict = {
        verdict.target.name: verdict for verdict in targets.verdicts([_run("snapshot", "jobq", "default", **shares)])
    }["snapshot, worst fifth"]
    assert verdict.found == targets.Found(0.85, "fifth_4_held_over_free")
    assert verdict.met is False


def test_targets_name_peers_figures_and_workloads_that_there_are() -> None:
    """A target that nothing can meet or miss would read `not measured` for ever."""
    names = {workload.name for workload in WORKLOADS}
    tree = ast.parse(Path(targets.__file__).read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    asked = {
        call.args[0].value
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id in ("own", "times", "_worst")
        and isinstance(call.args[0], ast.Constant)
    }
    assert asked
    assert asked <= names


def test_every_peer_has_its_script_and_every_script_its_peer() -> None:
    assert PEERS[0].name == "jobq"
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    scripts = {path.name for path in SCRIPTS.glob("*") if path.suffix in (".py", ".mjs")}
    assert {peer.script for peer in PEERS} == scripts - {"__init__.py", "adapter.py", "adapter.mjs"}
    for peer in PEERS:
        assert peer.path.suffix == {"python": ".py", "node": ".mjs"}[peer.kind]
        assert peer.note
        assert peer.requirements or peer.name == "jobq"
        # npm: name@1.2.3, also @scope/name@1.2.3; pip: name==1.2.3.
        pin = "==" if peer.kind == "python" else "@"
        assert [requirement for requirement in peer.requirements if pin not in requirement[1:]] == []
        assert peer.broker or peer.live_tables
    assert by_name("jobq") is PEERS[0]


def test_a_peer_that_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="configs="):
        Peer(name="x", kind="python", script="x.py", configs=("best",), left="SELECT 0")
    with pytest.raises(ValueError, match="left="):
        Peer(name="x", kind="python", script="x.py")
    with pytest.raises(ValueError, match="drain_jobs names tuned"):
        Peer(name="x", kind="python", script="x.py", configs=("default",), left="SELECT 0", drain_jobs={"tuned": 1})


def test_rounds_are_interleaved_and_long_workloads_are_for_who_asks() -> None:
    chosen = select(["latency"], WORKLOADS, everything=False)
    peers = select_peers("pgq,oban", PEERS)
    assert [peer.name for peer in peers] == ["jobq", "pgqueuer", "oban"]
    cases = list(Selection(workloads=chosen, peers=peers, named=True, rounds=3).cases())
    assert [case.round for case in cases] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [case.peer.name for case in cases[:6]] == ["jobq", "pgqueuer", "oban", "pgqueuer", "oban", "jobq"]
    by_default = {workload.name for workload in select([], WORKLOADS, everything=False)}
    assert "soak" not in by_default
    assert [workload.name for workload in select(["soak"], WORKLOADS, everything=False)] == ["soak"]
    assert [peer.name for peer in select_peers("none", PEERS)] == ["jobq"]
    with pytest.raises(ValueError, match="no workload dran; there are bulk"):
        select(["dran"], WORKLOADS, everything=False)
    with pytest.raises(ValueError, match="no peer sidekiq"):
        select_peers("sidekiq", PEERS)


def test_the_time_left_is_learned_from_what_ran() -> None:
    cases = list(Selection(workloads=select(["bulk"], WORKLOADS, everything=False), peers=PEERS[:1]).cases())
    clock = Clock(quick=False)
    assert clock.left(cases) == 3 * cases[0].workload.seconds
    clock.ran(cases[0], 2)
    assert clock.left(cases[1:]) == 4


def test_what_processes_write_apart_is_one_record(tmp_path: Path) -> None:
    record = Record(tmp_path, 6)
    parts = [record.part(), record.part()]
    for part, values in zip(parts, ([1.0, 0, 0, 4.0, 0, 0], [0, 2.0, 3.0, 0, 0, 0]), strict=True):
        part.write_bytes(array("d", values).tobytes())
    assert not record.any_started()
    record.path.write_bytes(array("d", [0, 0, 0, 0, 5.0, 0]).tobytes())
    assert list(record.starts()) == [1, 2, 3, 4, 5, 0]
    assert list(record.starts(1, 3)) == [2, 3, 4]


def test_what_is_mapped_is_seen_at_once(tmp_path: Path) -> None:
    record = Record(tmp_path, 4)
    assert not record.all_started(1, 2)
    script = """if True:
        from bench.peers import adapter
        adapter.started(1)
        adapter.started(2)
    """
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "BENCH_RECORD": str(record.path)}, check=True)
    assert record.any_started()
    assert record.all_started(1, 2)
    assert 0 < record.starts(1, 1)[0] <= record.starts(2, 1)[0] <= time.monotonic()


def test_cpu_time_of_ended_children_is_not_lost() -> None:
    script = """if True:
        import subprocess, sys, time
        burn = "import time; end = time.process_time() + 0.2\\nwhile time.process_time() < end: pass"
        subprocess.run([sys.executable, "-c", burn], start_new_session=True)
        print("burnt", flush=True)
        sys.stdin.read()
    """
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"burnt\n"
        assert cpu_of(process.pid) >= 0.19
        assert family(process.pid) == {process.pid}
        assert cpu_of_family(process.pid) == pytest.approx(cpu_of(process.pid), abs=0.05)
        assert cpu_of_family(process.pid, {process.pid}) == 0
    finally:
        process.communicate()
    assert cpu_of(process.pid) == 0


def test_figures_are_named_as_people_write_them() -> None:
    assert label("jobs_per_s") == "jobs/s"
    assert label("start_p50_ms") == "start p50 ms"
    assert label("postgres_us_per_job") == "postgres µs/job"
    assert label("ready_10m_over_empty") == "ready 10m of empty"
