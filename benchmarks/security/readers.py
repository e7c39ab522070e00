"""Every reader of Safelight that meets bytes of a stranger, with sound files to begin from.

A reader gets a folder, in which files were changed, and reads and uses what is in it.
"""

from __future__ import annotations

import functools
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from security import models
from security import mutations as change
from security.mutations import Bytes

Files = Mapping[str, bytes]


@dataclass(frozen=True, eq=False)
class Reader:
    """One way in.

    Attributes:
        name: What is read.
        files: Sound files by their names; made once.
        read: Reads and uses a folder that holds them, one of them changed.
        changes: How each file is changed, by its ending; bytes are, if nothing is said.
        errors: What it may raise besides ValueError, by name.
        max_megabytes: Of memory beyond what there was.
    """

    name: str
    files: Callable[[], Files]
    read: Callable[[Path], object]
    changes: Mapping[str, Bytes] = field(default_factory=dict)
    errors: Callable[[], tuple[type[Exception], ...]] = lambda: (ValueError,)
    max_megabytes: float = 300

    def write_case(self, folder: Path, rng: np.random.Generator) -> str:
        """Writes the files, one of them changed, and names it."""
        files = dict(_made(self))
        names = sorted(files)
        name = names[int(rng.integers(len(names)))]
        special = self.changes.get(Path(name).suffix)
        choices = (change.change_bytes, special, special) if special else (change.change_bytes,)
        files[name] = change.one_of(*choices)(rng, files[name])
        for each, content in files.items():
            path = folder / each
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return name


@functools.cache
def _made(reader: Reader) -> Files:
    return reader.files()


# --- pictures


def _pictures() -> Files:
    from PIL import Image

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (24, 31, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a camera"
    made = {
        "a.png": (Image.fromarray(noise), {"exif": exif}),
        "b.jpg": (Image.fromarray(noise[..., :3]), {"exif": exif, "progressive": True}),
        "c.webp": (Image.fromarray(noise), {"lossless": True}),
        "d.bmp": (Image.fromarray(noise[..., :3]), {}),
        "e.tif": (Image.fromarray(noise[..., :3]), {"compression": "tiff_lzw"}),
        "f.gif": (Image.fromarray(noise[..., :3]).quantize(16), {"save_all": True}),
        "g.png": (Image.fromarray(noise[..., 0].astype(np.uint16) * 257), {}),
        "h.tif": (Image.fromarray(noise[..., :3]), {"compression": "jpeg"}),
    }
    return {name: _saved(picture, name, options) for name, (picture, options) in made.items()}


def _saved(picture: Any, name: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    kinds = {"jpg": "JPEG", "tif": "TIFF"}
    ending = name.rpartition(".")[2]
    picture.save(buffer, kinds.get(ending, ending.upper()), **options)
    return buffer.getvalue()


def _read_pictures(folder: Path) -> None:
    from safelight.images import ImageError, read_image

    refused = None
    for path in sorted(folder.iterdir()):
        try:
            pixels = read_image(path)
        except ImageError as error:
            refused = error
            continue
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise AssertionError(f"{pixels.dtype} {pixels.shape}")
    if refused is not None:
        raise refused


def _folder() -> Files:
    rng = np.random.default_rng(1)
    from PIL import Image

    def drawn() -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))

    return {f"photos/{c}/{i}.png": _saved(drawn(), "x.png", {}) for c in "ab" for i in range(5)}


def _read_folder(folder: Path) -> None:
    from safelight.datasets import from_directory

    dataset = from_directory(folder / "photos")
    for problem in dataset.problems:
        if not str(problem).isprintable():
            raise AssertionError(f"{problem!r}")
    if len(dataset) + len(dataset.problems) != 10 or len(dataset.fingerprint) != 64:
        raise AssertionError(f"{len(dataset)} pictures")


# --- runs


def _run() -> Files:
    rng = np.random.default_rng(2)
    names, number = ("cat", "dog"), 12
    probabilities = rng.dirichlet((1, 1), number).round(6)
    rows = ["file,label,prediction,p(cat),p(dog)"]
    for i, (first, second) in enumerate(probabilities):
        rows.append(f"{i}.png,{names[i % 2]},{names[int(second > first)]},{first},{second}")
    ends = {"value": 0.8, "low": 0.6, "high": 0.9}
    config = {
        "safelight_run": 1, "kind": "transfer", "created": "2026-11-26T10:00:00+00:00",
        "dataset": {
            "name": "pets", "fingerprint": "f" * 64, "num_images": 40, "class_names": list(names),
            "problems": ["x.png: truncated"], "duplicates": 1,
            "conflicting_duplicates": [["a", "b"]],
        },
        "split": {
            "strategy": "stratified", "seed": 0, "fold": None,
            "digests": {"train": ["a"] * 20, "validation": ["b"] * 8, "test": ["c"] * 12},
        },
        "settings": {"backbone": "vgg16", "pretrained": True, "seed": 0, "epochs": 3},
    }  # fmt: skip
    counts = {"cat": 6, "dog": 6}
    metrics = {
        **dict.fromkeys(("accuracy", "loss", "balanced_accuracy", "macro_f1", "roc_auc"), ends),
        "num_test": number, "confusion_matrix": [[4, 2], [1, 5]], "class_names": list(names),
        "per_class": [
            {"class_name": name, "support": 6, **dict.fromkeys(("precision", "recall", "f1"), ends)}
            for name in names
        ],
        "calibration": {"ece": 0.1, "ece_before": 0.2, "brier": 0.3, "temperature": 1.5},
        "familiarity": {"refused": {"0.05": ends}, "left_out_auroc": {"cat": 0.9}},
        "data": {
            "num_per_class": counts,
            "num_per_part": {"train": counts, "validation": {}, "test": counts},
            "imbalance": 1.0, "neighbours": None, "straddling": [["1.png", "2.png"]], "doubt": 0.05,
            "suspects": [
                {"file": "3.png", "label": "cat", "prediction": "dog", "probability": 0.01}
            ],
        },
        "protocol": {"dataset": "pets", "split": "stratified", "seed": 0, "intervals": "bootstrap"},
        "seconds": {"head": 1.5},
    }  # fmt: skip
    environment = {
        "safelight": "0.1.0", "commit": "c" * 40, "python": "3.12.1", "backend": "tensorflow",
        "packages": {"keras": "3.15.1"}, "system": "Linux", "machine": "x86_64", "processor": "P",
        "cores": 2, "bfloat16": {"amx_bf16": False, "avx512_bf16": None},
    }  # fmt: skip
    return {
        "run/config.json": json.dumps(config).encode(),
        "run/metrics.json": json.dumps(metrics).encode(),
        "run/environment.json": json.dumps(environment).encode(),
        "run/history.csv": b"epoch,loss,accuracy,val_loss\n1,0.9,0.5,1\n2,0.5,0.75,\n",
        "run/predictions.csv": "\n".join(rows).encode() + b"\n",
    }


def _run_with_pictures() -> Files:
    return {**_run(), "run/pictures/mistakes.png": _pictures()["a.png"]}


_RUN_CHANGES: Mapping[str, Bytes] = {".json": change.change_json, ".csv": change.change_table}


def _read_run(folder: Path) -> None:
    from safelight.runs import Run, list_runs

    for summary in list_runs(folder):
        str(summary)
    run = Run.open(folder / "run")
    names = ("config", "metrics", "environment", "history", "predictions", "pictures")
    models.read_all(functools.partial(getattr, run, name) for name in names)


def _write_report(folder: Path) -> None:
    from safelight.report import write_report

    page = write_report([folder / "run"]).read_text(encoding="utf-8").lower()
    for bad in ("<script", "<svg onload", "<img src=x", "javascript:", "\x1b", "\u202e"):
        if bad in page:
            raise AssertionError(f"{bad!r} is in the page")


def _write_card(folder: Path) -> None:
    from safelight.report import write_model_card

    path, _ = write_model_card(folder / "run")
    _, front, _ = path.read_text(encoding="utf-8").split("---\n", 2)
    for line in front.splitlines():
        plain = line.strip().removeprefix("- ")
        key, _, value = ("a", "", plain) if plain[:1] == '"' else plain.partition(":")
        if not key.replace("_", "").replace("-", "").isalpha() or not _is_json(value):
            raise AssertionError(f"{line!r} is no line of ours")


def _is_json(text: str) -> bool:
    try:
        json.loads(text or "0")
    except ValueError:
        return False
    return True


# --- arrays


def _familiarity() -> Files:
    from safelight.transfer.familiarity import fit_familiarity

    rows = np.random.default_rng(3).random((20, 9))
    return {"familiarity.npz": fit_familiarity(rows, widths=(4, 5)).to_bytes()}


def _read_familiarity(folder: Path) -> None:
    from safelight.transfer.familiarity import Familiarity

    known = Familiarity.read(folder / "familiarity.npz")
    features = np.ones((3, known.references.shape[1]))
    p_values = known.p_values(features)
    known.nearest(features[0], 4)
    if p_values.shape != (3,) or not ((p_values > 0) & (p_values <= 1)).all():
        raise AssertionError(f"{p_values}")


def _references() -> Files:
    rng = np.random.default_rng(4)
    layers = {f"layer/block{i}": rng.random((2, 3, 3, i)).astype("float16") for i in (1, 2)}
    return {"references.npz": models.npz(num_images=np.array(12), **layers)}


def _read_references(folder: Path) -> None:
    from safelight.transfer.references import read_references

    found = read_references(folder)
    for name in found.means if found else ():
        found.other_than(name, [0])


def _density() -> Files:
    rng = np.random.default_rng(5)
    arrays: dict[str, Any] = {"chosen_by": np.array([[1.0, -3.0], [2.0, -2.5]])}
    for name, number in (("gaussian", 1), ("mixture", 2)):
        arrays[f"{name}_weights"] = np.full(number, 1 / number)
        arrays[f"{name}_means"] = rng.normal(size=(number, 3))
        arrays[f"{name}_factors"] = np.stack([np.eye(3)] * number)
    arrays |= {"log_density": np.array([-5.0, -4.0, -3.0]), "gain": np.zeros((2, 3))}
    return {"density.npz": models.npz(**arrays)}


def _read_density(folder: Path) -> None:
    from safelight.vae.densities import FittedDensity

    found = FittedDensity.read(folder / "density.npz")
    with np.errstate(all="ignore"):
        found.mixture.sample(3, seed=0)
        found.gaussian.log_density(np.zeros((2, found.gaussian.latent_dim)))


def _flow() -> Files:
    rng = np.random.default_rng(8)
    arrays: dict[str, Any] = {"sizes": np.array([2, 4]), "shift": np.zeros(3), "scale": np.ones(3)}
    shapes = [(1, 4), (4,), (4, 4), (4,), (4, 4), (4,)] * 2
    arrays |= {f"weight_{i}": rng.normal(size=s).astype("f") for i, s in enumerate(shapes)}
    arrays |= {"log_density": np.array([-5.0, -4.0]), "gain": np.zeros(3)}
    return {"density_flow.npz": models.npz(**arrays)}


def _read_flow(folder: Path) -> None:
    from safelight.vae.fitted_flows import FittedFlow

    found = FittedFlow.read(folder / "density_flow.npz").density
    with np.errstate(all="ignore"):
        found.sample(3, seed=0)
        found.log_density(np.zeros((2, found.latent_dim)))


def _checkpoint() -> Files:
    from safelight.generative.checkpoints import FORMAT

    about = {
        "identity": {"format": FORMAT, "backend": "tensorflow"},
        "epochs": 2, "seconds": {"training": 1.5}, "plan": [[0.0, 1.0]],
        "history": {"loss": [1.0, 0.5]},
    }  # fmt: skip
    arrays = {"state/weights/0": np.ones((3, 4), "float32"), "history/kl": np.zeros((2, 3))}
    return {"checkpoint.npz": models.npz(about=np.array(json.dumps(about)), **arrays)}


def _read_checkpoint(folder: Path) -> None:
    from safelight.generative.checkpoints import FORMAT, load_checkpoint

    load_checkpoint(folder / "checkpoint.npz", {"format": FORMAT, "backend": "tensorflow"})


_ARRAYS: Mapping[str, Bytes] = {".npz": change.change_archive(change.change_array)}


# --- archives and caches


def _archives() -> Files:
    members = [("data/labels.csv", b"a 1 mono\n"), ("data/images/1.png", b"png"), ("x", b"no")]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return {"a.zip": change.pack(members, deflated=True), "b.tgz": buffer.getvalue()}


def _extract(folder: Path) -> None:
    from safelight.asset_sources import RemoteFile, Source, SourceError, extract

    refused = None
    for name, kind in (("a.zip", "zip"), ("b.tgz", "tar")):
        source = Source("url", (RemoteFile(name, "", 0),), unpack=kind, prefix="data/")
        target = folder / f"out-{kind}"
        target.mkdir()
        try:
            extract(source, [folder / name], target, max_bytes=10_000)
        except SourceError as error:
            refused = SourceError(f"{name}: {error}")
        if not all(path.resolve().is_relative_to(folder.resolve()) for path in folder.rglob("*")):
            raise AssertionError("a link leads outside")
    if refused is not None:
        raise refused


def _archive_errors() -> tuple[type[Exception], ...]:
    from safelight.asset_sources import SourceError

    # What the system says of a name that no file can have passes, as an error about the disk.
    return (SourceError, OSError)


def _cache() -> Files:
    import tempfile

    from safelight.transfer.feature_cache import FeatureCache

    with tempfile.TemporaryDirectory() as name:
        cache = FeatureCache(Path(name))
        entry = cache.entry({"network": "n", "layer": "l", "pooling": "avg"}, (3,), "float32")
        entry.append(["a", "b"], np.ones((2, 3), "float32"))
        return {
            f"features/{path.relative_to(name).as_posix()}": path.read_bytes()
            for path in Path(name).rglob("*")
            if path.is_file()
        }


def _read_cache(folder: Path) -> None:
    from safelight.transfer.feature_cache import CacheEntry, CacheError, FeatureCache

    cache = FeatureCache(folder / "features", max_bytes=10**9)
    for summary in cache.entries():
        str(summary)
    refused = None
    for place in sorted(folder.glob("features/*/")):
        entry = CacheEntry(place, (3,), "float32")
        try:
            for digest in ("a", "b"):
                rows = entry.gather([digest] if digest in entry else [])
                if rows.dtype != np.float32 or rows.shape[1:] != (3,):
                    raise AssertionError(f"{rows.dtype} {rows.shape}")
        except (ValueError, CacheError) as error:
            refused = error
    cache.verify()
    if refused is not None:
        raise refused


def _cache_errors() -> tuple[type[Exception], ...]:
    from safelight.transfer.feature_cache import CacheError

    return (ValueError, CacheError)


READERS: tuple[Reader, ...] = (
    Reader("pictures", _pictures, _read_pictures, max_megabytes=1500),
    Reader("folder of pictures", _folder, _read_folder, max_megabytes=1500),
    Reader("run folder", _run, _read_run, _RUN_CHANGES),
    Reader("report", _run_with_pictures, _write_report, _RUN_CHANGES),
    Reader("model card", _run, _write_card, _RUN_CHANGES),
    Reader("familiarity.npz", _familiarity, _read_familiarity, _ARRAYS),
    Reader("references.npz", _references, _read_references, _ARRAYS),
    Reader("density.npz", _density, _read_density, _ARRAYS),
    Reader("density_flow.npz", _flow, _read_flow, _ARRAYS),
    Reader("checkpoint.npz", _checkpoint, _read_checkpoint, _ARRAYS),
    Reader("model.keras (our look)", models.model_parts, models.check, models.CHANGES),
    Reader("model.keras (Keras)", models.saved_model, models.load, models.CHANGES),
    Reader("run of a GAN", models.gan_run, models.read_gan_run, {**_RUN_CHANGES, **models.CHANGES}),
    Reader("weight files", models.weight_files, models.read_weights, _ARRAYS),
    Reader(
        "archives",
        _archives,
        _extract,
        {".zip": change.change_archive(change.change_bytes)},
        _archive_errors,
    ),
    Reader("feature cache", _cache, _read_cache, {".json": change.change_json}, _cache_errors),
)
