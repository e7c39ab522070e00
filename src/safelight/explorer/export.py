"""`export_web`: a run becomes a folder that any web host, or a disk, can serve."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from safelight import __version__, assets, datasets
from safelight.bundles import with_folder
from safelight.datasets import ImageDataset
from safelight.explorer import packing, points
from safelight.explorer.folders import ENTRY, MARK, PAGE, check_target
from safelight.explorer.onnx_graph import decoder_graph
from safelight.explorer.points import Points
from safelight.files import StrPath
from safelight.generative import pictures
from safelight.runs import Run
from safelight.vae import experiment
from safelight.vae.latent_paths import units_by_kl
from safelight.vae.models import VAE

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
        run_path: The folder of a run that `vae train` made.
        folder: To be made; an earlier export there is replaced if `overwrite` is true.
        dataset: What the run was trained on; by default it is read from where it was then.
        num_points: Training pictures to show, at most.
        overwrite: Whether to replace an earlier export.
        progress: Called with (stage, done, total, words).

    Returns:
        The page, `index.html` in the folder.

    Raises:
        ValueError: The folder is taken, the run has no model or is none of an autoencoder, its
            pictures are not where they were, or its decoder has layers without translation.
        AssetError: onnxruntime-web is not in the cache and cannot be had.
    """
    check_target(folder, overwrite=overwrite)
    run = Run.open(run_path)
    experiment.settings_of(run)
    tell: Progress = progress or (lambda *_: None)
    fetched = assets.fetch(
        "onnxruntime-web", progress=lambda step, done, total: tell(step, done, total, "")
    )
    model = experiment.load_vae(run)
    shown = None
    if num_points:
        shown = points.find_points(
            run,
            model,
            find_dataset(run) if dataset is None else dataset,
            num_points,
            progress=lambda done, total: tell("reading", done, total, ""),
        )
    content = describe(run, model, shown)
    with_folder(Path(folder), lambda work: _fill(work, model, content, fetched))
    return Path(folder) / ENTRY


def find_dataset(run: Run) -> ImageDataset:
    """The data set that a run was trained on, read from where it was then.

    Raises:
        ValueError: It is not there any more.
    """
    source = str(run.config["dataset"]["source"] or "")
    if source in ("elpv", "mnist"):
        return datasets.load(source)
    place = pictures.source_folder(run, source)
    if place is None:
        raise ValueError(
            f"the pictures of {run.config['dataset']['name']} are not where {run.path} was "
            "trained on them: pass them as dataset, or num_points=0 for a page without them."
        )
    return datasets.from_directory(place, labels=bool(points.class_names(run)))


def describe(run: Run, model: VAE, shown: Points | None) -> dict[str, Any]:
    """Everything that the page knows of a model but its decoder, as JSON can say it.

    Args:
        run: Trained.
        model: Its model.
        shown: Training pictures, or `None` for a page without them.
    """
    seed = experiment.settings_of(run).seed
    drawn = points.draw_from_prior(model, seed=seed)
    ends = points.ranges(model, None if shown is None else shown.means)
    kl = _nats(run, model, shown)
    found: dict[str, Any] = {
        "version": __version__,
        "dataset": str(run.config["dataset"]["name"]),
        "image_shape": model.image_shape,
        "likelihood": model.likelihood.name,
        "class_names": points.class_names(run),
        "conditional": bool(model.num_classes),
        "prior": type(model.prior).__name__,
        "second_units": model.latent_dim - model.visible_dim,
        "kl": kl.tolist(),
        "order": units_by_kl(kl).tolist(),
        "ranges": packing.pack_array(ends),
        "draws": None if drawn is None else packing.pack_array(drawn),
        "points": None,
    }
    if shown is not None:
        found["points"] = _pack_points(shown, conditional=bool(model.num_classes))
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


def _nats(run: Run, model: VAE, shown: Points | None) -> np.ndarray:
    """What each unit holds: as the run was judged, else by the pictures shown, else unknown, 0."""
    judged = run.metrics.get("kl_per_unit") if run.finished else None
    try:
        kl = np.asarray(judged or [], "float64")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{run.path / 'metrics.json'}: kl_per_unit is damaged ({error})."
        ) from error
    if kl.ndim == 1 and len(kl) >= model.visible_dim and np.isfinite(kl).all():
        return kl[: model.visible_dim]
    return np.zeros(model.visible_dim) if shown is None else shown.kl


def _fill(folder: Path, model: VAE, content: dict[str, Any], fetched: Path) -> None:
    graph = decoder_graph(model.decoder, model.likelihood.name).SerializeToString()
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
