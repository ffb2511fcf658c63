"""Versions of jobq, each installed in a virtual environment of its own, as a deployment has them.

Such an environment has a wheel built from a source tree. What jobq depends on, it reads from the environment that runs the
tests: a `.pth` file names that, and no network is needed. `newer` makes the next version from a tree, with a revision 0009.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PARTS = ("jobq", "migrations", "web", "examples/gallery", "pyproject.toml", "README.md", "LICENSE")
NEXT_VERSION, NEXT_REVISION = "0.2.0", "0009"

# What the next version changes in the text of a file: a column, and a parameter of the three functions that insert.
_CHANGES = {
    "pyproject.toml": [('version = "0.1.0"', f'version = "{NEXT_VERSION}"')],
    "jobq/sql/__init__.py": [('REVISION = "0008"', f'REVISION = "{NEXT_REVISION}"')],
    "jobq/schema.py": [('Column("key_scope", Text),\n        Primary', 'Column("key_scope", Text),\n'
                        '        Column("note", Text),\n        Primary')],
    "jobq/sql/enqueue_one_keyed.sql": [("%(scope)s::text\n", "%(scope)s::text, note => 'keyed'\n")],
    "jobq/sql/enqueue_keyed.sql": [
        ("%(scope)s::text[]\n", "%(scope)s::text[], notes => array_fill('keyed'::text, ARRAY[cardinality(%(task)s::text[])])\n")
    ],
    "migrations/versions/0005_reliability.py": [
        ('filled("functions", f"', 'filled("sql/functions_0008", f"'),
        ('joinpath("functions")', 'joinpath("sql/functions_0008")'),
    ],
    "migrations/versions/0006_keys.py": [('filled("functions", f"', 'filled("sql/functions_0008", f"')],
    "migrations/functions/oldest_program.sql": [("BETWEEN '0005' AND '0008'", f"BETWEEN '0005' AND '{NEXT_REVISION}'")],
    "migrations/functions/enqueue.sql": [
        ("key_scope text DEFAULT 'task'\n)", "key_scope text DEFAULT 'task', note text DEFAULT NULL\n)"),
        ("double precision, key_scope);", "double precision, key_scope, note);"),
    ],
    "migrations/functions/enqueue_one.sql": [
        ("scope text DEFAULT 'task',\n", "scope text DEFAULT 'task', note text DEFAULT NULL,\n"),
        ("ARRAY[scope]) AS entry", "ARRAY[scope], ARRAY[note]) AS entry"),
        ("group_key, expires_at)", "group_key, expires_at, note)"),
        ("expires_in * interval '1 second');", "expires_in * interval '1 second', note);"),
    ],
    "migrations/functions/enqueue_keyed.sql": [
        ("scopes text[] DEFAULT NULL\n)", "scopes text[] DEFAULT NULL, notes text[] DEFAULT NULL\n)"),
        ("group_key, expires_at)", "group_key, expires_at, note)"),
        ("           clock_timestamp() + input.expires_in * interval '1 second'\n",
         "           clock_timestamp() + input.expires_in * interval '1 second', input.note\n"),
        ("expires_ins, scopes)\n", "expires_ins, scopes, notes)\n"),
        ("expires_in, scope)\n", "expires_in, scope, note)\n"),
    ],
}  # fmt: skip

_REVISION = '''"""Jobs have a note.

Revision: 0009
Follows: 0008
"""

from __future__ import annotations

import sqlalchemy
from alembic import op

from jobq.migrations.steps import discard, execute, filled, inherit, reinstate, retire, schema

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

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
    for name, (before, _) in GROWN.items():
        retire(name, before, "0008")
    for name in (*GROWN, "oldest_program"):
        execute(filled("functions", f"{name}.sql"))
    for name, (before, more) in GROWN.items():
        inherit(f"{name}_0008({before})", f"{name}({before}{more})")


def downgrade() -> None:
    for name, (before, more) in GROWN.items():
        discard(f"{name}({before}{more})")
        reinstate(name, before, "0008")
    op.drop_column("job", "note", schema=schema())
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
    # Earlier revisions keep the functions of then: see migrations/functions/README.md.
    shutil.copytree(target / "migrations" / "functions", target / "migrations" / "sql" / "functions_0008")
    for name, changes in _CHANGES.items():
        text = (target / name).read_text(encoding="utf-8")
        for old, new in changes:
            assert text.count(old) == 1, f"{name} has {text.count(old)} of {old!r}"
            text = text.replace(old, new)
        (target / name).write_text(text, encoding="utf-8")
    (target / "migrations" / "versions" / f"{NEXT_REVISION}_note.py").write_text(_REVISION, encoding="utf-8")
    return target


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
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
