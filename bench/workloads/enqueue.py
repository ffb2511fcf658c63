"""Enqueue: one job a call, each in a commit of its own. One client and eight, without a worker and beside one."""

from __future__ import annotations

from bench.figures import Figures, overlap
from bench.peers import Peer
from bench.run import RunFailed
from bench.workloads.base import Bench, Workload

_MOST = 200_000  # calls of one client: more than any makes in its time


def _one(bench: Bench, peer: Peer, config: str, *, worker: bool) -> Figures:
    seconds = 1.0 if bench.quick else 3.0
    with bench.run(peer, config, 1 + _MOST) as run:
        if worker:
            run.start_worker()
            run.warm_up()
        said = run.call("enqueue", first=1, jobs=_MOST, seconds=seconds)
        beside = "_worker_on" if worker else ""
        return {
            f"one_client{beside}_per_s": said["jobs"] / said["seconds"],
            f"one_call{beside}_p50_ms": said["call_p50_ms"],
        }


def _eight(bench: Bench, peer: Peer, config: str, *, worker: bool) -> Figures:
    seconds = 3.0 if bench.quick else 5.0
    beside = "_worker_on" if worker else ""
    for _ in range(3):
        with bench.run(peer, config, 1 + 8 * _MOST) as run:
            if worker:
                run.start_worker()
                run.warm_up()
            before = run.spent()
            clients = [
                run.start("enqueue", first=1 + number * _MOST, jobs=_MOST, seconds=seconds) for number in range(8)
            ]
            counts = [int(client.figures()["jobs"]) for client in clients]
            spent = run.spent()
            begun = [list(run.record.begun(1 + number * _MOST, count)) for number, count in enumerate(counts)]
            together, calls = overlap(begun)
            if together >= seconds / 4:
                figures = {f"eight_clients{beside}_per_s": calls / together}
                if not worker and peer.broker is None:
                    figures["postgres_us_per_enqueue"] = (spent.postgres - before.postgres) / sum(counts) * 1e6
                return figures
        seconds *= 2  # they start slowly here
    raise RunFailed(f"{peer.name}: eight clients never called at the same time for long enough")


def _enqueue(bench: Bench, peer: Peer, config: str) -> Figures:
    return {
        **_one(bench, peer, config, worker=False),
        **_eight(bench, peer, config, worker=False),
        **_one(bench, peer, config, worker=True),
        **_eight(bench, peer, config, worker=True),
    }


def _usual(peer: Peer) -> bool:
    return peer.broker is None and (peer.kind == "python" or peer.name.startswith("graphile"))


ENQUEUE = Workload(
    name="enqueue",
    about="enqueue calls a second, a commit each: 1 and 8 clients, without a worker and beside one that works",
    measure=_enqueue,
    usual=_usual,
    headline=(
        "one_client_per_s",
        "eight_clients_per_s",
        "one_client_worker_on_per_s",
        "eight_clients_worker_on_per_s",
        "postgres_us_per_enqueue",
    ),
    seconds=27,
)
