"""What the documents name exists, and what there is to set stands in the reference."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from jobq import JobQ, Task
from jobq.cli.web import web
from jobq.cli.worker import worker
from jobq.config import Settings
from jobq.web import Options

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_reference_has_every_option() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text()
    names = {field.name for field in fields(Settings)}
    for function in (JobQ.task, JobQ.schedule, Task.options):
        names |= set(inspect.signature(function).parameters) - {"self", "function"}
    names |= {option.opts[0] for option in worker.params if option.opts[0].startswith("--")}
    names |= {field.name for field in fields(Options)}
    names |= {option.opts[0] for option in web.params if option.name in ("host", "port")}
    shared = {"--database-url", "--database-url-file", "--schema", "--log-format", "--log-level"}
    assert {name for name in names - shared if f"`{name}`" not in reference} == set()
