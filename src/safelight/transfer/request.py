"""What is asked of very many pictures. Loads no Keras, so that mistakes show soon."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from safelight.tables import find_format


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        output: The table to write, `.csv` or `.parquet`.
        pictures: Files, and folders for what they hold.
        listed: A file with further names, one a line; `"-"` is standard input.
        refuse: As `transfer predict --refuse`: no class where a picture is less familiar than all
            but this share of those learned from; 0 asks nothing of the kind.
        overwrite: Whether an older table, or unfinished work on another question, is replaced.
    """

    output: Path
    pictures: Sequence[Path] = ()
    listed: str | None = None
    refuse: float = 0.0
    overwrite: bool = False

    @property
    def parts(self) -> Path:
        """The folder of the work."""
        return self.output.with_name(f"{self.output.name}.parts")

    @property
    def problems(self) -> Path:
        """The list of corrupt files."""
        return self.output.with_name(f"{self.output.stem}.problems.csv")

    def check(self) -> None:
        """What can be found before anything is loaded.

        Raises:
            ValueError: No picture is named, or the table cannot be written there.
        """
        if not self.pictures and self.listed is None:
            raise ValueError("no picture is named: expected files, folders, or a list of names.")
        if self.listed not in (None, "-") and not Path(str(self.listed)).is_file():
            raise ValueError(f"{self.listed} is no file: expected a list of names, one a line.")
        find_format(self.output)
        if not self.output.parent.is_dir():
            raise ValueError(
                f"{self.output}: there is no folder {self.output.parent}; make it first, or choose "
                "another."
            )
        there = [path for path in (self.output, self.problems) if path.exists()]
        if any(path.is_dir() for path in there):
            raise ValueError(f"{there[0]}: is a folder; choose another name.")
        # A table beside its parts is one that a call had only to tidy up after.
        if there and not self.overwrite and not (self.parts / "job.json").exists():
            raise ValueError(
                f"{there[0]}: is there; replace it with --overwrite, or choose another."
            )
