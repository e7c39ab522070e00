"""`export_classifier`: a trained classifier becomes a folder that needs nothing of ours.

model.onnx             the model (in another format: see `formats`)
safelight-model.json   classes, what the model takes and gives, its numbers, and how it compares
predict.py, images.py  for ONNX: answer picture files with onnxruntime, NumPy and Pillow alone
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from safelight import __version__, images, known_pictures
from safelight.credits import tell_licences
from safelight.datasets import ImageDataset
from safelight.export import onnx_files
from safelight.export.folders import MARK, READER, SCRIPT, check_target, fill_target
from safelight.export.formats import Format, check_format
from safelight.export.parity import (
    NUM_PICTURES,
    TOLERANCE,
    Parity,
    check_parity,
    compare_answers,
)
from safelight.export.resizing import build_exportable
from safelight.export.runtimes import open_exported
from safelight.files import StrPath, write_text
from safelight.images import ImageError
from safelight.runs import Run, to_json
from safelight.telemetry import import_openvino
from safelight.transfer import backbones, experiment
from safelight.transfer.config import TrainConfig
from safelight.transfer.prediction import Predictor

NUM_SCALED_ON = 100
Progress = Callable[[str, int, int, str], None]


def export_classifier(
    run_path: StrPath,
    folder: StrPath,
    *,
    dataset: ImageDataset | None,
    to: str = "onnx",
    num_pictures: int = NUM_PICTURES,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Parity | None:
    """Writes a classifier for another program, and lets both answer the same pictures.

    Preprocessing, calibration and averaging over views are part of the model.

    Args:
        run_path: The folder of a run that `transfer train` made.
        folder: To be made; an earlier export there is replaced if `overwrite` is true.
        dataset: Pictures with the run's classes; those that the run has learned from are left out
            of the comparison. `None` compares on two drawn pictures alone.
        to: The format, a row of `formats.FORMATS`. `"onnx-int8"` is smaller and a little less
            accurate: how much is in the result.
        num_pictures: To compare on, at most.
        overwrite: Whether to replace an earlier export.
        progress: Called with (stage, done, total, words).

    Returns:
        How the exported model's answers compare; `None` without pictures.

    Raises:
        ValueError: The folder is taken, the run has no model, the format cannot be written here,
            cannot say this network, or answers otherwise than the original (see `check_parity`).
    """
    check_target(folder, overwrite=overwrite)
    row = check_format(to, keras.backend.backend())
    if num_pictures < 0:
        raise ValueError(f"num_pictures={num_pictures}: expected 0 or more.")
    run = Run.open(run_path)
    settings = experiment.settings_of(run)
    about = _about(run, settings)
    learned = _pictures_to_scale_on(run, dataset) if row.int8 else None
    unseen = choose_pictures(run, dataset, num_pictures) if dataset and num_pictures else None
    tell: Progress = progress or (lambda *_: None)
    classifier = experiment.load_classifier(run)
    found: list[Parity | None] = []

    def fill(work: Path) -> None:
        with _said(row):
            write_model(build_exportable(classifier), work, row)
            if row.is_onnx:
                _finish_onnx(work / row.file, about["class_names"], learned, tell)
            exported = open_exported(work, row.name)
        found.append(_compare(classifier, exported, row, unseen, tell))
        write_text(work / MARK, to_json({**describe(classifier, row, found[0]), **about}))

    fill_target(folder, fill, overwrite=overwrite)
    return found[0]


def _pictures_to_scale_on(run: Run, dataset: ImageDataset | None) -> ImageDataset:
    if dataset is None:
        raise ValueError(
            "8 bits need pictures to be scaled on: pass the data set that the run was trained on."
        )
    return _spread(experiment.learned_part(run, dataset), NUM_SCALED_ON)


def choose_pictures(run: Run, dataset: ImageDataset, num_pictures: int) -> ImageDataset:
    """Pictures that the run has not learned from, at most so many, evenly over the data set."""
    return _spread(experiment.unseen_part(run, dataset)[0], num_pictures)


def _spread(dataset: ImageDataset, number: int) -> ImageDataset:
    """So many pictures, evenly over all, or all where they are fewer."""
    return dataset.subset(np.linspace(0, len(dataset) - 1, min(number, len(dataset))).astype(int))


def write_model(model: keras.Model, folder: Path, row: Format) -> None:
    """Writes a model as from `build_exportable` in a format, for any batch and size of pictures.

    Args:
        model: The model.
        folder: It exists.
        row: The format; it can be written here.
    """
    if row.is_onnx:
        onnx_files.write(model, folder / row.file)
        return
    shape = (None, None, None, model.input_shape[-1])
    signature = [keras.InputSpec(shape=shape, dtype="uint8", name=onnx_files.INPUT)]
    model.export(
        str(folder / row.file),
        format=row.keras_name,
        verbose=False,
        input_signature=signature,
        **_options(row),
    )


def _options(row: Format) -> dict[str, Any]:
    """What a format wants beside the model."""
    if row.name == "torch":
        import torch

        return {"dynamic_shapes": dict.fromkeys((0, 1, 2), torch.export.Dim.DYNAMIC)}
    if row.name == "openvino":
        import_openvino()  # before Keras does
    if row.name == "litert":
        import tensorflow as tf

        # Else operations of TensorFlow itself are let in, which no small machine has.
        return {"target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}}
    return {}


def describe(classifier: keras.Model, row: Format, found: Parity | None) -> dict[str, Any]:
    """What an exported model takes and gives, and how it compares."""
    entrance = backbones.find_resizing(classifier)
    return {
        "safelight_export": 1,
        "version": __version__,
        "format": row.name,
        "file": row.file,
        "precision": "int8" if row.int8 else "float32",
        "input": {
            "name": onnx_files.INPUT,
            "dtype": "uint8",
            "shape": ["batch", "any", "any", classifier.input_shape[-1]],
        },
        "output": {"name": onnx_files.OUTPUT, "shape": ["batch", classifier.output_shape[-1]]},
        "image_size": [entrance.height, entrance.width],
        "parity": None if found is None else found.to_dict(),
    }


def _about(run: Run, settings: TrainConfig) -> dict[str, Any]:
    """What is to be known of the run beside its model.

    Raises:
        ValueError: Its config.json lacks something.
    """
    known_pictures.digests_of(run, "train")
    try:
        dataset = run.config["dataset"]
        class_names = [str(name) for name in dataset["class_names"]]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{run.path}: config.json is damaged ({error}); train the run again."
        ) from error
    return {
        "class_names": class_names,
        "dataset": dataset.get("name"),
        "fingerprint": dataset.get("fingerprint"),
        "test_accuracy_of_run": run.metrics.get("accuracy") if run.finished else None,
        "licences": tell_licences(
            str(dataset.get("name")), settings.backbone, pretrained=settings.pretrained
        ),
    }


def _finish_onnx(
    path: Path, class_names: list[str], learned: ImageDataset | None, tell: Progress
) -> None:
    if learned is not None:
        onnx_files.quantize(path, learned, progress=lambda a, b: tell("scaling", a, b, ""))
    onnx_files.name_output(path, class_names=class_names)
    script = Path(__file__).with_name("lite.py").read_text(encoding="utf-8")
    write_text(path.with_name(SCRIPT), script.replace("from safelight.images", "from images"))
    reader = Path(images.__file__).read_text(encoding="utf-8")
    write_text(path.with_name(READER), reader)


def _compare(
    classifier: keras.Model,
    exported: Callable[[np.ndarray], np.ndarray],
    row: Format,
    unseen: ImageDataset | None,
    tell: Progress,
) -> Parity | None:
    """On two drawn pictures always, since some converters write what cannot be run."""
    ready = Predictor(classifier)

    def original(image: np.ndarray) -> np.ndarray:
        return ready.answer(image).probabilities[0]

    tolerance = 1.0 if row.int8 else TOLERANCE  # NaN is more than either
    drawn = np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), dtype=np.uint8)
    with _said(row):
        first = compare_answers(drawn, original, exported)
    check_parity(first, row.title, tolerance=tolerance)
    if unseen is None:
        return None
    pictures = (unseen.read(number) for number in range(len(unseen)))
    with _said(row):
        found = compare_answers(
            pictures,
            original,
            exported,
            labels=unseen.labels,
            progress=lambda done: tell("comparing", done, len(unseen), ""),
        )
    check_parity(found, row.title, tolerance=tolerance)
    return found


@contextlib.contextmanager
def _said(row: Format) -> Iterator[None]:
    """Keeps to itself what converters print and warn of; their errors become a sentence."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except (ImageError, OSError):  # a picture that has gone, a full disk
        raise
    except Exception as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{row.title} cannot say this network, or not with the versions installed: {first[0]} "
            "Choose another format."
        ) from error
