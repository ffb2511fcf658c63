"""What is in the tree is in the wheel, and nothing of ours stands in site-packages under a common name."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
# Where a package stands in the tree, when not at its own name.
MAPPED = {name: ROOT / place for name, place in CONFIG["package-dir"].items()}


def packages_in_tree() -> Iterator[str]:
    places = {"jobq": ROOT / "jobq", **MAPPED}
    for name, place in places.items():
        for init in place.rglob("__init__.py"):
            directory = init.parent
            # The links jobq/web, jobq/migrations and jobq/gallery are reached by their mapping.
            if not any(part.is_symlink() for part in (directory, *directory.parents)):
                yield ".".join((name, *directory.relative_to(place).parts))


def test_every_package_is_listed() -> None:
    assert sorted(CONFIG["packages"]) == sorted(packages_in_tree())


def test_links_lead_where_the_mapping_says() -> None:
    for name, place in MAPPED.items():
        link = ROOT.joinpath(*name.split("."))
        assert link.is_symlink(), f"{link} must be a link, for the type checkers"
        assert link.resolve() == place


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in a wheel built from the files that git knows."""
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).exists() or (ROOT / name).is_symlink():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                target.symlink_to((ROOT / name).readlink())
            else:
                target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--disable-pip-version-check"]
    if has_setuptools():
        command.append("--no-build-isolation")
    built = subprocess.run(
        [*command, "--wheel-dir", str(source / "wheels"), str(source)], check=False, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    (file,) = (source / "wheels").glob("jobq-*.whl")
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def has_setuptools() -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return int(version("setuptools").split(".")[0]) >= 77
    except PackageNotFoundError:
        return False


def test_nothing_of_ours_has_a_common_name(wheel: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"jobq"}


def test_the_wheel_holds_every_file_of_the_packages(wheel: list[str]) -> None:
    wanted = {"jobq/py.typed"}
    for package in CONFIG["packages"]:
        place = MAPPED.get(package, ROOT.joinpath(*package.split(".")))
        parent, _, child = package.rpartition(".")
        if parent in MAPPED:
            place = MAPPED[parent] / child
        wanted |= {f"{package.replace('.', '/')}/{file.name}" for file in place.glob("*.py")}
        for pattern in CONFIG["package-data"].get(package, []):
            # setuptools' ** means any depth below; its own answer is not asked here.
            found = (place / pattern.split("/**")[0]).rglob("*") if "**" in pattern else place.glob(pattern)
            wanted |= {
                f"{package.replace('.', '/')}/{file.relative_to(place).as_posix()}"
                for file in found
                if file.is_file() and "__pycache__" not in file.parts
            }
    assert wanted - set(wheel) == set()


@pytest.mark.parametrize(
    "part",
    [
        "jobq/web/templates/",
        "jobq/web/static/",
        "jobq/migrations/sql/",
        "jobq/migrations/functions/",
        "jobq/gallery/templates/",
        "jobq/_postgres/sql/fragments/",
    ],
)
def test_the_wheel_holds_data(wheel: list[str], part: str) -> None:
    assert any(name.startswith(part) for name in wheel)


def test_the_wheel_holds_no_tests(wheel: list[str]) -> None:
    assert not [name for name in wheel if "test" in name.lower() and not name.startswith("jobq/testing/")]


def test_submodules_are_imported_at_their_first_use() -> None:
    code = (
        "import sys, jobq; before = set(sys.modules); "
        "assert not {'psycopg', 'pydantic', 'flask', 'jobq.web'} & before; "
        "jobq.web.blueprint, jobq.operations.cancel, jobq.queries.get_job; "
        "assert {'web', 'operations', 'queries'} <= set(dir(jobq)); "
        "assert not {'TYPE_CHECKING', 'annotations'} & set(dir(jobq)); "
        "assert not hasattr(jobq, 'cli')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_page_without_flask_says_what_to_install() -> None:
    code = (
        "import sys, jobq; sys.modules['flask'] = None\n"
        "try: jobq.web\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout == "jobq.web needs flask: pip install 'jobq[web]'\n"
