"""Drawings as SVG within a page: coordinates, axes and marks; the page's style gives the colours.

Elements are made by the standard library's ElementTree, which escapes every text and attribute.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

WIDTH = 380.0
"""Of all drawings, in their own units; shown 335 to 440 pixels wide, so texts stay readable."""


@dataclass(frozen=True)
class Scale:
    """From numbers to places along one axis.

    Args:
        low: The number at `start`.
        high: The number at `end`; another than `low`.
        start: A place.
        end: Another.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a number, kept within the axis; NaN has none."""
        if math.isnan(value):
            return value
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


class Drawing:
    """One drawing, with a name and a description for who cannot see it.

    Args:
        title: What it shows, in a few words.
        description: What it says, in a sentence.
        height: In the units of `WIDTH`.
    """

    def __init__(self, title: str, description: str, height: float) -> None:
        self.height = height
        self._root = ElementTree.Element(
            "svg",
            {
                "viewBox": f"0 0 {WIDTH:g} {height:g}",
                "role": "img",
                "aria-label": f"{title}. {description}",
                "class": "chart",
            },
        )
        ElementTree.SubElement(self._root, "title").text = title
        ElementTree.SubElement(self._root, "desc").text = description

    def line(self, start: tuple[float, float], end: tuple[float, float], style: str) -> None:
        """A straight line."""
        (x1, y1), (x2, y2) = start, end
        self._add("line", style, x1=x1, y1=y1, x2=x2, y2=y2)

    def path(self, places: Sequence[tuple[float, float]], style: str) -> None:
        """A line through places, broken where one is not finite."""
        commands, begin = [], True
        for x, y in places:
            if math.isfinite(x) and math.isfinite(y):
                commands.append(f"{'M' if begin else 'L'}{x:.2f} {y:.2f}")
                begin = False
            else:
                begin = True
        self._add("path", style, d=" ".join(commands))

    def rectangle(
        self,
        corner: tuple[float, float],
        size: tuple[float, float],
        style: str,
        *,
        opacity: float = 1,
        tip: str = "",
    ) -> None:
        """A rectangle; `tip` is shown when the mouse rests on it."""
        (x, y), (width, height) = corner, size
        shown = {} if opacity == 1 else {"fill-opacity": f"{opacity:.3f}"}
        self._add("rect", style, tip, x=x, y=y, width=width, height=height, **shown)

    def circle(
        self, centre: tuple[float, float], radius: float, style: str, *, tip: str = ""
    ) -> None:
        """A circle."""
        self._add("circle", style, tip, cx=centre[0], cy=centre[1], r=radius)

    def diamond(
        self, centre: tuple[float, float], radius: float, style: str, *, tip: str = ""
    ) -> None:
        """A square that stands on a corner."""
        x, y = centre
        corners = [(x, y - radius), (x + radius, y), (x, y + radius), (x - radius, y)]
        places = " ".join(f"{a:.2f},{b:.2f}" for a, b in corners)
        self._add("polygon", style, tip, points=places)

    def text(
        self,
        place: tuple[float, float],
        words: str,
        style: str = "",
        *,
        anchor: str = "start",
        turned: float = 0,
    ) -> None:
        """Words on a line that goes through the place; `turned` in degrees, clockwise."""
        x, y = place
        options = {"transform": f"rotate({turned:g} {x:.2f} {y:.2f})"} if turned else {}
        found = self._add(
            "text", style, x=x, y=y, dy="0.35em", **{"text-anchor": anchor, **options}
        )
        found.text = words

    def whisker(
        self, low: tuple[float, float], high: tuple[float, float], style: str = "whisker"
    ) -> None:
        """An interval, with a stroke across at both ends."""
        if not all(math.isfinite(x) for x in (*low, *high)):
            return
        self.line(low, high, style)
        upright = low[0] == high[0]
        for x, y in (low, high):
            across = (4.0, 0.0) if upright else (0.0, 4.0)
            start, end = (x - across[0], y - across[1]), (x + across[0], y + across[1])
            self.line(start, end, style)

    def to_markup(self) -> Markup:
        """The drawing as part of a page."""
        # ElementTree has escaped all of it.
        return Markup(ElementTree.tostring(self._root, encoding="unicode"))  # noqa: S704

    def _add(self, tag: str, style: str, tip: str = "", **numbers: object) -> ElementTree.Element:
        attributes = {
            key: f"{value:.2f}" if isinstance(value, float) else str(value)
            for key, value in numbers.items()
        }
        if style:
            attributes["class"] = style
        found = ElementTree.SubElement(self._root, tag, attributes)
        if tip:
            ElementTree.SubElement(found, "title").text = tip
        return found


def ticks(low: float, high: float, number: int = 5) -> list[float]:
    """Round numbers from low to high, about so many: multiples of 1, 2 or 5 times a power of ten.

    Args:
        low: Where the axis begins.
        high: Where it ends; above `low`.
        number: How many are wanted.
    """
    rough = (high - low) / max(1, number)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def digits_of(places: Sequence[float]) -> int:
    """How many digits after the point tell the ticks of an axis apart."""
    if len(places) < 2:
        return 0
    step = min(b - a for a, b in itertools.pairwise(places))
    return max(0, -math.floor(math.log10(step) + 1e-9))


def span(values: Sequence[float], *, margin: float = 0.06) -> tuple[float, float]:
    """The lowest and highest finite value, moved apart by a share of their distance.

    Raises:
        ValueError: No value is finite.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        raise ValueError("there is no finite number to draw")
    low, high = min(finite), max(finite)
    reach = (high - low) or max(abs(high), 1.0) * 0.1
    return low - margin * reach, high + margin * reach
