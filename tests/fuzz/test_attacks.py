"""What a stranger would try by hand: each is refused in a sentence, and nothing happens besides."""

import contextlib
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safelight import images, untrusted
from safelight.generative.pictures import source_folder
from safelight.images import ImageError, read_image
from safelight.report import write_model_card, write_report
from safelight.runs import Run, list_runs
from safelight.transfer.familiarity import Familiarity, fit_familiarity

# --- arrays


class Bad:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def known(tmp_path):
    rows = np.random.default_rng(0).random((20, 4))
    return fit_familiarity(rows), tmp_path / "familiarity.npz"


def test_no_object_is_made_of_an_array(tmp_path):
    trace = tmp_path / "trace"
    found, path = known(tmp_path)
    np.savez(path, widths=np.array([Bad(trace)]), references=found.references, calibration=[1.0])
    with pytest.raises(ValueError, match=r"familiarity\.npz is damaged \(an array is damaged"):
        Familiarity.read(path)
    assert not trace.exists()


def header(descr="'<f8'", shape="(1000000000000,)"):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        header(),
        header(shape="(0, 10000000000)"),
        header(shape="(-1,)") + bytes(8),
        header(descr="'|O'", shape="(1,)") + bytes(8),
        header(descr="[('a', '<f8')]", shape="(1,)") + bytes(8),
        header(descr="__import__('os').system('true')", shape="(1,)"),
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
def test_what_an_array_claims_is_not_believed(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(ValueError, match=r"array|claims"):
        untrusted.unpack_arrays(buffer)


def test_arrays_do_not_unfold_without_end():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.zeros(80_000_000, "uint8"))
    assert buffer.tell() < 200_000
    with pytest.raises(ValueError, match="claim to unfold to 80,000"):
        untrusted.unpack_arrays(buffer)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_to_compress_are_not_let_in(kind):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        archive.writestr("a.npy", header(shape="(1,)") + bytes(8))
    with pytest.raises(ValueError, match="compressed in a way"):
        untrusted.unpack_arrays(buffer)


def test_a_file_that_is_one_array_is_a_sentence(tmp_path):
    _, path = known(tmp_path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="is damaged"):
        Familiarity.read(path)


# --- run folders


@pytest.fixture
def run(tmp_path):
    made = Run.create(tmp_path / "run")
    made.write_config({"kind": "transfer", "dataset": {"name": "pets", "class_names": ["a", "b"]}})
    made.write_metrics({"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}})
    made.write_history({"loss": [1.0]})
    (made.path / "environment.json").write_text("{}")
    return made


RUN_FILES = ("config.json", "metrics.json", "environment.json", "history.csv", "predictions.csv")


def replace(path, what):
    path.unlink(missing_ok=True)
    match what:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(path.parent.parent / "secret.json")
        case "itself":
            path.symlink_to(path)


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "link", "itself"])
@pytest.mark.parametrize("name", RUN_FILES)
def test_what_is_no_file_of_the_run_is_not_read(run, tmp_path, name, what):
    (tmp_path / "secret.json").write_text('{"safelight_run": 1, "kind": "secret", "token": "t0k"}')
    replace(run.path / name, what)
    (summary,) = list_runs(tmp_path)
    assert "t0k" not in str(summary)
    reads = {"config.json": "config", "metrics.json": "metrics", "environment.json": "environment"}
    wanted = reads.get(name, name.removesuffix(".csv"))
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        getattr(run, wanted)


def test_what_a_link_leads_to_is_on_no_page(run, tmp_path):
    (run.path / "pictures").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "private.png")
    (run.path / "pictures" / "mistakes.png").symlink_to(tmp_path / "private.png")
    (run.path / "metrics.json").unlink()
    (tmp_path / "secret.json").write_text('{"token": "t0k"}')
    (run.path / "metrics.json").symlink_to(tmp_path / "secret.json")
    assert run.pictures == ()
    page = write_report([run.path]).read_text()
    assert "t0k" not in page
    assert "<img" not in page
    assert "t0k" not in write_model_card(run.path)[0].read_text()


def test_nothing_is_drawn_where_a_link_leads(run, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "history.png").write_bytes(b"dear")
    (run.path / "pictures").symlink_to(tmp_path / "site")
    with pytest.raises(ValueError, match="pictures: is a link"):
        run.picture_path("history")
    with pytest.raises(ValueError, match="pictures: is a link"):
        Run.check(run.path, overwrite=True, resume=True)
    again = Run.create(run.path, overwrite=True)
    assert again.picture_path("history").parent.resolve() == (run.path / "pictures").resolve()
    assert (tmp_path / "site" / "history.png").read_bytes() == b"dear"


def test_links_in_the_place_of_a_runs_files_go_and_what_they_lead_to_stays(run, tmp_path):
    (tmp_path / "mine").write_bytes(b"dear")
    for name in ("model.keras", "history.csv", "report.html", "checkpoint.npz"):
        (run.path / name).unlink(missing_ok=True)
        (run.path / name).symlink_to(tmp_path / "mine")
    again = Run.create(run.path, overwrite=True)
    again.write_history({"loss": [1.0]})
    assert (tmp_path / "mine").read_bytes() == b"dear"
    assert not (run.path / "history.csv").is_symlink()


@pytest.mark.parametrize("name", ["report.html", "README.md"])
@pytest.mark.parametrize("what", ["pipe", "device", "link"])
def test_a_page_is_not_written_through_what_is_in_its_place(run, tmp_path, name, what):
    (tmp_path / "secret.json").write_text("mine")
    replace(run.path / name, what)
    if name == "README.md":
        assert write_model_card(run.path) == (run.path / name, False)
    else:
        with pytest.raises(ValueError, match="something else than a report"):
            write_report([run.path])
    assert (tmp_path / "secret.json").read_text() == "mine"


def test_a_run_folder_that_is_none_is_a_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name in ("pipe", "circle", "nothing", "\x1b[2J"):
        with pytest.raises(ValueError, match="pass the folder of a run"):
            Run.open(tmp_path / name)


@pytest.mark.parametrize(
    "text", ['{"a": ' + "9" * 10_000_000 + "}", "[" * 100_000, '{"a": 1e999}', '{"a": -1e999}']
)
def test_numbers_and_depths_without_bounds_are_sentences(run, tmp_path, text):
    (run.path / "metrics.json").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.json: cannot be read") as caught:
        _ = run.metrics
    assert len(str(caught.value)) < 400
    assert list_runs(tmp_path)[0].problem


def test_a_place_that_is_none_is_not_looked_into(run, tmp_path):
    (tmp_path / "data").mkdir()
    assert source_folder(run, "../data") is not None
    for source in ("", "nowhere", None, 3, ["../data"], "x\x00"):
        assert source_folder(run, source) is None


# --- pictures


def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(*chunks, side=9):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes((side + 1) * side)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + body + chunk(b"IEND", b"")


BOMB = zlib.compress(bytes(50_000_000))


@pytest.mark.parametrize(
    "piece",
    [
        chunk(b"zTXt", b"a\x00\x00" + BOMB),
        chunk(b"iTXt", b"a\x00\x01\x00\x00\x00" + BOMB),
        chunk(b"iCCP", b"a\x00\x00" + BOMB),
        chunk(b"eXIf", b"MM\x00*" + bytes(100)),
    ],
    ids=["zTXt", "iTXt", "iCCP", "eXIf"],
)
def test_what_stands_beside_the_pixels_does_not_unfold(tmp_path, piece):
    import resource

    path = tmp_path / "a.png"
    path.write_bytes(png(piece))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(ImageError):
        assert read_image(path).shape == (9, 9, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kilobytes


def test_what_a_file_says_of_itself_is_spelt_out(tmp_path):
    content = bytearray(png())
    content[content.index(b"IDAT") : content.index(b"IDAT") + 4] = b"\x1b[2J"
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "a.png")
    assert caught.value.reason.isprintable()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_bands_over_white_are_the_whole_over_white(tmp_path, monkeypatch, mode):
    noise = np.random.default_rng(0).integers(0, 256, (37, 23, 4), dtype=np.uint8)
    picture = Image.fromarray(noise)
    picture = picture.quantize(16) if mode == "P" else picture.convert(mode)
    options = {"transparency": 3} if mode == "P" else {}
    picture.save(tmp_path / "a.png", **options)
    whole = read_image(tmp_path / "a.png")
    monkeypatch.setattr(images, "_BAND_PIXELS", 23 * 4)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), whole)
    opened = Image.open(tmp_path / "a.png").convert("RGBA")
    white = Image.new("RGBA", opened.size, "white")
    known = np.asarray(Image.alpha_composite(white, opened).convert("RGB"))
    np.testing.assert_array_equal(whole, known)


@pytest.mark.slow
def test_a_hundred_megapixels_take_a_gigabyte_and_a_half_at_most(tmp_path):
    import subprocess
    import sys

    rows = zlib.compressobj(1)
    body = b"".join(rows.compress(bytes(40_001)) for _ in range(10_000)) + rows.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 6, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    program = (
        "import resource, sys; from safelight.images import read_image; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; read_image(sys.argv[1]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.png")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 1_500_000  # kilobytes


def test_pictures_that_are_pipes_or_devices_are_named_and_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("/dev/zero")
    for name in ("a.png", "b.png"):
        with pytest.raises(ImageError, match="not a regular file"):
            read_image(Path(tmp_path / name))


@pytest.mark.parametrize("order", ["<", ">"])
def test_texts_beyond_unicode_are_none(order):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, code in (("a", 0x10FFFF), ("b", 0x110000)):
            number = struct.pack(f"{order}I", code)
            archive.writestr(f"{name}.npy", header(descr=f"'{order}U1'", shape="()") + number)
    with pytest.raises(ValueError, match=r"b\.npy' holds texts that are none"):
        untrusted.unpack_arrays(buffer)
