"""What is written is read back, whatever names are in it, as other programs would read it."""

import contextlib
import csv
import io
import json
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from safelight import untrusted
from safelight.cli import console
from safelight.explorer import packing
from safelight.images import ImageError, decode_image
from safelight.report import words
from safelight.runs import Run, to_json
from safelight.transfer.data_page import escape

quick = settings(max_examples=40)
TEXTS = st.text(max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | TEXTS
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
FORMULAS = st.text(alphabet="=+-@\t\r'a1.e", max_size=8)


@quick
@given(VALUES)
def test_json_is_what_the_standard_library_reads(value):
    text = json.dumps(value)
    assert untrusted.parse_json(text) == json.loads(text) == value


@quick
@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:0123456789.eE+-NaInfty ', max_size=40))
def test_what_is_no_json_is_a_value_error(text):
    with contextlib.suppress(ValueError):
        value = untrusted.parse_json(text)
        assert json.loads(json.dumps(value, allow_nan=False)) == value


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[Infinity]",
        "1e999",
        "-1e999",
        "9" * 31,
        "[" * 101 + "]" * 101,
        "[" * 100_000,
        b"\xff",
    ],
)
def test_numbers_beyond_all_bounds_and_depths_are_refused(text):
    with pytest.raises(ValueError, match=r"no JSON|beyond|digits|levels|decode"):
        untrusted.parse_json(text)


def test_as_deep_as_is_let_in():
    text = "[" * untrusted.MAX_DEPTH + "]" * untrusted.MAX_DEPTH
    assert untrusted.parse_json(text) == json.loads(text)


@quick
@given(
    st.dictionaries(
        st.text(string.ascii_letters + "/_ .", min_size=1, max_size=12),
        numpy_st.arrays(
            st.sampled_from(["<f2", "<f4", ">f8", "|b1", "<i8", "|u1", "<U3"]),
            numpy_st.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
        ),
        max_size=3,
    ),
    st.booleans(),
    st.booleans(),
)
def test_arrays_are_what_numpy_reads(arrays, compressed, in_columns):
    # NumPy takes a name of its own for an argument.
    arrays = {f"a/{name}": array.T if in_columns else array for name, array in arrays.items()}
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    found = untrusted.unpack_arrays(buffer)
    buffer.seek(0)
    if not arrays:
        assert found == {}
        return
    with np.load(buffer, allow_pickle=False) as known:
        assert set(found) == set(known.files)
        for name in found:
            np.testing.assert_array_equal(found[name], known[name])
            assert found[name].dtype == known[name].dtype


@quick
@given(st.lists(TEXTS | FORMULAS, min_size=1, max_size=6))
def test_a_table_gives_back_its_names_and_holds_no_formula(tmp_path_factory, names):
    # A lone surrogate is no Unicode, and spelt out; the csv format cannot tell a cell from nothing.
    names = [f"{name.encode('utf-8', 'replace').decode()}" for name in names]
    run = Run.create(tmp_path_factory.mktemp("runs") / "run")
    run.write_predictions({"file": names, "n": [str(i) for i in range(len(names))]})
    assert run.predictions["file"] == names
    text = (run.path / "predictions.csv").read_bytes().decode("utf-8")
    for row in list(csv.reader(io.StringIO(text, newline="")))[1:]:
        if row[0][:1] in tuple("=+-@\t\r"):
            float(row[0])  # a number is none


@quick
@given(st.text(max_size=40))
def test_nothing_that_a_terminal_obeys_is_said(text):
    said = str(console._as_text(text))
    assert all(line.isprintable() for line in said.split("\n"))
    assert text.isprintable() <= (said == text)


@quick
@given(st.text(max_size=40) | st.sampled_from(["</script>", "<!--<script>", "\u2028", "]]>"]))
def test_names_within_a_script_are_no_markup_and_come_back(name):
    text = packing.script({"a": {"names": [name]}})
    assert "<" not in text
    begin, end = text.index("?? {}, ") + len("?? {}, "), text.rindex(");")
    assert json.loads(text[begin:end]) == {"a": {"names": [name]}}


@quick
@given(st.text(max_size=40))
def test_names_on_a_page_are_no_markup(name):
    markup = str(words.name(name)).replace("<bdi>", "").replace("</bdi>", "").replace("<wbr>", "")
    assert "<" not in markup
    assert markup.isprintable()


@quick
@given(st.text(max_size=40))
def test_names_in_markdown_stay_on_their_line(name):
    found = escape(name)
    assert found.isprintable()
    assert not any(c == "<" and found[at - 1 : at] != "\\" for at, c in enumerate(found))


@quick
@given(st.text(max_size=300), st.integers(1, 80))
def test_somebody_elses_words_are_one_line_that_can_be_printed(text, limit):
    found = untrusted.one_line(text, limit)
    assert found.isprintable()
    assert len(found) <= limit


@quick
@given(VALUES)
def test_a_value_of_a_run_comes_back(tmp_path_factory, value):
    run = Run.create(tmp_path_factory.mktemp("runs") / "run")
    run.write_metrics({"value": value})
    # What is not Unicode is spelt out when it is written.
    known = json.loads(to_json({"value": value}).encode("utf-8", "backslashreplace"))
    assert run.metrics == known


@quick
@given(
    st.binary(max_size=200),
    st.sampled_from([b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\x00", b""]),
)
def test_bytes_are_no_picture_or_one(content, magic):
    with contextlib.suppress(ImageError):
        pixels = decode_image(io.BytesIO(magic + content), file="a.png")
        assert (pixels.dtype, pixels.ndim) == (np.uint8, 3)
