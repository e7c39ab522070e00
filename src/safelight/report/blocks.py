"""What a page is made of; the template knows how each piece is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from markupsafe import Markup

DAMAGE = (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError)
"""What reading a file raises that holds something else than it should."""

Words = Markup | str
"""Markup is put in as it is; a plain string is escaped."""


@dataclass(frozen=True)
class Text:
    """A paragraph; `tone` is "" or "warning"."""

    words: Words
    tone: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Bullets:
    """A list of short sentences or names."""

    items: Sequence[Words]
    kind: ClassVar[str] = "bullets"


@dataclass(frozen=True)
class Table:
    """A table whose first column names the row.

    Attributes:
        caption: What it shows.
        columns: Their heads.
        rows: Cells.
        sides: A letter per column: "l" for words, aligned left, "r" for numbers; by default the
            first column has words and the others numbers.
    """

    caption: Words
    columns: Sequence[Words]
    rows: Sequence[Sequence[Words]]
    sides: str = ""
    kind: ClassVar[str] = "table"

    def side(self, column: int) -> str:
        """The letter of a column."""
        return self.sides[column] if self.sides else "r" if column else "l"


@dataclass(frozen=True)
class Chart:
    """A drawing that is part of the page, and the same numbers as a table behind it."""

    svg: Markup
    caption: Words
    table: Table | None = None
    kind: ClassVar[str] = "chart"

    def bare(self) -> Chart:
        """Without a table of its own, where one beside it has the same numbers."""
        return replace(self, table=None)


@dataclass(frozen=True)
class Picture:
    """A picture of the run, in the page itself.

    Attributes:
        source: A `data:` address.
        alt: What it shows, for who cannot see it.
        caption: What to look for.
        width: Pixels.
        height: Pixels.
    """

    source: str
    alt: str
    caption: Words
    width: int
    height: int
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Command:
    """What to type."""

    line: str
    kind: ClassVar[str] = "command"


@dataclass(frozen=True)
class Facts:
    """Names and what they are."""

    pairs: Sequence[tuple[Words, Words]]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Beside:
    """Blocks beside each other where there is room."""

    blocks: Sequence[Block]
    kind: ClassVar[str] = "beside"


Block = Text | Bullets | Table | Chart | Picture | Command | Facts | Beside


@dataclass(frozen=True)
class Section:
    """One question and its answer."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Step:
    """Something to do next, and the command that does it."""

    words: Words
    command: str = ""


@dataclass(frozen=True)
class Answer:
    """What is read first.

    Attributes:
        what: What this is, one sentence.
        label: What the number says.
        figure: The number, large.
        ends: Its interval.
        chart: The same, drawn.
        sentences: How good that is, and whether it is enough.
        steps: What to do next, the most important first.
    """

    what: Words
    label: Words
    figure: Words
    ends: Words
    sentences: Sequence[Words]
    steps: Sequence[Step]
    chart: Markup = field(default_factory=Markup)


@dataclass(frozen=True)
class Chapter:
    """All about one run, or about several side by side."""

    title: Words
    subtitle: Words
    answer: Answer
    sections: Sequence[Section]
    problems: Sequence[str] = ()


Maker = Callable[[], Sequence[Block]]
"""Makes the blocks of a section when it is asked for them."""


def sections(makers: Mapping[str, Maker]) -> list[Section]:
    """Sections by their titles; those that have nothing to say are left out.

    Where a file of the run holds something else than it should, a sentence says so.
    """
    found = [Section(title, _make(maker)) for title, maker in makers.items()]
    return [each for each in found if each.blocks]


def answer_or_damage(make: Callable[[], Answer]) -> Answer:
    """An answer; where the run's numbers are not what they should be, a sentence that says so."""
    try:
        return make()
    except DAMAGE as error:
        told = f"The numbers of this run are damaged ({type(error).__name__}: {error})."
        return Answer("", "there is no answer", "–", "", [told], [])


def _make(maker: Maker) -> Sequence[Block]:
    try:
        return maker()
    except DAMAGE as error:
        words = f"This part of the run is damaged ({type(error).__name__}: {error}) and left out."
        return [Text(words, tone="warning")]
