"""``python -m jobq``: the same as the command ``jobq``."""

from __future__ import annotations

from jobq.cli import main

if __name__ == "__main__":
    main(prog_name="jobq")
