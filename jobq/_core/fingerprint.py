"""Which failures are the same fault: an error text without what differs from one job to the next.

Pure functions, for the page's groups and for the filter ``failure:``. Only the beginning of an error is read, so a reader
may cut it in the database: ``normalise(error) == normalise(error[:REACH])``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2s

# Characters of an error that are looked at, and of those only the first line.
REACH = 300

_NUMBER = r"\d+(?:\.\d+)*(?:[eE][+-]?\d+\b)?"
_NUMBERS = rf"{_NUMBER}(?:,\ ?-?{_NUMBER})*"

# What a text is made of that changes. Tried in this order, at the beginning of a word or at what is none; within a word a
# number only. Names of code and of database objects stay, although in quotes: they say which fault it is.
# Each part is told from the next by its first character, so that the time is linear in the length of the text.
_VARIABLE = re.compile(
    rf"""
    (?<!\w)(?:
      (?P<name>'\w+'\ object\ (?:has\ no\ attribute\ '\w+'|is\ not\ \w+)
        |(?:named|name|argument:?|attribute|column|relation|constraint|table|function|type)\ (?:'[\w.]+'|"[\w.]+"))
    | (?P<text>'[^']*(?:'|\Z)|"[^"]*(?:"|\Z)|`[^`]*(?:`|\Z)|“[^”]*(?:”|\Z)|«[^»]*(?:»|\Z))
    | (?P<url>(?:https?|ftp|wss?|s3|gs|redis|amqps?|postgres(?:ql)?)://[^\s'"<>)\]]+)
    | (?P<uuid>[0-9a-fA-F]{{8}}-?(?:[0-9a-fA-F]{{4}}-?){{3}}[0-9a-fA-F]{{12}}\b)
    | (?P<time>\d{{4}}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z\b|\ ?[+-]\d\d(?::?\d\d)?)?)?
        |\d?\d:\d\d:\d\d(?:[.,]\d+)?)
    | (?P<host>\d{{1,3}}(?:\.\d{{1,3}}){{3}}\b(?::\d+)?
        |(?<!:)\[?(?=:*[0-9a-fA-F])(?:[0-9a-fA-F]{{0,4}}:){{2,7}}[0-9a-fA-F]{{0,4}}(?![\w:])(?:\](?::\d+)?)?)
    | (?P<mail>(?<![.+-])[\w.+-]{{1,64}}+@[\w-]+(?:\.[\w-]+)+)
    | (?P<path>(?<![<>/.~])(?:~|\.\.?)?/[\w.@%+=~-]+(?:/[\w.@%+=~-]+)*/?|[A-Za-z]:\\[^\s:*?"<>|]+)
    | (?P<hex>0[xX][0-9a-fA-F]+\b|(?=[a-fA-F]*\d)(?=\d*[a-fA-F])[0-9a-fA-F]{{6,}}\b)
    | (?P<id>(?<!-)(?=[A-Za-z_-]*\d+[A-Za-z_-]+\d)[\w-]{{12,}})
    | (?P<signed>[+-]?{_NUMBERS})
    )
    | (?<=\w)(?P<number>{_NUMBERS})
    """,
    re.VERBOSE,
)
_NUMERIC = ("number", "signed")
_ONE_DIGIT = str.maketrans("023456789", "111111111")
_CHANGING = re.compile(r"[^/\\]*\d[^/\\]*")


def normalise(error: str | None) -> str:
    """Return the first line of `error` with placeholders for what changes from job to job, at most some 1,000 characters.

    Numbers become ``<n>``, and likewise ``<text>`` (in quotes), ``<uuid>``, ``<time>``, ``<host>``, ``<mail>``, ``<hex>``,
    ``<id>``. Of a path and a URL the parts with a digit change. No error gives the empty text.
    """
    return _normalised(_first_line(error))


def fingerprint(task: str, error: str | None) -> str:
    """Return the name of the failure group of a job of `task` that ended with `error`: 12 hexadecimal digits.

    The same for ever for the same fault, in every process: links to a group stay valid, as long as this module does not change.
    """
    # One digit for all: most errors of a group are then one text, looked up rather than read. What begins with 0x stays so.
    line = _first_line(error)
    return _digest(task, line if "0x" in line or "0X" in line else line.translate(_ONE_DIGIT))


@lru_cache(maxsize=16_384)
def _digest(task: str, line: str) -> str:
    text = f"{task}\0{_normalised(line)}"
    return blake2s(text.encode("utf-8", "replace"), digest_size=6).hexdigest()


def _first_line(error: str | None) -> str:
    return error[:REACH].strip().partition("\n")[0] if error else ""


def _normalised(line: str) -> str:
    return " ".join(_VARIABLE.sub(_placeholder, line).split())


def _placeholder(match: re.Match[str]) -> str:
    kind = match.lastgroup
    found = match[0]
    if kind == "name":
        return found
    if kind == "path":
        return _steady_path(found)
    if kind == "url":
        scheme, _, rest = found.partition("://")
        host, slash, path = rest.partition("/")
        host = host.rpartition("@")[2]  # never a password
        return f"{scheme}://{_CHANGING.sub('<host>', host)}" + (
            _steady_path(slash + path.partition("?")[0]) if slash else ""
        )
    return f"<{'n' if kind in _NUMERIC else kind}>"


def _steady_path(path: str) -> str:
    if path.startswith(("/tmp/", "/var/tmp/", "/var/folders/")):  # noqa: S108  # recognised, not used
        return "<path>"
    return _CHANGING.sub("<n>", path)
