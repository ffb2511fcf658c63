"""Between the workers, the producers and the database is a network, and it fails in every way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.chaos.scene.harness import Arena
from tests.support.servers.proxy import Proxy


@pytest.fixture
def proxies(arena: Arena) -> Iterator[list[Proxy]]:
    """One network for each worker and one for the producers, so that one can fail alone."""
    made = [Proxy(arena.url) for _ in range(3)]
    yield made
    for proxy in made:
        proxy.close()


def _delay(arena: Arena, proxy: Proxy) -> None:
    proxy.delay(arena.random.uniform(0.05, 0.5))
    arena.pause(1.0, 3.0)
    proxy.heal()


def _drop(arena: Arena, proxy: Proxy) -> None:
    proxy.drop()


def _half_close(arena: Arena, proxy: Proxy) -> None:
    proxy.half_close()


def _refuse(arena: Arena, proxy: Proxy) -> None:
    proxy.refuse()
    arena.pause(0.5, 4.0)
    proxy.heal()


def _swallow(arena: Arena, proxy: Proxy) -> None:
    proxy.swallow()
    arena.pause(0.5, 7.0)
    proxy.heal()


def _forget(arena: Arena, proxy: Proxy) -> None:
    """As a firewall that has lost its table, behind which something still acknowledges: only new connections work."""
    proxy.silence()
    arena.pause(0.2, 1.0)
    proxy.heal()


FAULTS: dict[str, list[Callable[[Arena, Proxy], None]]] = {
    "delays": [_delay],
    "resets": [_drop, _half_close, _refuse],
    "black_holes": [_swallow],
    "forgotten_connections": [_forget],
}


@pytest.mark.parametrize("kind", FAULTS)
def test_network(arena: Arena, proxies: list[Proxy], kind: str) -> None:
    """Each worker behind a network of its own, so that one can be cut off while the other rescues."""
    forgets = kind == "forgotten_connections"
    for proxy in proxies[:2]:
        arena.start_worker(url=proxy.url)
    # A producer has no deadline of its own: on a connection that is forgotten it would wait for ever.
    arena.produce(arena.size(150), 40 if arena.long else 6, url=arena.url if forgets else proxies[2].url)

    def fail() -> None:
        proxy = arena.random.choice(proxies[:2] if forgets else proxies)
        step = arena.random.choice(FAULTS[kind])
        arena.fault(f"network: {step.__name__}", proxy=proxies.index(proxy))
        step(arena, proxy)

    arena.torment(fail, every=(0.3, 1.0))
    for proxy in proxies:
        proxy.heal()
    arena.finish(timeout=90)
