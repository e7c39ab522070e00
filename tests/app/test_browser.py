"""The page in a browser: what is dropped on it is answered, and nobody else is asked."""

import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore")]
DROP = ".sl-drop input[type=file]"
SECONDS = 120_000  # in milliseconds; a busy machine takes its time


@pytest.fixture
def page(browser, served):
    """A fresh visitor at the page, and everything that the browser asked for."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(served.address)
    page.wait_for_selector(DROP, state="attached")
    yield page
    context.close()


def drop(page, *files, num_cards=None):
    """Hand files to the page and wait for the answers."""
    page.set_input_files(DROP, [str(file) for file in files])
    expected = num_cards or len(files)
    page.wait_for_function(f"document.querySelectorAll('.sl-card').length >= {expected}")
    return page.locator(".sl-card")


def save(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def huge_png(path, side=30_000):
    """A picture of 900 megapixels in a kilobyte: its header alone says so."""

    def chunk(kind, content):
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    content = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def test_a_dropped_picture_is_answered_with_a_map(page, paint, served, tmp_path):
    cards = drop(page, save(tmp_path / "a <i>b.png", paint(0.8)))
    text = cards.first.inner_text()
    assert re.search(r"<b>\$\{7\*7\}</b>\{\{7\}\}\s+80\.0\s%", text), text
    sizes = page.evaluate(
        "[...document.querySelectorAll('.sl-views img')].map(i => [i.naturalWidth, i.complete])"
    )
    assert len(sizes) == 2
    assert all(width > 100 and complete for width, complete in sizes)
    assert page.locator(".sl-near img").count() == 4
    assert page.locator("h1").inner_text() == "colours: blue or <b>${7*7}</b>{{7}}?"
    assert "90.0 % [75.0, 97.0]" in page.locator(".sl-head").inner_text().replace("\xa0", " ")
    elsewhere = [url for url in page.asked if not url.startswith((served.address, "data:"))]
    assert elsewhere == []
    assert page.evaluate("Object.keys(localStorage).concat(Object.keys(sessionStorage))") == []


def test_a_text_file_and_a_huge_picture_are_sentences_among_answers(page, paint, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("hello")
    good = save(tmp_path / "good.png", paint(0.2))
    cards = drop(page, notes, huge_png(tmp_path / "huge.png"), good)
    texts = [re.sub(r"\s+", " ", text) for text in cards.all_inner_texts()]
    assert texts[0] == "notes.txt Not answered: not a picture (JPEG, PNG, WebP, BMP, TIFF or GIF)."
    assert re.fullmatch(r"huge\.png Not answered: too large: .*100,000,000 pixels\.", texts[1])
    assert "blue 80.0 %" in texts[2]


def test_what_is_taken_away_is_no_longer_answered(page, paint, tmp_path):
    drop(page, save(tmp_path / "a.png", paint(0.2)))
    page.get_by_label("Clear").first.click()
    page.wait_for_function("document.querySelectorAll('.sl-card').length == 0")


def test_ten_browsers_at_once_get_their_own_answers(browser, served, paint, tmp_path):
    contexts = [browser.new_context() for _ in range(10)]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        page.set_default_timeout(SECONDS)
        page.goto(served.address)
    for number, page in enumerate(pages):
        page.wait_for_selector(DROP, state="attached")
        files = [save(tmp_path / f"{number}-{i}.png", paint((number + 0.5) / 10)) for i in range(2)]
        page.set_input_files(DROP, [str(file) for file in files])  # waits for no answer
    for number, page in enumerate(pages):
        page.wait_for_function("document.querySelectorAll('.sl-card').length == 2")
        names = page.locator(".sl-card h2").all_inner_texts()
        assert names == [f"{number}-0.png", f"{number}-1.png"]
        values = page.evaluate(
            "[...document.querySelectorAll('.sl-said data')].map(d => Number(d.value))"
        )
        red = (number + 0.5) / 10
        np.testing.assert_allclose(values, max(red, 1 - red), atol=0.004)
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_a_phone_and_keeps_nobody_out(
    browser, served, faults, paint, tmp_path, width, scheme
):
    """Nothing sticks out at the side, and axe-core finds no fault before and after an answer."""
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    page.goto(served.address)
    page.wait_for_selector(".sl-head h1")
    page.wait_for_selector(DROP, state="attached")
    assert faults(page) == []
    notes = tmp_path / "notes.txt"
    notes.write_text("hello")
    known = save(tmp_path / "a.png", paint(0.2))
    drop(page, known, notes, save(tmp_path / "b.png", paint(0.2, green=0.9)))
    page.wait_for_selector(".sl-unsure")
    page.locator(".sl-notes summary").click()
    page.wait_for_function("!document.querySelector('.pending, .generating')")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert faults(page) == []
    context.close()


def test_more_pictures_are_added_by_keyboard(page, paint, tmp_path):
    drop(page, save(tmp_path / "a.png", paint(0.2)))
    page.wait_for_function("!document.querySelector('.pending, .generating')")
    page.evaluate("document.activeElement.blur()")
    with page.expect_file_chooser() as chosen:
        for _ in range(5):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.closest('.sl-drop') !== null"):
                break
        else:
            pytest.fail("Tab does not come to the pictures")
        page.keyboard.press("Enter")
    chosen.value.set_files([str(save(tmp_path / "b.png", paint(0.8)))])
    page.wait_for_function("document.querySelectorAll('.sl-card').length == 2")
    assert page.locator(".sl-card h2").all_inner_texts() == ["a.png", "b.png"]
