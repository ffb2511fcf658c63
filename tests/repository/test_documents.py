"""Links in the documents lead somewhere, and the reference has every public name and every option."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

import jobq
from jobq import JobQ, Task, migrate, operations, queries, testing
from jobq import web as page
from jobq.cli.web import web
from jobq.cli.worker import worker
from jobq.settings import Settings
from jobq.web import Options
from jobq.workflow import canvas

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "examples").glob("*/*.md"),
        *(ROOT / "jobq").rglob("README.md"),
        *(ROOT / "tests").rglob("README.md"),
        ROOT / "migrations" / "README.md",
        ROOT / "web" / "README.md",
    ]
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    missing = []
    for link, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", document.read_text()):
        target = document.parent / link if link else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
            missing.append(f"{link}#{anchor}")
    assert missing == []


def _anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"(?ms)^```.*?^```", "", document.read_text())
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "module", [jobq, canvas, operations, queries, testing, page, migrate], ids=lambda module: str(module.__name__)
)
def test_the_reference_lists_the_public_names(module: ModuleType) -> None:
    public = _reference()[1].partition(f"### `{module.__name__}`\n")[2].partition("\n### ")[0]
    assert Counter(re.findall(r"`(\w+)`", public)) == Counter(module.__all__)


def _reference() -> tuple[str, str]:
    """Return the reference without its section on public names, and that section."""
    before, _, rest = (ROOT / "docs" / "reference.md").read_text().partition("## Public names\n")
    public, heading, after = rest.partition("\n## ")
    return before + heading + after, public


def test_the_reference_has_every_option() -> None:
    reference = _reference()[0]
    names = {field.name for field in fields(Settings)}
    for function in (JobQ.task, JobQ.schedule, Task.options):
        names |= set(inspect.signature(function).parameters) - {"self", "function"}
    names |= {option.opts[0] for option in worker.params if option.opts[0].startswith("--")}
    names |= {field.name for field in fields(Options)}
    names |= {option.opts[0] for option in web.params if option.name in ("host", "port")}
    shared = {"--database-url", "--database-url-file", "--schema", "--log-format", "--log-level"}
    assert {name for name in names - shared if f"`{name}`" not in reference} == set()
