"""Redis and RabbitMQ of the bench's own: on free loopback ports, with data in a temporary directory, from Debian's packages.

`python -m bench.brokers` says what is here and what is missing, and starts and stops each once. A package that is missing is
installed by apt-get where we are root; its service is neither started nor left enabled.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Debian wraps the server to run it as the system's: the script below the wrapper is any node's.
_PROGRAMS = {
    "redis": ("redis-server",),
    "rabbitmq": ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server"),
}
_PACKAGES = {"redis": "redis-server", "rabbitmq": "rabbitmq-server"}
_SERVICES = {"redis": ("redis-server.service",), "rabbitmq": ("rabbitmq-server.service", "epmd.service", "epmd.socket")}
_POLICY = Path("/usr/sbin/policy-rc.d")


class BrokerMissing(RuntimeError):
    """The broker is not installed and cannot be installed; the text says why."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker: `url` for clients, `pid` of the server (its CPU time is the broker's), `version`."""

    kind: str
    url: str
    pid: int
    version: str


@contextmanager
def broker(kind: str) -> Iterator[Broker]:
    """Run a broker (`redis` or `rabbitmq`) for the duration of the block. Raises BrokerMissing."""
    run = {"redis": _redis, "rabbitmq": _rabbitmq}.get(kind)
    if run is None:
        raise ValueError(f"kind must be 'redis' or 'rabbitmq', not {kind!r}")
    program = require(kind)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"jobq-bench-{kind}-")))
        yield stack.enter_context(run(program, home))


@cache
def require(kind: str) -> str:
    """Return the path of the broker's server; install it if it is missing and we may. Raises BrokerMissing."""
    if program := _find(kind):
        return program
    package = _PACKAGES[kind]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BrokerMissing(
            f"{kind} is not installed: install the package {package} (as root: apt-get install {package})"
        )
    print(f"bench: installing the package {package}", file=sys.stderr)
    _install(kind)
    if program := _find(kind):
        return program
    raise BrokerMissing(f"{kind} is not to be found, although apt-get installed {package}")


def _find(kind: str) -> str | None:
    return next((found for name in _PROGRAMS[kind] if (found := shutil.which(name))), None)


def _install(kind: str) -> None:
    package = _PACKAGES[kind]
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", "install", package]
    with _no_services():
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            # The lists may be missing, or name a version that is gone.
            subprocess.run(["apt-get", "-q", "update"], env=environ, capture_output=True, check=False)
            done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BrokerMissing(f"apt-get could not install {package}: {done.stderr.strip()[-500:]}")
    # No service is wanted: it does not start with the next boot, nor run on where a policy of the machine's own let it.
    for command in (["systemctl", "disable", "--now", *_SERVICES[kind]], ["service", package, "stop"]):
        if shutil.which(command[0]):
            subprocess.run(command, capture_output=True, check=False)


@contextmanager
def _no_services() -> Iterator[None]:
    """Have packages start nothing while they are installed: invoke-rc.d and deb-systemd-invoke ask this file."""
    if _POLICY.exists():
        # The machine's owner has a rule of his own, which we leave.
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


@contextmanager
def _redis(program: str, home: Path) -> Iterator[Broker]:
    version = _output(program, "--version").split("v=")[1].split()[0]
    port = free_port()
    user = _give_away(home, "redis")
    # Durable to a second, as its documentation advises for a queue; the rest is the program's default.
    command = [
        program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(home), "--daemonize", "no",
        "--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--logfile", str(home / "log"),
    ]  # fmt: skip
    with _process(command, {}, user) as process:
        _await(process, lambda: _redis_answers(port), home / "log")
        yield Broker("redis", f"redis://127.0.0.1:{port}/0", process.pid, version)


@contextmanager
def _rabbitmq(program: str, home: Path) -> Iterator[Broker]:
    port, dist_port, epmd_port = free_port(), free_port(), free_port()
    user = _give_away(home, "rabbitmq")
    log = home / "log"
    environ = {
        "HOME": str(home),  # the cookie
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd_port),
        "RABBITMQ_NODENAME": f"jobq-bench-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(dist_port),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_LOG_BASE": str(home),
        "RABBITMQ_LOGS": str(log),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),  # no such file: no plugins
        "RABBITMQ_CONFIG_FILE": str(home / "none"),
        "RABBITMQ_CONF_ENV_FILE": str(home / "none"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        # The script then becomes the server rather than waiting for it: one process, which our signals reach.
        "RUNNING_UNDER_SYSTEMD": "1",
    }
    # A name server of our own: the one that Erlang starts by itself would outlive the node.
    epmd = shutil.which("epmd")
    if epmd is None:
        raise BrokerMissing("rabbitmq needs epmd, a program of Erlang's (the package erlang-base)")
    names = [epmd, "-address", "127.0.0.1", "-port", str(epmd_port)]
    with ExitStack() as stack:
        _await(stack.enter_context(_process(names, environ, user)), lambda: _listens(epmd_port), log)
        process = stack.enter_context(_process([program], environ, user))
        _await(process, lambda: _amqp_answers(port), log)
        version = re.search(r"Starting RabbitMQ (\S+)", log.read_text())
        url = f"amqp://guest:guest@127.0.0.1:{port}/%2F"
        yield Broker("rabbitmq", url, process.pid, version[1] if version else "unknown")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _give_away(home: Path, user: str) -> str | None:
    """Return the user to run as, which then owns `home`: as root the broker's own, if there is one."""
    if os.geteuid() != 0:
        return None
    with suppress(KeyError):
        entry = pwd.getpwnam(user)
        os.chown(home, entry.pw_uid, entry.pw_gid)
        return user
    return None


@contextmanager
def _process(command: list[str], environ: Mapping[str, str], user: str | None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        env={**os.environ, **environ},
        cwd="/",
        user=user,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_die_with_us,  # noqa: PLW1509  # it takes no locks
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # What it started itself is of its session.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _die_with_us() -> None:
    # A killed bench leaves nothing behind. Not jobq's die_with_parent: its interrupt leads Erlang to a menu.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _await(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path, timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while not ready():
        said = log.read_text(errors="replace")[-1000:] if log.exists() else "(no log)"
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}: {said}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not answer within {timeout:g} s: {said}")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _converse(port: int, say: bytes) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(say)
            return connection.recv(16)
    except OSError:
        return b""


def _redis_answers(port: int) -> bool:
    return _converse(port, b"PING\r\n").startswith(b"+PONG")


def _amqp_answers(port: int) -> bool:
    # The listener comes up last; Connection.Start is a method frame.
    return _converse(port, b"AMQP\x00\x00\x09\x01").startswith(b"\x01")


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    for kind in _PROGRAMS:
        try:
            begun = time.monotonic()
            with broker(kind) as running:
                print(
                    f"{kind} {running.version}: up in {time.monotonic() - begun:.1f} s, pid {running.pid}, {running.url}"
                )
        except BrokerMissing as error:
            print(f"{kind}: skipped: {error}")


if __name__ == "__main__":
    main()
