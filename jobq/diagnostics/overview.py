"""Findings as the status page shows them: sentences, worst first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from jobq.diagnostics.checks import CHOICES, SYSTEM
from jobq.diagnostics.finding import Finding, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem: ``bad`` needs a person now, ``warn`` is worth knowing.

    `page` and `filters` lead to its details.
    """

    level: str
    text: str
    page: str | None = None
    filters: Mapping[str, str] = field(default_factory=dict)


def problems(findings: Iterable[Finding], *, system: bool = False) -> list[Problem]:
    """Return all problems, or (`system`) only those of the server and the schema.

    Settings that may be intended, such as a pooler, are omitted from all problems: the page System
    shows them.
    """
    found = [
        Problem(
            level="bad" if finding.status is Status.FAIL else "warn",
            text=_sentence(finding.message) + (f" {_sentence(finding.fix)}" if finding.fix else ""),
            page=finding.page or "system",
            filters=finding.filters,
        )
        for finding in findings
        if finding.status is not Status.OK
        and not finding.minor
        and (finding.check in SYSTEM if system else finding.check not in CHOICES)
    ]
    found.sort(key=lambda problem: problem.level != "bad")
    return found


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
