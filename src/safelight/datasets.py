"""Data sets of labelled pictures: load a known one, read a folder, split without leaks."""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safelight import assets, elpv, idx
from safelight.duplicates import find_duplicates, hash_picture
from safelight.files import StrPath
from safelight.folders import Problem, scan_folder
from safelight.groupings import read_rule
from safelight.images import Mode
from safelight.shapes import SHAPE_NAMES, draw_shape
from safelight.sources import Arrays, Files, Source, array_digest, check_arrays
from safelight.splits import class_quotas, count_torn, deal_units, merge_units

_LOGGER = logging.getLogger(__name__)
_PARTS = ("train", "validation", "test")
_GIVEN = {"stratified": "given", "grouped": "given-grouped"}
NAMES = ("elpv", *idx.CLASS_NAMES)
"""Of the data sets that `load` knows."""


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled pictures that are decoded when they are read.

    Made by `load`, `from_directory`, `make_shapes` and `ImageDataset.from_arrays`. It can be
    pickled, and `read` may be called from several threads.

    Attributes:
        name: What the data set is called.
        class_names: The classes, in the order of their numbers; empty without labels.
        labels: The class of each picture, (n,), int64.
        digests: SHA-256 (hex) of each file's bytes, or of an array's shape, dtype and pixels.
        files: A name for each picture, unique, for messages.
        groups: Pictures that belong together share a number, (n,), int64; None if unknown.
        grouped_by: The rule that told them, if a user gave one; of a table its name alone.
        targets: Soft labels, (n, num_classes), float32, rows that sum to 1; None if unknown.
        parts: "train", "validation" or "test" for each picture where that is given; else None.
        types: A further property of each picture (ELPV: "mono" or "poly"); None if unknown.
        problems: Files that were left out, and why.
        duplicates: Clusters of indices of pictures that are the same or nearly so.
    """

    name: str
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    digests: tuple[str, ...]
    files: tuple[str, ...]
    source: Source = field(repr=False)
    groups: NDArray[np.int64] | None = None
    grouped_by: str = ""
    targets: NDArray[np.float32] | None = None
    parts: tuple[str, ...] | None = None
    types: tuple[str, ...] | None = None
    problems: tuple[Problem, ...] = ()
    duplicates: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 without labels."""
        return len(self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over digests, labels and class names, in order."""
        lines = [
            *self.class_names,
            *(f"{d} {y}" for d, y in zip(self.digests, self.labels, strict=True)),
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @property
    def conflicting_duplicates(self) -> tuple[tuple[int, ...], ...]:
        """The clusters of duplicates whose pictures carry different labels."""
        return tuple(c for c in self.duplicates if len(np.unique(self.labels[list(c)])) > 1)

    def read(self, index: int, *, mode: Mode = "RGB", verify: bool = False) -> NDArray[np.uint8]:
        """Read one picture.

        Args:
            index: Its position, 0 <= index < len(self).
            mode: "RGB" or "L".
            verify: Whether it must be the picture that `digests` tells of; of a file only.

        Returns:
            Pixels, (height, width, 3) or (height, width, 1), uint8.

        Raises:
            ImageError: If its file has gone bad since the data set was made, or has changed.
        """
        return self.source.read(index, mode, digest=self.digests[index] if verify else None)

    def subset(self, indices: ArrayLike) -> "ImageDataset":
        """Keep some of the pictures.

        Args:
            indices: Positions of the pictures to keep, (m,), in the wanted order, each once.

        Returns:
            A data set of m pictures; clusters of duplicates keep the members that remain.

        Raises:
            ValueError: If an index is named twice.
        """
        keep = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(np.unique(keep)) < len(keep):
            raise ValueError("indices must name each picture once, got repeated ones.")
        new = {old: position for position, old in enumerate(keep.tolist())}
        clusters = (tuple(sorted(new[i] for i in c if i in new)) for c in self.duplicates)
        return replace(
            self,
            labels=self.labels[keep],
            digests=_take(self.digests, keep),
            files=_take(self.files, keep),
            source=self.source.subset(keep),
            groups=None if self.groups is None else self.groups[keep],
            targets=None if self.targets is None else self.targets[keep],
            parts=None if self.parts is None else _take(self.parts, keep),
            types=None if self.types is None else _take(self.types, keep),
            duplicates=tuple(sorted(c for c in clusters if len(c) > 1)),
        )

    @classmethod
    def from_arrays(
        cls,
        images: NDArray[np.uint8],
        labels: ArrayLike,
        *,
        class_names: Sequence[str],
        name: str = "arrays",
        near_duplicates: bool = True,
    ) -> "ImageDataset":
        """Make a data set of pictures that are already in memory.

        Args:
            images: Pixels, (n, height, width) or (n, height, width, 3 | 1), uint8; not copied.
            labels: The class of each picture, (n,), 0 <= label < len(class_names).
            class_names: The classes, in the order of their numbers.
            name: What the data set is called.
            near_duplicates: Whether to look for near duplicates; equal ones are always found.

        Returns:
            The data set; its files are called "0", "1" and so on.

        Raises:
            ValueError: If shapes, dtype or labels do not fit.
        """
        images, labels = np.asarray(images), np.asarray(labels)
        check_arrays(images, labels, len(class_names))
        images = images[..., np.newaxis] if images.ndim == 3 else images
        source = Arrays(images, np.arange(len(images)))
        digests = tuple(array_digest(image) for image in images)
        hashes = (
            [hash_picture(image) for image in images] if near_duplicates else [None] * len(images)
        )
        return cls(
            name=name,
            class_names=tuple(class_names),
            labels=labels.astype(np.int64),
            digests=digests,
            files=tuple(str(i) for i in range(len(images))),
            source=source,
            duplicates=find_duplicates(digests, hashes, lambda i: source.read(i, "RGB")),
        )


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set dealt out to training, validation and test.

    Attributes:
        train: For fitting.
        validation: For choosing; may be empty if its fraction is 0.
        test: For the final number, and nothing else.
        indices: Positions in the whole data set, ascending, by "train", "validation", "test".
        seed: What decided the order of dealing.
        strategy: "stratified" or "grouped"; "given" where the data set's parts decided,
            "given-grouped" where groups were to be minded, too.
        straddling: Clusters of duplicates that given parts tear apart; empty otherwise.
        fold: Its number from 0, and how many there are, if it is one fold of a cross-validation.
        asked: Its `test_fraction`, `validation_fraction` and `folds`, as far as they were given.
    """

    train: ImageDataset
    validation: ImageDataset
    test: ImageDataset
    indices: dict[str, NDArray[np.int64]]
    seed: int
    strategy: str
    straddling: tuple[tuple[int, ...], ...] = ()
    fold: tuple[int, int] | None = None
    asked: Mapping[str, float] = field(default_factory=dict)

    @property
    def keeps_groups(self) -> bool:
        """Whether pictures of one group are together, or count as one where given parts decide."""
        return "grouped" in self.strategy

    @property
    def num_torn(self) -> int:
        """Groups with pictures in several parts, as only given parts have them."""
        return count_torn(map(self.groups_of, (self.train, self.validation, self.test)))

    def groups_of(self, part: ImageDataset) -> NDArray[np.int64] | None:
        """The groups of a part's pictures, (n,), if this split minds them."""
        return part.groups if self.keeps_groups else None


def load(name: str, *, threshold: float = 0.5, part: str = "all") -> ImageDataset:
    """Load a known data set; its files are fetched the first time.

    Args:
        name: "elpv" (2,624 pictures of solar cells, 300 x 300, two classes; Deitsch et al., Solar
            Energy 185, 2019, arXiv 1807.02894), "mnist" (70,000 digits, 28 x 28; LeCun et al.,
            Proceedings of the IEEE 86, 1998) or "fashion-mnist" (70,000 articles of clothing, 28 x
            28; Xiao et al. 2017, arXiv 1708.07747).
        threshold: ELPV: a cell is defective if its probability p of a defect is greater than
            this. Soft labels (1 - p, p) are in `targets`, p stretched so that the threshold lies
            at 1/2, and blocks of 60 cells that follow each other, which share modules, in `groups`.
        part: MNIST and Fashion-MNIST: "train", "test" or "all"; `parts` has the official ones.

    Returns:
        The data set.

    Raises:
        ValueError: If the name is unknown, or an argument does not fit the data set.
        AssetError: If its files are neither here nor to be had.
    """
    if name == "elpv":
        if part != "all":
            raise ValueError(f"ELPV has no official parts, so part must be 'all', got {part!r}.")
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be at least 0 and less than 1, got {threshold}.")
        return _load_elpv(assets.fetch("elpv"), threshold)
    if name in idx.CLASS_NAMES:
        return _load_idx(name, part)
    raise ValueError(
        f"There is no data set {name!r}; expected one of {', '.join(NAMES)}, or use from_directory "
        "for a folder of your own."
    )


def from_directory(
    path: str | Path,
    *,
    strict: bool = False,
    min_images_per_class: int = 4,
    labels: bool = True,
    groups: StrPath | Mapping[str, Any] | None = None,
) -> ImageDataset:
    """Read a folder of pictures: a sub-folder for each class, pictures anywhere below it.

    Use it for pictures of one's own. If all sub-folders are called train, validation (val, valid)
    and test, each of them holds the class folders and the names go to `parts`. Every visible file
    is opened once, whatever its suffix; what does not decode, or is under 8 pixels a side, is left
    out and named in `problems`. Hidden files and usual companions of pictures (.txt, .csv, .json
    and the like) are passed over. The order is that of the sorted names, on every machine.

    Args:
        path: The folder.
        strict: Whether to stop at bad files instead of leaving them out.
        min_images_per_class: The fewest readable pictures that make a class (in all parts).
        labels: Whether sub-folders are classes; if not, pictures may lie anywhere, there are no
            class names, and all labels are 0.
        groups: What tells which pictures belong together (see `split`): as `groupings.read_rule`
            says, a regular expression for names such as `cats/tom_1.jpg`, a table or a mapping.

    Returns:
        The data set; nothing of it is kept in memory but names and digests.

    Raises:
        ValueError: If there is no such folder, its layout is none of the above, it has fewer than
            two classes, a class is too small, the groups cannot be told, or, with `strict`, a file
            is bad.
    """
    root, num_threads = Path(path), os.cpu_count() or 1
    rule = None if groups is None else read_rule(groups)  # so that its mistakes show soon
    scan = scan_folder(
        root,
        classes=labels,
        strict=strict,
        min_images=min_images_per_class,
        num_threads=num_threads,
    )
    files = tuple(picture.file for picture in scan.pictures)
    digests = tuple(picture.digest for picture in scan.pictures)
    parts = tuple(picture.part for picture in scan.pictures)
    numbers = {name: number for number, name in enumerate(scan.class_names or ("",))}
    source = Files(tuple(picture.path.absolute() for picture in scan.pictures), files)
    return ImageDataset(
        name=root.resolve().name,
        class_names=scan.class_names,
        labels=np.array([numbers[picture.class_name] for picture in scan.pictures], dtype=np.int64),
        digests=digests,
        files=files,
        source=source,
        groups=None if rule is None else rule.number(files),
        grouped_by="" if rule is None else rule.name,
        parts=parts if all(parts) else None,
        problems=scan.problems,
        duplicates=find_duplicates(
            digests,
            [picture.hash for picture in scan.pictures],
            lambda i: source.read(i, "RGB"),
            num_threads=num_threads,
        ),
    )


def split(
    dataset: ImageDataset,
    *,
    test_fraction: float = 0.25,
    validation_fraction: float = 0.15,
    seed: int = 0,
    strategy: Literal["stratified", "grouped"] = "stratified",
) -> Splits:
    """Deal a data set out to training, validation and test, without leaks.

    Use it before anything is fitted. Duplicates always stay together; with "grouped", so do
    pictures of one group. Every part gets its share of every class: exactly (to one picture) if
    nothing must stay together, else as nearly as whole units allow. The same data set and seed
    give the same split, on every machine. If the data set brings its own `parts` they win: what is
    missing of validation and test is dealt from the training part, by the same rules, and
    duplicates that the given parts tear apart are named in `straddling`.

    Args:
        dataset: What to deal out.
        test_fraction: Share of the test part, of all pictures, 0 < test_fraction < 1.
        validation_fraction: Share of the validation part, of all pictures; 0 for none.
        seed: Decides the order of dealing.
        strategy: "stratified" by class, or "grouped" to also keep `dataset.groups` together.

    Returns:
        The three parts and their positions.

    Raises:
        ValueError: If a fraction or the strategy is unknown, groups are wanted but not known, a
            part would be empty, or a class would be missing in training.
    """
    _check_split(dataset, test_fraction, validation_fraction, strategy)
    units = merge_units(
        len(dataset), dataset.duplicates, dataset.groups if strategy == "grouped" else None
    )
    given = dataset.parts or ("train",) * len(dataset)
    parts = np.array([_PARTS.index(part) for part in given], dtype=np.int64)
    wanted = {"validation": validation_fraction, "test": test_fraction}
    # Given parts are left as they are: only what they lack is dealt out, from the training part.
    missing = {name: share for name, share in wanted.items() if name not in given and share > 0}
    if missing:
        pool = np.flatnonzero(parts == 0)
        shares = tuple(share * len(dataset) / max(len(pool), 1) for share in missing.values())
        counts = np.bincount(dataset.labels[pool], minlength=max(dataset.num_classes, 1))
        dealt = deal_units(
            np.unique(units[pool], return_inverse=True)[1],
            dataset.labels[pool],
            class_quotas(counts, shares),
            seed,
        )
        parts[pool] = np.array([0, *map(_PARTS.index, missing)])[dealt]
    _check_parts(dataset, parts, validation_fraction)
    indices = {name: np.flatnonzero(parts == i) for i, name in enumerate(_PARTS)}
    straddling = tuple(c for c in dataset.duplicates if len(np.unique(parts[list(c)])) > 1)
    if straddling:
        _LOGGER.warning("%d clusters of duplicates straddle the given parts.", len(straddling))
    found = Splits(
        train=dataset.subset(indices["train"]),
        validation=dataset.subset(indices["validation"]),
        test=dataset.subset(indices["test"]),
        indices=indices,
        seed=seed,
        strategy=_GIVEN[strategy] if dataset.parts else strategy,
        straddling=straddling,
        asked={"test_fraction": test_fraction, "validation_fraction": validation_fraction},
    )
    if torn := found.num_torn:
        _LOGGER.warning("%d of the groups straddle the given parts, which flatters.", torn)
    return found


def make_shapes(
    num_images: int, *, image_size: int = 32, num_classes: int = 3, seed: int = 0
) -> ImageDataset:
    """Draw a data set of coloured shapes over noisy backgrounds.

    Use it for tests and lessons: it needs no download, and a small network learns it.

    Args:
        num_images: How many pictures; the classes take turns.
        image_size: Height and width in pixels, at least 8.
        num_classes: How many shapes, 2 to 8: circle, square, triangle, cross, ring, bar, pole,
            diamond.
        seed: Decides places, sizes, colours and noise.

    Returns:
        The data set, in memory, (num_images, image_size, image_size, 3), uint8.

    Raises:
        ValueError: If an argument is out of range.
    """
    if num_images < 1 or image_size < 8 or not 2 <= num_classes <= len(SHAPE_NAMES):
        raise ValueError(
            f"make_shapes needs num_images >= 1, image_size >= 8 and num_classes from 2 to "
            f"{len(SHAPE_NAMES)}, got {num_images}, {image_size} and {num_classes}."
        )
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % num_classes
    images = np.stack([draw_shape(SHAPE_NAMES[label], image_size, rng) for label in labels])
    return ImageDataset.from_arrays(
        images,
        labels,
        class_names=SHAPE_NAMES[:num_classes],
        name="shapes",
        near_duplicates=False,
    )


def _take(items: tuple[str, ...], indices: NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(items[i] for i in indices)


def _load_elpv(folder: Path, threshold: float) -> ImageDataset:
    files, probability, types = elpv.read_table(folder)
    paths = tuple(folder / file for file in files)
    return ImageDataset(
        name="elpv",
        class_names=elpv.CLASS_NAMES,
        labels=(probability > threshold).astype(np.int64),
        digests=tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths),
        files=files,
        source=Files(paths, files),
        groups=np.arange(len(files)) // elpv.BLOCK,
        targets=elpv.soft_targets(probability, threshold),
        types=types,
        # find_duplicates finds no copies here, and the files are pinned by their hashes, so the
        # search is not made at each load (a test repeats it). Wafers sawn from one brick do look
        # alike, up to their grain; they are different cells, mostly within a block.
        duplicates=(),
    )


def _load_idx(name: str, part: str) -> ImageDataset:
    idx.check_part(part)
    images, labels, parts = idx.read_part(assets.fetch(name), part)
    # Digits or shirts are nearly the same by nature.
    dataset = ImageDataset.from_arrays(
        images, labels, class_names=idx.CLASS_NAMES[name], name=name, near_duplicates=False
    )
    return replace(dataset, parts=parts)


def _check_split(
    dataset: ImageDataset, test_fraction: float, validation_fraction: float, strategy: str
) -> None:
    if strategy not in ("stratified", "grouped"):
        raise ValueError(f"strategy must be 'stratified' or 'grouped', got {strategy!r}.")
    total = test_fraction + validation_fraction
    if not (test_fraction > 0 and validation_fraction >= 0 and total < 1):
        raise ValueError(
            "test_fraction must be positive, validation_fraction not negative, and their sum less "
            f"than 1, got {test_fraction} and {validation_fraction}."
        )
    if strategy == "grouped" and dataset.groups is None:
        raise ValueError(
            f"Data set '{dataset.name}' has no groups, so strategy 'grouped' cannot be used; say "
            "which pictures belong together (groups, --groups), or use 'stratified'."
        )


def _check_parts(
    dataset: ImageDataset, parts: NDArray[np.int64], validation_fraction: float
) -> None:
    expected = [i for i, name in enumerate(_PARTS) if name != "validation" or validation_fraction]
    names = dataset.class_names or ("pictures",)
    for part in expected:
        present = np.unique(dataset.labels[parts == part])
        lacking = [name for label, name in enumerate(names) if label not in present]
        if len(present) == 0 or (lacking and part == 0):
            raise ValueError(
                f"Data set '{dataset.name}' ({len(dataset)} pictures) cannot be split: the "
                f"{_PARTS[part]} part would have no picture of {', '.join(lacking[:5])}, because "
                "there are too few that need not stay together; add pictures or change the "
                "fractions."
            )
        if lacking:
            _LOGGER.warning("The %s part has no picture of %s.", _PARTS[part], ", ".join(lacking))
