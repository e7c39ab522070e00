"""Pixels as pages show them."""

import base64
import io

import numpy as np
from PIL import Image

from safelight.app.drawing import data_address, fit, overlay
from safelight.plots.explanations import lay_over


def test_few_pixels_become_squares_and_many_are_reduced():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (28, 20, 3), np.uint8)
    shown = fit(small, 100)
    assert shown.shape == (84, 60, 3)
    np.testing.assert_array_equal(shown[1::3, 1::3], small)
    large = np.full((300, 900, 3), 77, np.uint8)
    assert fit(large, 100).shape == (33, 100, 3)
    assert (fit(large, 100) == 77).all()
    as_it_is = rng.integers(0, 256, (80, 60, 3), np.uint8)
    assert fit(as_it_is, 100) is as_it_is


def test_where_nothing_speaks_for_the_answer_the_picture_is_grey():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    laid = overlay(pixels, np.full((7, 7), -1.0, np.float32))
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(laid, np.repeat(grey[..., None], 3, axis=2), atol=1)


def test_a_white_line_is_at_half_of_the_strongest_place():
    """A ramp from 0 to 1 over 101 columns: the line is column 51, the first above one half."""
    ramp = np.tile(np.linspace(0, 1, 101, dtype=np.float32), (30, 1))
    pixels = np.full((30, 101, 3), 90, np.uint8)
    laid = overlay(pixels, ramp)
    assert (laid[:, 51] == 255).all()
    rest = np.delete(np.arange(101), 51)
    expected = lay_over((pixels / np.float32(255)).astype(np.float32), ramp)
    np.testing.assert_allclose(laid[:, rest], 255 * expected[:, rest], atol=0.51)


def test_a_data_address_holds_the_picture():
    pixels = np.tile(np.linspace(0, 255, 60, dtype=np.uint8)[:, None, None], (1, 40, 3))
    kind, _, content = data_address(pixels).partition(",")
    assert kind == "data:image/webp;base64"
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))
    assert decoded.shape == pixels.shape
    assert np.abs(decoded.astype(int) - pixels).mean() < 4
