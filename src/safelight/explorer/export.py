"""`export_web`: a run becomes a folder that any web host, or a disk, can serve."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from safelight import __version__, assets, datasets
from safelight.datasets import ImageDataset
from safelight.explorer import packing, points
from safelight.explorer.folders import ENTRY, MARK, PAGE, check_target, fill_target
from safelight.explorer.onnx_graph import decoder_graph
from safelight.explorer.points import Points
from safelight.explorer.subjects import Subject, check_kind, find_subject
from safelight.files import StrPath
from safelight.generative import pictures
from safelight.runs import Run
from safelight.vae.latent_paths import units_by_kl

Progress = Callable[[str, int, int, str], None]

_RUNTIME = {
    "runtime.mjs": "ort.wasm.bundle.min.mjs",
    "runtime.wasm": "ort-wasm-simd-threaded.wasm",
}
NUM_POINTS = 2_000
# The decoder is there twice, for servers and for disks, as long as the folder stays below that.
MAX_BYTES = 15_000_000


def export_web(
    run_path: StrPath,
    folder: StrPath,
    *,
    dataset: ImageDataset | None = None,
    num_points: int = NUM_POINTS,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Writes a page in which the latent space of a run can be walked, decoded while one drags.

    The folder needs no server of ours: `python -m http.server` in it, any web host, and for
    decoders that are not large a double click on `index.html`. It loads nothing from elsewhere.
    Training pictures are part of the page: with `num_points=0` it has none.

    Args:
        run_path: The folder of a run that `vae train` or `gan train` made.
        folder: To be made; an earlier export there is replaced if `overwrite` is true.
        dataset: What the run was trained on; by default it is read from where it was then.
        num_points: Training pictures to show, at most; a GAN without an encoder has no place for
            any.
        overwrite: Whether to replace an earlier export.
        progress: Called with (stage, done, total, words).

    Returns:
        The page, `index.html` in the folder.

    Raises:
        ValueError: The folder is taken, the run has no model or is none of an autoencoder or a GAN,
            its pictures are not where they were, or its decoder has layers without translation.
        AssetError: onnxruntime-web is not in the cache and cannot be had.
    """
    check_target(folder, overwrite=overwrite)
    run = Run.open(run_path)
    check_kind(run)
    tell: Progress = progress or (lambda *_: None)
    fetched = assets.fetch(
        "onnxruntime-web", progress=lambda step, done, total: tell(step, done, total, "")
    )
    subject = find_subject(run)
    shown = None
    if num_points and subject.encode is not None:
        shown = points.find_points(
            subject,
            find_dataset(run) if dataset is None else dataset,
            num_points,
            progress=lambda done, total: tell("reading", done, total, ""),
        )
    content = describe(subject, shown)
    fill_target(folder, lambda work: _fill(work, subject, content, fetched), overwrite=overwrite)
    return Path(folder) / ENTRY


def find_dataset(run: Run) -> ImageDataset:
    """The data set that a run was trained on, read from where it was then.

    Raises:
        ValueError: It is not there any more.
    """
    source = str(run.config["dataset"]["source"] or "")
    if source in datasets.NAMES:
        return datasets.load(source)
    place = pictures.source_folder(run, source)
    if place is None:
        raise ValueError(
            f"the pictures of {run.config['dataset']['name']} are not where {run.path} was "
            "trained on them: pass them as dataset, or num_points=0 for a page without them."
        )
    return datasets.from_directory(place, labels=bool(points.class_names(run)))


def describe(subject: Subject, shown: Points | None) -> dict[str, Any]:
    """Everything that the page knows of a model but its decoder, as JSON can say it.

    Args:
        subject: The model.
        shown: Training pictures, or `None` for a page without them.
    """
    run, change = subject.run, subject.change
    ends = points.ranges(subject, None if shown is None else shown.means)
    worth = _nats(subject, shown) if change is None else change
    found: dict[str, Any] = {
        "version": __version__,
        "dataset": str(run.config["dataset"]["name"]),
        "image_shape": subject.image_shape,
        "likelihood": subject.likelihood,
        "class_names": points.class_names(run),
        "conditional": bool(subject.num_classes),
        "prior": subject.prior,
        "second_units": subject.hidden_units,
        "kl": worth.tolist() if change is None else None,
        "change": None if change is None else change.tolist(),
        "order": units_by_kl(worth).tolist(),
        "ranges": packing.pack_array(ends),
        "draws": None if subject.draws is None else packing.pack_array(subject.draws),
        "points": None,
    }
    if shown is not None:
        found["points"] = _pack_points(shown, conditional=bool(subject.num_classes))
    return found


def _pack_points(shown: Points, *, conditional: bool) -> dict[str, Any]:
    return {
        "means": packing.pack_array(shown.means),
        "labels": None if shown.labels is None else packing.pack_array(shown.labels),
        "thumbnails": packing.thumbnails(shown.images),
        "directions": [
            {
                "name": direction.name,
                "axis": packing.pack_array(direction.axis),
                "middle": packing.pack_array(direction.middle),
            }
            for direction in points.find_directions(shown, conditional=conditional)
        ],
    }


def _nats(subject: Subject, shown: Points | None) -> np.ndarray:
    """What each unit holds: as the run was judged, else by the pictures shown, else unknown, 0."""
    run, units = subject.run, subject.num_units
    judged = run.metrics.get("kl_per_unit") if run.finished else None
    try:
        kl = np.asarray(judged or [], "float64")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{run.path / 'metrics.json'}: kl_per_unit is damaged ({error})."
        ) from error
    if kl.ndim == 1 and len(kl) >= units and np.isfinite(kl).all():
        return kl[:units]
    return np.zeros(units) if shown is None else shown.kl


def _fill(folder: Path, subject: Subject, content: dict[str, Any], fetched: Path) -> None:
    graph = decoder_graph(subject.network, subject.likelihood).SerializeToString()
    runtime = {
        name: packing.packed((fetched / file).read_bytes()) for name, file in _RUNTIME.items()
    }
    page = Path(__file__).with_name("page")
    for name in PAGE:
        shutil.copyfile(page / name, folder / name)
    texts = {
        "runtime.js": packing.script(runtime),
        "data.js": packing.script({"data": content}),
        "LICENCES.txt": _licences(),
        MARK: json.dumps({"version": __version__}),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8", newline="\n")
    (folder / "decoder.onnx").write_bytes(graph)
    copy = packing.script({"decoder.onnx": packing.packed(graph)})
    used = sum(path.stat().st_size for path in folder.iterdir())
    if used + len(copy) > MAX_BYTES:
        copy = "// Too large to be here twice: decoder.onnx needs a server.\n"
    (folder / "decoder.js").write_text(copy, "utf-8", newline="\n")


def _licences() -> str:
    row = assets.ASSETS["onnxruntime-web"]
    return (
        (Path(__file__).with_name("page") / "licences.txt")
        .read_text("utf-8")
        .format(attribution=row.attribution, version=row.sources[0].version)
    )
