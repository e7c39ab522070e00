"""The table of docs/security.md, made of a result of `security_fuzz.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from measuring import machine_name
from security.verdicts import READ, REFUSED, WRONG
from tables import table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- fuzz:begin -->", "<!-- fuzz:end -->"
_KINDS = (READ, REFUSED, *WRONG, "died")


def render(result: dict[str, Any]) -> str:
    """Lines of Markdown: a row for each reader, and one for all."""
    rows = [_row(name, found["counts"]) for name, found in sorted(result["readers"].items())]
    rows.append(_row("**all**", result["total"]))
    minutes, machine = result["minutes"], machine_name(result["machine"])
    lines = table(("reader", "tried", *_KINDS), rows)
    said = f"{minutes} minutes on {machine}, seed {result['seed']}; `benchmarks/security_fuzz.py`."
    return "\n".join([*lines, "", said])


def _row(name: str, counts: dict[str, int]) -> list[str]:
    return [name, f"{counts['tried']:,}", *(f"{counts.get(kind, 0):,}" for kind in _KINDS)]


def put_in(text: str, result: dict[str, Any]) -> str:
    """The page with its table anew."""
    pattern = re.compile(rf"(?s){re.escape(BEGIN)}.*?{re.escape(END)}")
    return pattern.sub(lambda _: f"{BEGIN}\n{render(result)}\n{END}", text)
