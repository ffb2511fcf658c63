"""Versions of jobq, each installed in a virtual environment of its own, as a deployment has them.

Such an environment has a wheel built from a source tree. What jobq depends on, it reads from the environment that runs the
tests: a `.pth` file names that, and no network is needed. `newer` makes the next version from a tree, with a revision 0010.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PARTS = ("jobq", "migrations", "web", "examples/gallery", "pyproject.toml", "README.md", "LICENSE")
NEXT_VERSION, NEXT_REVISION = "0.2.0", "0010"

# What the next version changes in the text of a file: a column, and a parameter of four functions.
_CHANGES = {
    "pyproject.toml": [('version = "0.1.0"', f'version = "{NEXT_VERSION}"')],
    "jobq/_postgres/sql/__init__.py": [('REVISION = "0009"', f'REVISION = "{NEXT_REVISION}"')],
    "jobq/_postgres/tables/__init__.py": [
        (
            'Column("node_item", Integer),\n        Primary',
            'Column("node_item", Integer),\n        Column("note", Text),\n        Primary',
        )
    ],
    "jobq/_postgres/sql/enqueue/enqueue_one_keyed.sql": [("%(scope)s::text\n", "%(scope)s::text, note => 'keyed'\n")],
    "jobq/_postgres/sql/enqueue/enqueue_keyed.sql": [
        ("%(scope)s::text[]\n", "%(scope)s::text[], notes => array_fill('keyed'::text, ARRAY[cardinality(%(task)s::text[])])\n")
    ],
    "migrations/functions/oldest_program.sql": [("= '0009' THEN", f"BETWEEN '0009' AND '{NEXT_REVISION}' THEN")],
    # Only workers call it.
    "migrations/functions/entry_state.sql": [("of_group text)", "of_group text, of_task text DEFAULT NULL)")],
    "migrations/functions/enqueue.sql": [
        ("key_scope text DEFAULT 'task'\n)", "key_scope text DEFAULT 'task', note text DEFAULT NULL\n)"),
        ("double precision, key_scope);", "double precision, key_scope, note);"),
    ],
    "migrations/functions/enqueue_one.sql": [
        ("scope text DEFAULT 'task',\n", "scope text DEFAULT 'task', note text DEFAULT NULL,\n"),
        ("ARRAY[scope]) AS entry", "ARRAY[scope], ARRAY[note]) AS entry"),
        ("--include insert_job_keyed\n", "--include insert_job_keyed\n        , note\n"),
        ("nullif(scope, 'task') END);", "nullif(scope, 'task') END, note);"),
    ],
    "migrations/functions/enqueue_keyed.sql": [
        ("scopes text[] DEFAULT NULL\n)", "scopes text[] DEFAULT NULL, notes text[] DEFAULT NULL\n)"),
        ("--include insert_job_keyed\n", "--include insert_job_keyed\n        , note\n"),
        ("nullif(input.scope, 'task') END\n    FROM", "nullif(input.scope, 'task') END, input.note\n    FROM"),
        ("expires_ins, scopes)\n", "expires_ins, scopes, notes)\n"),
        ("expires_in, scope)\n", "expires_in, scope, note)\n"),
    ],
}  # fmt: skip

_REVISION = '''"""Jobs have a note.

Revision: 0010
Follows: 0009
"""

from __future__ import annotations

import sqlalchemy
from alembic import op

from jobq.migrations.steps import discard, inherit, refresh_functions, reinstate, retire, schema

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# The parameters of before, and those that are new.
GROWN = {
    "enqueue": (
        "text, jsonb, text, integer, timestamptz, interval, text, text, interval, text, integer, interval, jsonb, text, "
        "interval, text",
        ", text",
    ),
    "enqueue_one": (
        "text, jsonb, text, integer, timestamptz, double precision, integer, double precision, jsonb, text, text, "
        "double precision, text, text, double precision, text",
        ", text",
    ),
    "enqueue_keyed": (
        "text[], text[], text[], integer[], timestamptz[], double precision[], integer[], double precision[], text[], "
        "text[], text[], double precision[], text[], text[], double precision[], text[]",
        ", text[]",
    ),
}


def upgrade() -> None:
    op.add_column("job", sqlalchemy.Column("note", sqlalchemy.Text), schema=schema())
    refresh_functions(former="0009")


def downgrade() -> None:
    for name, (before, more) in GROWN.items():
        retire(name, before + more, "0010")
        reinstate(name, before, "0009")
    refresh_functions(former="0010", folder="sql/0010_back")
    for name, (before, more) in GROWN.items():
        inherit(f"{name}_0010({before}{more})", f"{name}({before})")
        discard(f"{name}_0010({before}{more})")
    op.drop_column("job", "note", schema=schema())
'''
_SEPARATE = '''"""An index that takes long.

Revision: 0011
Follows: 0010
"""

from __future__ import annotations

from alembic import op

from jobq.migrations.steps import schema

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
separate = True
locks = ("job_history_failed",), "SHARE"


def upgrade() -> None:
    op.create_index("job_history_failed_task_idx", "job_history_failed", ["task"], schema=schema())


def downgrade() -> None:
    op.drop_index("job_history_failed_task_idx", "job_history_failed", schema=schema())
'''


@dataclass(frozen=True, slots=True)
class Installed:
    """A version of jobq in an environment of its own."""

    home: Path
    version: str

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.home / "bin" / "python"

    @property
    def jobq(self) -> Path:
        """Its command."""
        return self.home / "bin" / "jobq"


def sources(root: Path, target: Path) -> Path:
    """Copy what a wheel is built from, out of the tree at `root`; return `target`."""
    for part in _PARTS:
        if (root / part).is_dir():
            shutil.copytree(root / part, target / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / part, target / part)
    return target


def newer(target: Path, root: Path = ROOT) -> Path:
    """Copy the tree at `root`, make it the next version, and return `target`."""
    sources(root, target)
    _make_next(target, "")
    return target


def next_migrations(target: Path, root: Path = ROOT) -> Path:
    """Copy the migrations of the tree at `root`, add revision 0010 and a 0011 that is applied by itself; return the folder."""
    folder = shutil.copytree(root / "migrations", target / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    _make_next(target, "migrations/")
    (folder / "versions" / "0011_index.py").write_text(_SEPARATE, encoding="utf-8")
    return folder


def _make_next(target: Path, only: str) -> None:
    """Make the changes to the files below `target` whose names begin with `only`, and add the revision."""
    migrations = target / "migrations"
    former = migrations / "sql" / f"{NEXT_REVISION}_back"
    former.mkdir()
    for name, changes in _CHANGES.items():
        if not name.startswith(only):
            continue
        text = (target / name).read_text(encoding="utf-8")
        if name.startswith("migrations/functions/"):
            shutil.copy(target / name, former)
        for old, new in changes:
            assert text.count(old) == 1, f"{name} has {text.count(old)} of {old!r}"
            text = text.replace(old, new)
        (target / name).write_text(text, encoding="utf-8")
    (migrations / "versions" / f"{NEXT_REVISION}_note.py").write_text(_REVISION, encoding="utf-8")


def install(source: Path, home: Path) -> Installed:
    """Install the jobq whose sources are at `source`, which are a copy, into a new environment at `home`."""
    _run(sys.executable, "-m", "venv", "--without-pip", home)
    installed = Installed(
        home, tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    )
    own = Path(_run(installed.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # Names a folder only: its own .pth files, and with them an editable jobq, are not read.
    (own / "tests_environment.pth").write_text(sysconfig.get_path("purelib") + "\n")
    _run(
        installed.python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-compile",
        "--ignore-installed", "--no-index", "--disable-pip-version-check", "--root-user-action=ignore", source,
    )  # fmt: skip
    found = _run(installed.python, "-c", "import jobq; print(jobq.__version__, jobq.__file__)").split()
    assert found[0] == installed.version, found
    assert Path(found[1]).is_relative_to(home), found
    return installed


def _run(*command: str | Path) -> str:
    # PYTHONPATH would name another jobq.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, cwd="/", env=environ)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
