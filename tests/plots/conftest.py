"""What tests of pictures look at: their texts, and the ink on the outermost pixels."""

import io
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image


@pytest.fixture(scope="session")
def texts() -> Callable[[Figure], list[str]]:
    def read(figure: Figure) -> list[str]:
        return [text.get_text() for text in figure.findobj(Text) if text.get_visible()]

    return read


@pytest.fixture(scope="session")
def assert_whole() -> Callable[[Figure], None]:
    """What runs over the frame would leave ink on its outermost pixels."""

    def look(figure: Figure) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            picture = Image.open(io.BytesIO(figure._repr_png_())).convert("L")
        grey = np.asarray(picture)
        assert grey.min() < 128
        for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1]):
            assert edge.min() == 255

    return look
