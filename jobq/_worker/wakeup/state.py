"""How this worker learns of new jobs now.

The listener and the lead poller write this state, and all polls read it.
"""

from __future__ import annotations

from jobq._worker.wakeup.policy import NotifyMode


class WakeupState:
    """The state of one worker.

    It is created before the parts that write it, so they are independent.
    """

    def __init__(self) -> None:
        self.connected = False
        """Whether the listener is connected, so that notifications arrive."""
        self.polling = False
        """Whether a pooler is in between, so there are no notifications.

        This is configured, not a fault.
        """
        self.losses = 0
        """Number of listener connections that were lost, or could not be made."""
        self.mode = NotifyMode.NOTIFY
        """The notify mode, as last read."""
        self.leading = False
        """Whether this worker is the lead poller."""

    @property
    def told_of_all(self) -> bool:
        """Whether a connected worker learns of every job without polling for itself.

        Either producers notify, or this worker is the lead poller.
        """
        return self.leading or self.mode is NotifyMode.NOTIFY

    def hears_all(self) -> bool:
        """Return whether this worker learns of every job without polling for itself."""
        return self.connected and self.told_of_all
