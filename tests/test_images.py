import io
import os
import pickle
import struct
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from safelight.images import MAX_PIXELS, ImageError, perceptual_hash, read_image, resize

RNG = np.random.default_rng(7)
NOISE = RNG.integers(0, 256, (19, 31, 3), dtype=np.uint8)


def scene(seed, size=96):
    """Draw something with edges and gradients, for what natural pictures are needed for."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    image = np.stack([rng.uniform(40, 90) * y + rng.uniform(40, 90) * x] * 3, axis=-1)
    for _ in range(8):
        cy, cx, r = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.25)
        image[np.hypot(y - cy, x - cx) < r] = rng.uniform(20, 200, 3)
    return image.clip(0, 255).astype(np.uint8)


def png_header(width, height):
    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_lossless_formats_give_back_the_pixels(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(NOISE).save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(read_image(path), NOISE)
    grey = read_image(path, mode="L")
    assert grey.shape == (19, 31, 1)
    assert np.abs(grey[..., 0] - NOISE @ [0.299, 0.587, 0.114]).max() <= 1


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_come_close(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(scene(0)).save(path, quality=95)
    difference = read_image(path).astype(float) - scene(0)
    assert np.sqrt((difference**2).mean()) < 10


def test_the_content_and_not_the_suffix_decides(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(NOISE).save(path, format="PNG")
    assert np.array_equal(read_image(path), NOISE)


def test_cmyk_jpeg_is_converted(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red = read_image(tmp_path / "a.jpg").reshape(-1, 3).mean(axis=0)
    assert red[0] > 240
    assert red[1:].max() < 15


def test_palette_one_bit_and_grey(tmp_path):
    flat = Image.new("RGB", (9, 9), (10, 200, 30))
    flat.quantize(4).save(tmp_path / "p.png")
    assert (read_image(tmp_path / "p.png") == (10, 200, 30)).all()
    bits = NOISE[..., 0] > 127
    Image.fromarray(bits).save(tmp_path / "1.png")
    assert np.array_equal(read_image(tmp_path / "1.png", mode="L")[..., 0], bits * 255)
    Image.fromarray(NOISE[..., 0]).save(tmp_path / "l.png")
    assert np.array_equal(read_image(tmp_path / "l.png"), np.repeat(NOISE[..., :1], 3, axis=-1))


@pytest.mark.parametrize("alpha", [0, 64, 255])
def test_alpha_is_laid_over_white(tmp_path, alpha):
    Image.new("RGBA", (9, 9), (100, 0, 50, alpha)).save(tmp_path / "a.png")
    expected = (np.array([100, 0, 50]) * alpha + 255 * (255 - alpha)) / 255
    assert np.abs(read_image(tmp_path / "a.png") - expected).max() <= 1


def test_transparent_palette_and_grey_with_alpha_are_laid_over_white(tmp_path):
    palette = Image.new("P", (9, 9), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((0, 0), 1)
    for name in ("p.png", "p.gif"):
        palette.save(tmp_path / name, transparency=0)
        image = read_image(tmp_path / name)
        assert image[0, 0].tolist() == [255, 0, 0]
        assert (image[1:] == 255).all()
    Image.new("LA", (9, 9), (0, 0)).save(tmp_path / "la.png")
    assert (read_image(tmp_path / "la.png") == 255).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 20 * 30).reshape(20, 30).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}", mode="L")[..., 0]
    assert np.array_equal(image, np.floor(ramp / 257 + 0.5).astype(np.uint8))


@pytest.mark.parametrize(("dtype", "word"), [(np.float32, "floating-point"), (np.int32, "32-bit")])
def test_pixels_of_unknown_range_are_refused(tmp_path, dtype, word):
    Image.fromarray(np.ones((9, 9), dtype)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=word):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp"])
def test_the_first_frame_is_taken(tmp_path, suffix):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert (read_image(tmp_path / f"a.{suffix}") == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_orientation_is_applied_once(tmp_path, orientation, suffix):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # white in the upper left corner only
    # How a camera would have stored the upright picture, by the EXIF standard's table.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.ascontiguousarray(stored))
    picture.save(tmp_path / f"a.{suffix}", exif=exif)
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.shape == upright.shape
    assert np.array_equal(image > 127, upright > 127)


def test_odd_names_and_shapes(tmp_path):
    name = "größe 図 🙂 " + "x" * 200 + ".png"
    Image.fromarray(NOISE[:1, :1]).save(tmp_path / name)
    assert np.array_equal(read_image(tmp_path / name), NOISE[:1, :1])
    Image.new("L", (5000, 1)).save(tmp_path / "long.png")
    assert read_image(tmp_path / "long.png").shape == (1, 5000, 3)


def saved(**options):
    buffer = io.BytesIO()
    Image.fromarray(scene(1)).save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"This is a text.\n" * 20, "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (saved(format="JPEG")[:900], "truncated"),
        (saved(format="PNG")[:900], "truncated|damaged"),
        (saved(format="WEBP")[:200], "truncated|damaged|not a picture"),
        (saved(format="GIF")[:1200], "truncated|damaged"),
        (saved(format="BMP")[:900], "truncated|damaged"),
        (saved(format="TIFF")[:900], "truncated|damaged|not a picture"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "damaged|not a picture|truncated"),
    ],
)
def test_a_bad_file_gets_its_reason(tmp_path, content, reason):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(path)
    assert caught.value.file == str(path)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    assert len(caught.value.reason) < 150


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in [
        ("pipe.png", "regular"),
        ("none.png", "no such file"),
        ("", "folder"),
        ("a\0.png", "is no name"),
        ("\ud800.png", "is no name"),
    ]:
        with pytest.raises(ImageError, match=reason):
            read_image(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(format="PNG"))
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(ImageError, match="permission denied"):
        read_image(tmp_path / "a.png")


def test_errors_can_be_pickled():
    error = pickle.loads(pickle.dumps(ImageError("a.png", "empty file")))
    assert (error.file, error.reason) == ("a.png", "empty file")


@pytest.mark.parametrize("side", [30_000, 12_000, 10_001])
def test_bombs_are_refused_by_their_header(tmp_path, side):
    assert side**2 > MAX_PIXELS
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    tracemalloc.start()
    with warnings.catch_warnings():
        # The test run turns warnings into errors before the module's own filter is asked.
        warnings.simplefilter("ignore")
        with pytest.raises(ImageError, match="too large"):
            read_image(tmp_path / "bomb.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_pillow_is_left_as_it_was(tmp_path):
    before = (Image.MAX_IMAGE_PIXELS, dict(vars(__import__("PIL.ImageFile").ImageFile)))
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    read_image(tmp_path / "a.png")
    assert before == (Image.MAX_IMAGE_PIXELS, dict(vars(__import__("PIL.ImageFile").ImageFile)))


def test_threads_read_what_one_thread_reads(tmp_path):
    paths = []
    for i in range(40):
        paths.append(tmp_path / f"{i}.{('png', 'jpg', 'gif', 'tif', 'webp')[i % 5]}")
        Image.fromarray(scene(i)).save(paths[-1])
    alone = [read_image(path) for path in paths]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(read_image, paths))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_unknown_mode(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="mode must be"):
        read_image(tmp_path / "a.png", mode="RGBA")


def test_resize_keeps_means_and_identity():
    assert np.array_equal(resize(NOISE, NOISE.shape[:2]), NOISE)
    halved = resize(scene(2, 64), 32)
    assert halved.dtype == np.float32
    assert halved.mean() == pytest.approx(scene(2, 64).mean(), abs=0.5)
    assert (resize(np.full((7, 9, 1), 99, np.uint8), (3, 40)) == 99).all()
    with pytest.raises(ValueError, match="height, width, channels"):
        resize(NOISE[..., 0], 8)
    with pytest.raises(ValueError, match="positive"):
        resize(NOISE, (8, 0))


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [(8, 8), (224, 224), (40, 17), (19, 31), (5, 90)])
def test_resize_equals_keras(image_size):
    import keras

    theirs = keras.ops.image.resize(
        NOISE.astype(np.float32), image_size, interpolation="bilinear", antialias=True
    )
    theirs = keras.ops.convert_to_numpy(theirs)
    assert np.abs(resize(NOISE, image_size) - theirs).max() < 0.01


def distance(first, second):
    return (perceptual_hash(first) ^ perceptual_hash(second)).bit_count()


def test_the_hash_survives_copying_and_tells_pictures_apart():
    others = []
    for seed in range(12):
        image = scene(seed)
        picture = Image.fromarray(image)
        jpeg = io.BytesIO()
        picture.save(jpeg, "JPEG", quality=75)
        copies = [
            Image.open(jpeg),
            picture.resize((61, 70)),
            ImageEnhance.Brightness(picture).enhance(1.1),
        ]
        assert max(distance(image, np.asarray(copy)) for copy in copies) <= 6
        others.append(distance(image, scene(seed + 100)))
    assert np.mean(others) > 20
    assert 0 <= perceptual_hash(scene(0)) < 2**64
