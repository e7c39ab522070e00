"""Whoever answers without a network, a page that is served, and a browser to look at it with."""

import contextlib
import gc
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from safelight import datasets
from safelight.app.answers import Answer, Neighbour
from safelight.app.training_pictures import TrainingPictures
from safelight.datasets import ImageDataset
from safelight.images import ImageError, read_image
from safelight.runs import Run

SHARES = (0.0, 0.3, 0.7, 1.0)  # of red, in what the stub learned from
SECONDS = 300  # a busy machine takes its time


def _paint(red, *, size=(40, 30), green=0.0):
    """A plain picture with so much red; the rest is blue."""
    colour = [round(255 * each) for each in (red, green, 1 - red)]
    return np.tile(np.array(colour, np.uint8), (*size, 1))


class Stub:
    """Says the second class by the share of red, at once; what is green is none of these."""

    def __init__(self, folder, *, names=("blue", "red"), refuse=0.05, dataset=True):
        pictures = np.stack([_paint(share) for share in SHARES])
        known = ImageDataset.from_arrays(
            pictures, [0, 0, 1, 1], class_names=names, name="colours", near_duplicates=False
        )
        self.run = self.make_run(folder, names, [digest[:16] for digest in known.digests])
        self.class_names, self.refuse = list(names), refuse
        self.training = TrainingPictures(self.run, known if dataset else None)

    @staticmethod
    def make_run(folder, names, digests):
        """What a page reads of a run: names, numbers, digests."""
        run = Run.create(folder)
        run.write_config({
            "kind": "transfer",
            "dataset": {"name": "colours", "class_names": list(names), "num_images": 40},
            "split": {"digests": {"train": digests, "validation": [], "test": []}},
            "settings": {},
        })  # fmt: skip
        run.write_metrics({"accuracy": {"value": 0.9, "low": 0.75, "high": 0.97}, "num_test": 20})
        return run

    def answer(self, file):
        name = os.path.basename(file)  # noqa: PTH119
        try:
            pixels = read_image(file)
        except ImageError as error:
            return Answer(name, error=error.reason)
        red, green, blue = pixels.mean((0, 1)) / 255
        share = float(red / max(red + blue, 1e-9))
        familiarity = 0.01 if green > 0.5 else 0.6
        far = np.abs(np.array(SHARES) - share)
        nearest = [Neighbour(self.training.find(int(i)), float(far[i])) for i in far.argsort()]
        return Answer(
            name, "", np.array([1 - share, share]), familiarity, familiarity <= self.refuse, pixels,
            np.linspace(-1, 1, 49, dtype=np.float32).reshape(7, 7), tuple(nearest),
        )  # fmt: skip


@pytest.fixture(scope="session")
def dataset():
    return datasets.make_shapes(60, image_size=24, num_classes=2)


@pytest.fixture(scope="session")
def run(tmp_path_factory, dataset):
    """A small run: two convolutions that no one trained, and a head on them."""
    import keras
    import tensorflow as tf

    from safelight.transfer import backbones, experiment
    from safelight.transfer.config import TrainConfig
    from safelight.transfer.feature_cache import FeatureCache

    layers = ("block1/avg", "block1/max")
    config = TrainConfig(image_size=16, head_layers=layers, precision="float32")

    def build(*_, **__):
        keras.utils.set_random_seed(0)
        images = keras.Input((None, None, 3), dtype="uint8", name="images")
        x = backbones.ImageResizing(16, 16, name="resizing")(images)
        x = backbones.ImageNetPreprocessing("tf", name="preprocessing")(x)
        for name in ("block0", "block1"):
            x = keras.layers.Conv2D(8, 3, activation="relu", padding="same", name=name)(x)
        return keras.Model(images, x, name="tiny")

    folder = tmp_path_factory.mktemp("trained")
    made = Run.create(folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "load_backbone", build)
        tf.config.run_functions_eagerly(True)
        try:
            experiment.run_training(
                made, datasets.split(dataset, seed=0), config, dataset=dataset,
                report=lambda *_: None, cache=FeatureCache(folder / "features"),
            )  # fmt: skip
        finally:
            tf.config.run_functions_eagerly(False)
    return made


@pytest.fixture(scope="session")
def paint():
    return _paint


@pytest.fixture(scope="session")
def make_stub():
    return Stub


@pytest.fixture
def stub(tmp_path):
    return Stub(tmp_path / "stub")


def _build(answerer):
    """A page, built in a thread, which takes with it what Gradio leaves open there."""
    from safelight.app.page import build_page

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of libraries are theirs to mend
        with ThreadPoolExecutor(1) as pool:
            page = pool.submit(build_page, answerer).result()
        gc.collect()
    return page


@contextlib.contextmanager
def _serving(page, **where):
    """A server in a thread of its own; ends with the block."""
    from safelight.app.server import Server

    server = Server(**{"port": 0, **where})
    ready = threading.Event()
    thread = threading.Thread(target=server.serve, args=[page], kwargs={"ready": ready.set})
    thread.start()
    try:
        assert ready.wait(SECONDS)
        yield server
    finally:
        server.stop()
        thread.join(SECONDS)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def serving():
    for name in ("fastapi", "uvicorn"):
        pytest.importorskip(name, reason="the extra `app` is not installed (make test-app)")
    yield _serving
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()  # pages are circles of objects; Gradio leaves event loops open in them


@pytest.fixture(scope="session")
def served(serving, tmp_path_factory):
    """The stub's page; its class of red has a name that would be markup."""
    pytest.importorskip("gradio", reason="the extra `app` is not installed (make test-app)")
    answerer = Stub(tmp_path_factory.mktemp("served") / "run", names=("blue", "<b>${7*7}</b>{{7}}"))
    with serving(_build(answerer)) as server:
        yield server
