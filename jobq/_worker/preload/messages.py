"""Messages between a dispatcher and its template process: one message per packet, with descriptors."""

from __future__ import annotations

import msgspec

from jobq._core.logs.formats import LogFormat
from jobq._worker.ipc.runner_config import RunnerConfig

# This is far above the size of a runner's configuration. A longer packet would be truncated; no
# message is that long.
MAX_PACKET = 1 << 17


class TemplateConfig(msgspec.Struct, kw_only=True, frozen=True):
    """The configuration of a template, passed in the environment variable JOBQ_TEMPLATE as JSON."""

    app: str
    control_fd: int
    alive_fd: int
    """Read end of a pipe whose other end closes with the dispatcher."""
    log_format: LogFormat
    log_level: str


class Fork(msgspec.Struct, tag=1, frozen=True):
    """To the template: fork a runner.

    The descriptors that `config` names come with it, in the order of `DESCRIPTORS`.
    """

    number: int
    """Identifies this request in its answer."""
    config: RunnerConfig


class Reap(msgspec.Struct, tag=2, frozen=True):
    """To the template: the process id is no longer needed and may be reused."""

    pid: int


class Ready(msgspec.Struct, tag=3, frozen=True):
    """From the template: the application was imported in this many seconds, and forks are possible."""

    seconds: float


class Unusable(msgspec.Struct, tag=4, frozen=True):
    """From the template, which then ends: why it cannot be forked."""

    reason: str
    forever: bool
    """Whether another template would fail for the same reason."""


class Forked(msgspec.Struct, tag=5, frozen=True):
    """From the template, with a pidfd: a runner runs and leads a new session."""

    number: int
    pid: int


class ForkFailed(msgspec.Struct, tag=7, frozen=True):
    """From the template, instead of `Forked`: the system could not fork."""

    number: int
    error: str


class Ended(msgspec.Struct, tag=6, frozen=True):
    """From the template: a runner has ended. Its process id stays reserved until `Reap`."""

    pid: int
    status: int
    """Exit status; if negative, the signal that killed the runner."""


ToTemplate = Fork | Reap
FromTemplate = Ready | Unusable | Forked | ForkFailed | Ended

# The fields of RunnerConfig that name a descriptor, in the order in which they are passed. -1 means
# that there is none.
DESCRIPTORS = ("socket_fd", "slots_fd", "alive_fd", "stacks_fd")

_encoder = msgspec.json.Encoder()
decode_to_template = msgspec.json.Decoder(ToTemplate).decode
decode_from_template = msgspec.json.Decoder(FromTemplate).decode


def encode(message: ToTemplate | FromTemplate) -> bytes:
    """Return the packet for `message`."""
    return _encoder.encode(message)
