"""How a benchmark's protocol reaches the process of a variant; the standard library alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Self


class Saved:
    """A dataclass of plain values that is kept as JSON."""

    def save(self, path: Path) -> None:
        """Write the protocol as JSON for a variant's own process."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))
