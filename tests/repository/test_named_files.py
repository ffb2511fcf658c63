"""The files, folders and commands that the documents name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobq.cli import COMMANDS
from tests.repository.test_documents import DOCUMENTS, ROOT

SQL = ROOT / "jobq" / "_postgres" / "sql"
FUNCTIONS = ROOT / "migrations" / "functions"
# Python, SQL and documents; a folder ends with a slash. Patterns and placeholders (`NNNN`) name no file.
PATH = re.compile(r"[\w./-]+\.(?:py|sql|md|toml|html|css|js|mjs)|[\w.-]+(?:/[\w.-]+)*/")
PLACEHOLDER = re.compile(r"NNNN|/_next/")
FOLDERS_OF_READERS = {".jobq/", "shop/"}
APPLICATION_NAMES = {"task"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_files_exist(document: Path) -> None:
    missing = [path for line in _lines(document) for path in _missing(document, line)]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_commands_exist(document: Path) -> None:
    spans = [span for line in _lines(document) for span in _spans(line)]
    commands = {match[1] for span in spans if (match := re.match(r"jobq ([a-z]+)\b", span))}
    targets = {match[1] for span in spans if (match := re.match(r"make ([a-z-]+)\b", span))}
    modules = {match[1] for span in spans if (match := re.match(r"python -m ((?:bench|jobq|tests)[\w.]*)", span))}
    made = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    assert commands - set(COMMANDS) - APPLICATION_NAMES == set()
    assert targets - made == set()
    assert {module for module in modules if not _is_module(module)} == set()


def _lines(document: Path) -> list[str]:
    """Return the paragraphs, list entries and table rows, each as one line, without code blocks."""
    text = re.sub(r"(?ms)^```.*?^```", "", document.read_text())
    return re.sub(r"\n(?![\n|#*\-\d])", " ", text).splitlines()


def _spans(line: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", line)


def _missing(document: Path, line: str) -> list[str]:
    """Return the paths of a line that lead nowhere.

    A path is relative to the checkout, to the document's folder or a neighbour of that, to a folder
    that stands before it in the line, or to the folder of a file that does. Statements have unique
    names, so a name is enough.
    """
    bases, missing = [ROOT, document.parent, ROOT / "jobq"], []
    if document.name == "README.md" and document.parent != ROOT:
        bases.append(document.parent.parent)
    for span in _spans(line):
        if not PATH.fullmatch(span) or PLACEHOLDER.search(span) or span in FOLDERS_OF_READERS:
            continue
        found = [base / span for base in bases if (base / span).exists()]
        if found and "/" in span:
            bases.append(found[-1] if found[-1].is_dir() else found[-1].parent)
        elif not found and not (span.endswith(".sql") and _statements(span)):
            missing.append(span)
    return missing


def _statements(name: str) -> list[Path]:
    """Return the statements, fragments and stored functions of this name, or of this path."""
    return [
        path for folder in (SQL, FUNCTIONS) for path in folder.rglob(Path(name).name) if str(path).endswith(f"/{name}")
    ]


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__main__.py").exists()
