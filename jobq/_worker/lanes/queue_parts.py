"""Which part of the free slots a limited queue gets, beside the other queues."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jobq._worker.queue_spec import QueueOrder


class QueueParts:
    """Parts by weight. If queues have a strict order, the first queue gets everything."""

    def __init__(
        self,
        only: tuple[str, ...] | None,
        order: QueueOrder,
        weights: Mapping[str, int],
        serves: Callable[[str], bool],
    ) -> None:
        """Create the parts.

        Args:
            only: The queues that are served, in their order. None: all queues.
            order: The order among queues.
            weights: The weight of each queue. Default weight: 1.
            serves: Returns whether plain claims look at a queue now.
        """
        self._strict = only if order is QueueOrder.STRICT else None
        self._weights = weights
        self._serves = serves

    def among(self, due: list[str], beside: str | None) -> list[tuple[str, float]]:
        """Return the queues of `due` to claim from, in order, each with its part of the free slots.

        Each part is of the slots that are free at the queue's turn. The part of `beside`, which
        comes last, stays free.
        """
        if self._strict is not None:
            before = self._strict[: self._strict.index(beside)] if beside in self._strict else self._strict
            return [(queue, 1.0) for queue in before if queue in due]
        found: list[tuple[str, float]] = []
        rest = self._weights.get(beside, 1) if beside is not None else 0
        for queue in reversed([queue for queue in due if queue != beside]):
            rest += self._weights.get(queue, 1)
            found.append((queue, self._weights.get(queue, 1) / rest))
        return found[::-1]

    def against(self, queue: str, due: list[str]) -> float:
        """Return the part of the free slots for `queue` while those in `due` also have jobs."""
        if self._strict is not None:
            return 1.0
        weight = self._weights.get(queue, 1)
        return weight / (weight + sum(self._weights.get(other, 1) for other in due if other != queue))

    def beside_plain(self, queue: str, busy: frozenset[str]) -> float:
        """Return the part (0 to 1) of the free slots for `queue` while plain queues have jobs.

        `busy`: the plain queues with jobs. If empty, some may have jobs, but it is unknown which.
        """
        if self._strict is not None:
            before = self._strict[: self._strict.index(queue)]
            return 0.0 if any(other in busy if busy else self._serves(other) for other in before) else 1.0
        weight = self._weights.get(queue, 1)
        return weight / (weight + (sum(self._weights.get(other, 1) for other in busy) or 1))
