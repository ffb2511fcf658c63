"""`python -m bench.reliability NAME [options]`: one proof, on a Postgres and a database of its own.

Prints the figures and a verdict; the exit status is 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

from bench import reliability
from bench.reliability.stage import Stage
from bench.servers import Server


def proofs() -> dict[str, ModuleType]:
    """Return the modules of this package that have a `run`, by name."""
    found = {}
    for module in pkgutil.iter_modules(reliability.__path__):
        if not module.name.startswith("_"):
            imported = importlib.import_module(f"{reliability.__name__}.{module.name}")
            if hasattr(imported, "run"):
                found[module.name.replace("_", "-")] = imported
    return found


def parser(known: dict[str, ModuleType]) -> argparse.ArgumentParser:
    """Return the command line: a subcommand for each proof."""
    made = argparse.ArgumentParser(prog="python -m bench.reliability", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the figures and the verdict as JSON")
    common.add_argument("--keep", type=Path, metavar="DIRECTORY", help="keep ledger and logs there")
    subparsers = made.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, module in known.items():
        about = (module.__doc__ or "").strip().partition("\n")[0]
        own = subparsers.add_parser(name, help=about, description=module.__doc__, parents=[common])
        if hasattr(module, "arguments"):
            module.arguments(own)
    return made


def main() -> int:
    known = proofs()
    given = parser(known).parse_args()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobq-reliability-")))
        kept = given.keep or home
        kept.mkdir(parents=True, exist_ok=True)
        stage = stack.enter_context(Stage(stack.enter_context(Server(home)), kept))
        outcome = known[given.name].run(stage, given)
    if given.json:
        print(json.dumps({"name": given.name, "figures": outcome.figures, "broken": outcome.broken}))
    else:
        width = max(map(len, outcome.figures), default=0)
        for name, value in outcome.figures.items():
            print(f"  {name:{width}}  {value:,.4g}" if isinstance(value, float) else f"  {name:{width}}  {value}")
        for text in outcome.broken:
            print(f"BROKEN: {text}")
        print(f"{given.name}: {'BROKEN' if outcome.broken else 'kept'}")
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main())
