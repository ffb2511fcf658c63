"""The peers' environments: a venv or a node_modules folder each, below `.bench/`, made once and again when pins change."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.peers import Peer

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".bench"

Say = Callable[[str], None]


class Unavailable(Exception):
    """A peer cannot be measured here; the text says why, and what would help."""


def command(peer: Peer) -> list[str]:
    """Return how the peer's adapter is started, its environment being there."""
    if not peer.requirements:
        return [sys.executable, "-P", str(peer.path)]
    home = _home(peer)
    if peer.kind == "python":
        return [str(home / "venv" / "bin" / "python"), "-P", str(peer.path)]
    return [str(_node(home)), str(peer.path)]


def environ(peer: Peer) -> dict[str, str]:
    """Return the variables that its processes need beside those of the run."""
    if peer.kind == "node":
        # Modules are looked up from the script's real place, which is not the folder that they are installed in.
        return {"NODE_PATH": str(_home(peer) / "node_modules"), "NODE_ENV": "production"}
    return {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


def prepare(peer: Peer, say: Say) -> None:
    """Make the peer's environment unless it is there with these requirements. Raises Unavailable."""
    if not peer.path.exists():
        raise Unavailable(f"its adapter {peer.path.relative_to(ROOT)} is missing")
    if not peer.requirements:
        return
    home = _home(peer)
    mark = home / "requirements"
    wanted = "\n".join(peer.requirements) + f"\n# for {peer.kind} {peer.python}\n"
    if mark.exists() and mark.read_text() == wanted:
        return
    say(f"installing {peer.name}: {', '.join(peer.requirements)}")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    if peer.kind == "python":
        _install_python(peer, home)
    else:
        _install_node(peer, home)
    mark.write_text(wanted)


def _home(peer: Peer) -> Path:
    # Peers that share their requirements (a queue on two brokers) share the folder.
    digest = hashlib.sha256("\n".join(peer.requirements).encode()).hexdigest()[:8]
    return HOME / f"{peer.path.stem}-{digest}"


def _install_python(peer: Peer, home: Path) -> None:
    python = find_python(peer.python)
    if python is None:
        least = ".".join(map(str, peer.python))
        raise Unavailable(
            f"it needs Python {least} or newer, with its venv module; none was found on the PATH or below ~/.pyenv"
        )
    _run([python, "-m", "venv", str(home / "venv")], home)
    pip = [str(home / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, *peer.requirements], home)


def _install_node(peer: Peer, home: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm was not found: install Node.js with npm")
    (home / "package.json").write_text('{"private": true}\n')
    _run([npm, "install", "--no-audit", "--no-fund", "--loglevel=error", *peer.requirements], home)
    _node(home)


def _node(home: Path) -> Path:
    # The npm package `node` brings an interpreter of its own, for peers that need a newer one than the machine has.
    own = home / "node_modules" / "node" / "bin" / "node"
    if own.exists():
        return own
    found = shutil.which("node")
    if found is None:
        raise Unavailable("node was not found: install Node.js")
    return Path(found)


def _run(arguments: list[str], home: Path) -> None:
    done = subprocess.run(arguments, cwd=home, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        last = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()][-5:]
        raise Unavailable(f"{' '.join(arguments[:4])} … failed with {done.returncode}: {' / '.join(last)}")


def find_python(least: tuple[int, int]) -> str | None:
    """Return an interpreter for a peer's venv: the bench's own if it is new enough, else the newest that is found."""
    if sys.version_info[:2] >= least:
        return getattr(sys, "_base_executable", sys.executable)
    places = [*os.environ.get("PATH", "").split(os.pathsep), *glob.glob(str(Path.home() / ".pyenv/versions/*/bin"))]
    found: dict[tuple[int, int], str] = {}
    for place in places:
        for candidate in glob.glob(os.path.join(place, "python3.*")):
            named = re.fullmatch(r"python3\.(\d+)", os.path.basename(candidate))
            version = (3, int(named[1])) if named else (0, 0)
            if version >= least and version not in found and _usable(candidate, version):
                found[version] = candidate
    return found[max(found)] if found else None


def _usable(candidate: str, version: tuple[int, int]) -> bool:
    # A shim of pyenv stands for a version that may not be there.
    test = f"import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != {version})"
    return subprocess.run([candidate, "-c", test], check=False, capture_output=True).returncode == 0
