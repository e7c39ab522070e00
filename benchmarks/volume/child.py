"""One measurement in a process of its own: called with a JSON object, prints another.

python benchmarks/volume/child.py '{"what": "predict", "num_images": 1000, "work": "..."}'
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contextlib
import dataclasses
import functools
import hashlib
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

NUM_FILES = 1000  # written to the disk; longer lists name them again and again
SIDE = 32


def peak_mib() -> float:
    """The largest resident memory of this process until now, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_pictures(folder: Path, side: int) -> list[Path]:
    """Soft coloured noise as PNG, the same whenever it is asked for."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04d}.png" for number in range(NUM_FILES)]
    for number, path in enumerate(paths):
        if not path.exists():
            noise = np.random.default_rng(number).integers(
                0, 256, (side // 4, side // 4, 3), np.uint8
            )
            Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC).save(path)
    return paths


def build_small() -> Any:
    """Two convolutions: what is measured is everything else."""
    import keras

    from safelight.transfer import backbones

    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    x = backbones.ImageResizing(SIDE, SIDE, name="resizing")(images)
    x = backbones.ImageNetPreprocessing("tf", name="preprocessing")(x)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="block1_conv")(x)
    x = keras.layers.Conv2D(16, 3, strides=2, activation="relu", name="block2_conv")(x)
    return keras.Model(images, x, name="small")


def build_vgg(image_size: int) -> Any:
    """VGG16 with random weights, which takes as long as with any others."""
    import keras

    from safelight.transfer import backbones

    keras.utils.set_random_seed(0)
    return backbones.load_backbone("vgg16", image_size=image_size, weights=None)


def make_run(folder: Path, network: Any, config: Any) -> Any:
    """A run folder with a classifier on a network; what its head says means nothing."""
    from safelight.runs import Run
    from safelight.transfer import models
    from safelight.transfer.plan import Plan

    if (folder / "metrics.json").exists():
        return Run.open(folder)
    plan = Plan.make(network, config)
    run = Run.create(folder, overwrite=True)
    data = {"name": "noise", "class_names": ["a", "b"]}
    run.write_config({"kind": "transfer", "dataset": data, "settings": dataclasses.asdict(config)})
    models.build_classifier(network, plan.head_layers, 2).save(run.model_path)
    run.write_metrics({})
    return run


def mark(marks: list[tuple[int, float]], stage: str, done: int, total: int, words: str) -> None:
    """Notes the processor time of this process whenever something is done."""
    if done:
        marks.append((done, time.process_time()))


def spent(marks: list[tuple[int, float]]) -> float:
    """Processor seconds a picture, from the first answers on: what was loaded does not count."""
    (first, began), (last, ended) = marks[0], marks[-1]
    return (ended - began) / (last - first) if last > first else float("nan")


def predict(call: dict[str, Any]) -> dict[str, Any]:
    """Answers a list of pictures into a table."""
    from safelight import executors, file_lists
    from safelight.transfer import volume
    from safelight.transfer.config import TrainConfig
    from safelight.transfer.request import Request

    work, size = Path(call["work"]), call.get("image_size", SIDE)
    if chunk := call.get("chunk"):
        file_lists.BLOCK = volume.BLOCK = chunk
    paths = write_pictures(work / f"pictures-{size}", size)
    kind = "vgg" if "image_size" in call else "small"
    layers = () if kind == "vgg" else ("block1_conv/avg", "block2_conv/max")
    config = TrainConfig(image_size=size, head_layers=layers, test_views=1, precision="float32")
    network = build_vgg(size) if kind == "vgg" else build_small()
    run = make_run(work / f"run-{kind}-{size}", network, config)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        listed = Path(folder) / "list"
        with listed.open("w", encoding="utf-8") as file:
            file.writelines(f"{paths[i % NUM_FILES]}\n" for i in range(call["num_images"]))
        request = Request(Path(folder) / "answers.csv", listed=str(listed))
        workers = call.get("workers")
        place = contextlib.nullcontext()
        if workers:
            place = executors.RayExecutor(workers=workers, patience=600)
        marks: list[tuple[int, float]] = []
        began = time.time()
        with place as executor, executors.using(executor):
            found = volume.answer_files(run, request, report=functools.partial(mark, marks))
        digest = hashlib.sha256(request.output.read_bytes()).hexdigest()
    found |= {"digest": digest, "total": time.time() - began, "driver_cpu": spent(marks)}
    if workers:
        spans = executor.spans
        first, last = min(s.began for s in spans), max(s.ended for s in spans)
        found |= {"start_up": first - began, "working": last - first}
        found["num_workers"] = len({span.worker for span in spans})
    return {**found, "peak_mib": peak_mib()}


@dataclasses.dataclass(frozen=True)
class Noise:
    """Pictures that are made when they are read."""

    rows: np.ndarray

    def read(self, index: int, mode: str, *, digest: str | None = None) -> np.ndarray:
        """Draw picture `index`, always the same."""
        rng = np.random.default_rng(int(self.rows[index]))
        return rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)

    def subset(self, indices: np.ndarray) -> Noise:
        """Some of them."""
        return Noise(self.rows[indices])


def extract(call: dict[str, Any]) -> dict[str, Any]:
    """Extracts two pooled layers of pictures that are made on the way."""
    from safelight.datasets import ImageDataset
    from safelight.transfer.feature_cache import FeatureCache
    from safelight.transfer.features import FeatureExtractor, FeatureLayer

    number = call["num_images"]
    names = tuple(str(i) for i in range(number))
    dataset = ImageDataset(
        name="noise",
        class_names=(),
        labels=np.zeros(number, np.int64),
        digests=tuple(hashlib.sha256(name.encode()).hexdigest() for name in names),
        files=names,
        source=Noise(np.arange(number)),
    )
    cache = Path(call["work"]) / f"features-{number}"
    shutil.rmtree(cache, ignore_errors=True)
    extractor = FeatureExtractor(build_small(), precision="float32", cache=FeatureCache(cache))
    layers = [FeatureLayer("block1_conv", "avg"), FeatureLayer("block2_conv", "max")]
    began = time.perf_counter()
    extractor.extract(dataset, layers)
    seconds = time.perf_counter() - began
    shutil.rmtree(cache)
    return {"seconds": seconds, "num_computed": extractor.num_computed, "peak_mib": peak_mib()}


def decode(call: dict[str, Any]) -> dict[str, Any]:
    """Reads and resizes a photograph-like JPEG, 500 x 375 pixels, on one core."""
    from PIL import Image

    from safelight.images import read_image, resize

    path = Path(call["work"]) / "photograph.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (47, 63, 3), np.uint8)
    Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
    number, began = 0, time.process_time()
    while time.process_time() - began < call["seconds"]:
        resize(read_image(path), 224)
        number += 1
    rate = number / (time.process_time() - began)
    return {"per_core_second": rate, "bytes": path.stat().st_size}


def write(call: dict[str, Any]) -> dict[str, Any]:
    """Writes and joins parts of a table of two classes, as the driver does; processor time."""
    from safelight.tables import join_parts, write_part

    rng, names = np.random.default_rng(0), [f"/data/pictures/{n:09d}.jpg" for n in range(512)]
    with tempfile.TemporaryDirectory(dir=call["work"]) as folder:
        parts, began = [], time.process_time()
        while time.process_time() - began < call["seconds"]:
            found = rng.random((512, 2))
            columns = {
                "file": names,
                "prediction": ["a"] * 512,
                "probability": found.max(axis=1),
                "p(a)": found[:, 0],
                "p(b)": found[:, 1],
            }
            parts.append(Path(folder) / f"part-{len(parts)}.csv")
            write_part(parts[-1], columns)
        join_parts(parts, Path(folder) / "whole.csv", list(columns))
        rate = 512 * len(parts) / (time.process_time() - began)
    return {"per_core_second": rate}


def main() -> None:
    """Do what is asked, print what was found."""
    call = json.loads(sys.argv[1])
    kinds = {"predict": predict, "extract": extract, "decode": decode, "write": write}
    found = kinds[call["what"]](call)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
