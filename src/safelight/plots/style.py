"""The one look of all pictures: figures, colours, texts, and files that are whole or not there.

No pyplot and no global style is touched, so all of it works in threads and leaves the user's
figures alone. The colours are Okabe and Ito's, which people with any colour vision can tell apart.
"""

import unicodedata
from collections.abc import Iterable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from safelight.files import StrPath, atomic_path

BLUE, VERMILION, ORANGE = "#0072B2", "#D55E00", "#E69F00"
INK, PALE = "#333333", "#BBBBBB"
SMALL, NORMAL = 9, 11  # points
TEXT: dict[str, Any] = {"fontsize": NORMAL, "color": INK, "va": "center"}
# DejaVu Sans comes with Matplotlib; these are where the systems keep Chinese, Japanese and Korean.
_MORE_FONTS = ["Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans"]
_MORE_FONTS += ["Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Apple SD Gothic Neo"]


class Picture(Figure):
    """A figure that shows itself in a notebook without pyplot and without any magic line."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def save_figure(figure: Figure | Axes, path: StrPath, *, dpi: int = 150) -> Path:
    """Write a figure to a file that has its name only when it is whole.

    Args:
        figure: what a `plot_*` returned, or Axes, whose whole figure is written.
        path: the file; its ending says the format: .png, .svg or .pdf.
        dpi: dots per inch of a PNG.

    Returns:
        The path.

    Raises:
        ValueError: if the ending is another one.
    """
    path = Path(path)
    figure = figure if isinstance(figure, Figure) else figure_of(figure)
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"{path.name}: pass a file name that ends in .png, .svg or .pdf.")
    with atomic_path(path) as partial:
        figure.savefig(partial, format=path.suffix[1:].lower(), dpi=dpi)
    return path


def new_figure(width: float, height: float) -> Picture:
    """Make an empty figure of that many inches whose parts find their own places."""
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)  # inches
    return Picture(figsize=(width, height), layout=layout, facecolor="white")


def given_or_new(ax: Axes | None, width: float, height: float) -> Axes:
    """Return ax, or the one panel of a new figure of that many inches."""
    return new_figure(width, height).subplots() if ax is None else ax


def figure_of(ax: Axes) -> Figure:
    """Return the whole figure that ax is a panel of."""
    return cast(Figure, ax.get_figure(root=True))


def style_axes(ax: Axes, *, grid: bool = True) -> None:
    """Give the one look that all charts share."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#888888")
    ax.tick_params(labelsize=NORMAL, colors=INK)
    ax.xaxis.label.set(size=NORMAL, color=INK)
    ax.yaxis.label.set(size=NORMAL, color=INK)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(color="#E6E6E6", linewidth=0.8)


def epoch_ticks() -> MaxNLocator:
    """Place ticks at whole epochs."""
    return MaxNLocator(integer=True, nbins=8, min_n_ticks=1, steps=[1, 2, 5, 10])


@cache
def _fonts() -> list[str]:
    installed = set(fontManager.get_font_names())
    return ["DejaVu Sans", *(name for name in _MORE_FONTS if name in installed)]


def as_data(texts: Iterable[Text]) -> None:
    """Take texts literally: a class named "$x$" is no formula; and find glyphs for any script."""
    for text in texts:
        text.set_parse_math(False)
        text.set_fontfamily(_fonts())


def shorten(name: str, width: int) -> str:
    """Return the name without control characters, its middle left out where it is too long."""
    name = "".join("?" if unicodedata.category(c)[0] == "C" else c for c in str(name))
    if len(name) <= width:
        return name
    head = (width - 1) * 2 // 3
    return f"{name[:head]}…{name[len(name) - (width - 1 - head) :]}"


def signed(value: float, digits: int = 1) -> str:
    """Write a number with the minus sign of a printed text; zero has none."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")
