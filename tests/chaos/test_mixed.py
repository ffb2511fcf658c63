"""Everything at once: every way to end, while backends are terminated twice a second and an operator cancels."""

from __future__ import annotations

from tests.chaos.scene.harness import Arena


def test_mixed_workload(arena: Arena) -> None:
    """Random exits, exceptions, timeouts and cancels; 10,000 jobs in the long form."""
    for _ in range(2):
        arena.start_worker("--concurrency", "8")
    arena.produce(10_000 if arena.long else 400, 150 if arena.long else 8, mix="mixed", producers=3)

    def strike() -> None:
        arena.terminate_backends(0.3)
        if arena.random.random() < 0.3:
            arena.cancel_some(2)

    arena.torment(strike, every=(0.4, 0.6))
    states = arena.finish(timeout=150)
    assert {"succeeded", "failed", "cancelled"} <= set(states)


def test_everything_at_once(arena: Arena) -> None:
    """The same workload, while dispatchers and runners are killed and Postgres goes down."""
    working = [arena.start_worker("--concurrency", "8") for _ in range(2)]
    arena.produce(arena.size(250), 60 if arena.long else 8, mix="mixed")

    def strike() -> None:
        index = arena.random.randrange(2)
        match arena.random.choice(("backends", "backends", "runner", "dispatcher", "rolling", "postgres")):
            case "backends":
                arena.terminate_backends(0.5)
            case "runner":
                arena.kill_runner(working[index])
            case "dispatcher":
                arena.kill_dispatcher(working[index])
                working[index] = arena.start_worker("--concurrency", "8")
            case "rolling":
                arena.fault("SIGTERM", pid=working[index].pid)
                working[index].terminate()
                working[index].wait()
                working[index] = arena.start_worker("--concurrency", "8")
            case _:
                arena.fault("postgres: killed")
                arena.server.kill()
                arena.server.restart()

    arena.torment(strike, every=(0.5, 1.5))
    arena.finish(timeout=120)
