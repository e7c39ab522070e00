"""Pictures of any size become one array, dealt out to training, validation and test.

A model that draws pictures makes every pixel at once, so all pictures must have one small size and
the same channels; they then fit into memory together, which is what makes its epochs fast.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safelight import datasets
from safelight.datasets import ImageDataset, Splits
from safelight.images import Mode, resize
from safelight.runs import Run, atomic_path
from safelight.sources import Arrays

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

MAX_SIDE = 64
MIN_IMAGES = 20
_FEW_IMAGES = 200
_MIN_SIDE, _MAX_PIXELS = 8, 256 * 256
_VALIDATION_FRACTION, _MAX_VALIDATION = 0.1, 5_000
_CHUNK = 256


@dataclass(frozen=True, eq=False)
class Pictures:
    """All pictures of a data set.

    Attributes:
        images: `(n, height, width, 1 | 3)` uint8, in the order of the data set.
        note: How their size was chosen; empty if it was given, or is their own.
    """

    images: NDArray[np.uint8]
    note: str = ""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels


def load_images(
    dataset: ImageDataset,
    image_size: tuple[int, int] | None = None,
    *,
    channels: int | None = None,
    progress: Progress | None = None,
) -> Pictures:
    """Read every picture of a data set into one array.

    Use it in front of `vae.train`. Without `image_size`, pictures that share a size of at most 64
    pixels a side keep it; all others get the most common aspect ratio, the longest side 64.

    Args:
        dataset: The pictures.
        image_size: `(height, width)` that every picture is resized to, its aspect ratio not kept.
        channels: 1 for grey, 3 for colour; by default 1 if every picture is grey, else 3.
        progress: Called with (done, total).

    Returns:
        The pictures, and how their size was chosen.

    Raises:
        ValueError: If the size is not sensible or the array would not fit into memory.
        ImageError: If a file has gone bad since the data set was made.
    """
    _check_size(image_size)
    ready = _ready(dataset, image_size, channels)
    if ready is not None:
        return Pictures(ready)
    _check_memory(len(dataset), image_size or (MAX_SIDE, MAX_SIDE))
    mode: Mode = "L" if channels == 1 else "RGB"
    small, sizes = [], []
    for picture, size in _read_small(dataset, image_size, mode):
        small.append(picture)
        sizes.append(size)
        if progress is not None:
            progress(len(small), len(dataset))
    chosen, note = (image_size, "") if image_size else choose_size(np.array(sizes))
    images = np.empty((len(small), *chosen, small[0].shape[-1]), np.uint8)
    for row, picture in enumerate(small):
        images[row] = fit_picture(picture, chosen)
    if channels is None and _all_grey(images):
        images = images[..., :1].copy()
    return Pictures(images, note)


def choose_size(sizes: NDArray[np.integer]) -> tuple[tuple[int, int], str]:
    """Choose the one size that suits pictures of these sizes best.

    Args:
        sizes: `(n, 2)` heights and widths in pixels.

    Returns:
        `(height, width)`, and a sentence that says why; empty if all pictures have it already.
    """
    longest = int(sizes.max())
    if (sizes == sizes[0]).all() and longest <= MAX_SIDE:
        return (int(sizes[0, 0]), int(sizes[0, 1])), ""
    shapes, counts = np.unique(_scaled(sizes, min(MAX_SIDE, longest)), axis=0, return_counts=True)
    # Where several are equally common (photographs cut by hand), the middle one distorts least.
    aspects = np.log(shapes[:, 0] / shapes[:, 1])
    middle = np.median(np.repeat(aspects, counts))
    best = np.lexsort((np.abs(aspects - middle), -counts))[0]
    height, width = (int(side) for side in shapes[best])
    share = f"the aspect ratio of {counts[best]:,} of the {len(sizes):,} pictures"
    return (height, width), (
        f"pictures are resized to {height} x {width} pixels (height x width), {share}; "
        "image_size chooses another size"
    )


def fit_picture(picture: NDArray[np.uint8], image_size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize one picture as `load_images` does.

    Args:
        picture: `(height, width, channels)` uint8.
        image_size: The wanted `(height, width)`.

    Returns:
        `(*image_size, channels)` uint8; the picture itself if it has that size.
    """
    if picture.shape[:2] == image_size:
        return picture
    return np.rint(resize(picture, image_size)).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Parts:
    """A data set as arrays, dealt out; each mapping has "train", "validation" and "test".

    Attributes:
        dataset: The whole data set.
        splits: Which picture belongs to which part.
        images: `(n, height, width, channels)` uint8 per part.
        labels: `(n,)` int64 per part; `None` without at least two classes.
        note: How the size of the pictures was chosen.
    """

    dataset: ImageDataset
    splits: Splits
    images: dict[str, NDArray[np.uint8]]
    labels: dict[str, NDArray[np.int64]] | None
    note: str = ""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        height, width, channels = self.images["train"].shape[1:]
        return height, width, channels

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 without labels."""
        return self.dataset.num_classes if self.labels else 0


def keep_class(dataset: ImageDataset, class_name: str | None) -> ImageDataset:
    """Keep the pictures of one class, as a data set without labels.

    Use it to learn what is normal: what was learned from one class may find pictures of others odd.

    Args:
        dataset: With labels.
        class_name: The class; `None` gives the data set itself.

    Raises:
        ValueError: If there is no such class.
    """
    if class_name is None:
        return dataset
    if class_name not in dataset.class_names:
        known = ", ".join(dataset.class_names) or "none, as it was read without labels"
        raise ValueError(
            f"{dataset.name} has no class {class_name!r}: expected one of its classes ({known})."
        )
    rows = np.flatnonzero(dataset.labels == dataset.class_names.index(class_name))
    kept = dataset.subset(rows)
    return replace(kept, class_names=(), labels=np.zeros_like(kept.labels), targets=None)


def source_folder(run: Run, source: str) -> Path | None:
    """The folder that a run names as where its pictures are; `None` if it is not there any more.

    Args:
        run: The run.
        source: Of its data set, as seen from its folder; empty where none was named.
    """
    if not isinstance(source, str) or not source:  # a damaged configuration
        return None
    folder = run.path.resolve() / source
    return folder if folder.is_dir() else None


def check_classes(dataset: ImageDataset, run: Run, expected: Sequence[str]) -> None:
    """Whether a data set has the classes that a run was trained on.

    Raises:
        ValueError: It has others.
    """
    if list(dataset.class_names) != list(expected):
        raise ValueError(
            f"{dataset.name} has the classes {list(dataset.class_names)}, but {run.path} was "
            f"trained on {list(expected)}: expected the same folders."
        )


def split(dataset: ImageDataset, *, test_fraction: float = 0.25, seed: int = 0) -> Splits:
    """Deal a data set out to training, validation and test; copies never straddle.

    Args:
        dataset: The pictures; parts that it brings along are kept (MNIST's official test part).
        test_fraction: Share of the pictures that only judge.
        seed: Of the dealing.

    Returns:
        The parts; validation is a tenth of all pictures, at most 5,000.

    Raises:
        ValueError: If there are fewer than 20 pictures, or too few that differ.
    """
    if len(dataset) < MIN_IMAGES:
        number = f"{len(dataset)} picture" + "s" * (len(dataset) != 1)
        raise ValueError(
            f"{dataset.name} holds {number}: a model that draws pictures needs at least "
            f"{MIN_IMAGES} to learn from, some hundreds to be of use; add pictures."
        )
    splits = datasets.split(
        dataset,
        test_fraction=test_fraction,
        validation_fraction=min(_VALIDATION_FRACTION, _MAX_VALIDATION / len(dataset)),
        seed=seed,
    )
    if len(splits.train) < _FEW_IMAGES:
        logger.warning(
            "%d pictures to train on are soon learnt by heart: watch the numbers of unseen ones "
            "(val_elbo of an autoencoder, copies of a GAN), and take few epochs.",
            len(splits.train),
        )
    return splits


def load_parts(
    dataset: ImageDataset,
    splits: Splits,
    image_size: tuple[int, int] | None = None,
    *,
    progress: Progress | None = None,
) -> Parts:
    """Read a data set that was dealt out.

    Args:
        dataset: The whole data set.
        splits: Its parts.
        image_size: As for `load_images`.
        progress: Called with (done, total).

    Returns:
        The arrays of each part.

    Raises:
        ValueError: As `load_images`.
    """
    pictures = load_images(dataset, image_size, progress=progress)
    labels = None
    if dataset.num_classes > 1:
        labels = {name: dataset.labels[rows] for name, rows in splits.indices.items()}
    images = {name: pictures.images[rows] for name, rows in splits.indices.items()}
    return Parts(dataset, splits, images, labels, pictures.note)


def binarize(images: NDArray[np.uint8], *, seed: int) -> NDArray[np.uint8]:
    """Draw every pixel black or white once, its grey value being the probability of white.

    This is static binarisation (Larochelle and Murray 2011, AISTATS).

    Args:
        images: `(n, height, width, channels)` uint8.
        seed: Of the draw.

    Returns:
        The same shape, uint8, 0 or 255.
    """
    rng = np.random.default_rng(seed)
    drawn = np.empty_like(images)
    for start in range(0, len(images), _CHUNK):
        some = images[start : start + _CHUNK]
        drawn[start : start + _CHUNK] = 255 * (rng.random(some.shape, np.float32) < some / 255.0)
    return drawn


def save_images(folder: str | os.PathLike[str], images: NDArray, *, name: str) -> list[Path]:
    """Write each picture as a PNG file of its own.

    Args:
        folder: Made if it is not there.
        images: `(n, height, width, 1 | 3)`, uint8, or floats from 0 to 1.
        name: Files are called `name-0001.png` and so on; those of that name are replaced.

    Returns:
        The files.
    """
    from PIL import Image

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if images.dtype != np.uint8:
        images = np.rint(255 * images.clip(0, 1)).astype(np.uint8)
    paths = [folder / f"{name}-{number:04d}.png" for number in range(1, len(images) + 1)]
    for path, image in zip(paths, images, strict=True):
        with atomic_path(path) as partial:
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(partial)
    return paths


def _ready(
    dataset: ImageDataset, image_size: tuple[int, int] | None, channels: int | None
) -> NDArray[np.uint8] | None:
    """The pictures, if they are in memory as they are wanted."""
    if not isinstance(dataset.source, Arrays):
        return None
    images = dataset.source.images
    kept = image_size or (min(MAX_SIDE, images.shape[1]), min(MAX_SIDE, images.shape[2]))
    grey = images.shape[-1] == 1
    if images.shape[1:3] != kept or (channels not in (None, 1) if grey else channels != 3):
        return None
    return images[dataset.source.rows]


def _read_small(
    dataset: ImageDataset, image_size: tuple[int, int] | None, mode: Mode
) -> Iterator[tuple[NDArray[np.uint8], tuple[int, int]]]:
    """Yields each picture, no longer than needed, with its own height and width.

    Every file is decoded once only: that takes far longer than all the rest.
    """

    def read(index: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        picture = dataset.read(index, mode=mode)
        size = np.array([picture.shape[:2]])
        height, width = _scaled(size, min(MAX_SIDE, int(size.max())))[0].tolist()
        return fit_picture(picture, image_size or (height, width)), picture.shape[:2]

    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        # In pieces, so that Ctrl-C does not wait for all that was asked for.
        for start in range(0, len(dataset), _CHUNK):
            yield from threads.map(read, range(start, min(start + _CHUNK, len(dataset))))


def _scaled(sizes: NDArray[np.integer], side: int) -> NDArray[np.int64]:
    """Sizes with their longest side at `side`, `(n, 2)`, in whole numbers so that none wavers."""
    sizes = sizes.astype(np.int64)
    longest = sizes.max(axis=1, keepdims=True)
    scaled = (2 * sizes * side + longest) // (2 * longest)
    # A panorama keeps some height, but nothing is made larger than it is for that alone.
    return np.maximum(scaled, np.minimum(sizes, _MIN_SIDE))


def _all_grey(images: NDArray[np.uint8]) -> bool:
    if images.shape[-1] == 1:
        return True
    return all(np.array_equal(images[..., 0], images[..., other]) for other in (1, 2))


def _check_size(image_size: tuple[int, int] | None) -> None:
    if image_size is None:
        return
    height, width = image_size
    if min(height, width) < _MIN_SIDE or height * width > _MAX_PIXELS:
        raise ValueError(
            f"image_size={height}x{width}: expected sides of at least {_MIN_SIDE} pixels and at "
            f"most {_MAX_PIXELS:,} pixels in all (256x256); 64 is a good longest side."
        )


def _check_memory(num_images: int, image_size: tuple[int, int]) -> None:
    # Once as read and once as one array; colour, because only reading tells.
    needed = 2 * num_images * image_size[0] * image_size[1] * 3
    available = _memory() // 2
    if needed > available:
        raise ValueError(
            f"{num_images:,} pictures of {image_size[0]} x {image_size[1]} pixels need "
            f"{needed / 1e9:.1f} GB while they are read, and half of this machine's memory is "
            f"{available / 1e9:.1f} GB: choose a smaller image_size, or fewer pictures."
        )


def _memory() -> int:
    """Bytes of memory in this machine, or 8 GB where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 10**9
