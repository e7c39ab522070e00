"""A real Ray cluster of two workers on this machine: the same bytes, and no worker is missed."""

import dataclasses
import importlib.util
import os
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from safelight import datasets, executors
from safelight.executors import RayExecutor
from safelight.images import ImageError
from safelight.runs import Run
from safelight.sources import Files
from safelight.transfer import models
from safelight.transfer.augmentation import ViewMaker
from safelight.transfer.config import Augmentation, TrainConfig
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.features import FeatureExtractor, FeatureLayer
from safelight.transfer.request import Request
from safelight.transfer.volume import answer_files

# Not imported here: what it may do is settled before it is loaded.
if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed (make test-scale)", allow_module_level=True)

# What Ray remarks on itself.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}")
    for kind in ("DeprecationWarning", "FutureWarning", "ResourceWarning")
]

LAYERS = [FeatureLayer("block3_add"), FeatureLayer("block4_pool", "avg")]
NUM_IMAGES = 1100  # shards of 256, the last of them short; three chunks of 512
CONFIG = TrainConfig(
    image_size=16, head_layers=("block3_add/avg", "block4_pool/max"), precision="float32"
)


@pytest.fixture(scope="module")
def executor():
    with RayExecutor(workers=2, patience=600) as opened:
        yield opened
    import ray

    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def pictures() -> datasets.ImageDataset:
    return datasets.make_shapes(NUM_IMAGES, image_size=16, num_classes=2)


def extract(network, pictures, root, **options):
    extractor = FeatureExtractor(network, cache=FeatureCache(root), precision="float32")
    extractor.extract(pictures, LAYERS, views=ViewMaker(Augmentation()), **options)
    return extractor.num_computed


def files_of(root: Path) -> dict[str, bytes]:
    paths = [path for path in root.rglob("*") if path.suffix in (".npy", ".json")]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def find_workers() -> list[int]:
    """The processes of the actor pool, by what Ray calls them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if command.startswith(b"ray::") and b"_Worker" in command:
            found.append(int(path.parent.name))
    return found


class Killer:
    """Kills a worker as soon as something is done, once."""

    def __init__(self):
        self.killed = []

    def __call__(self, done: int, total: int) -> None:
        workers = find_workers()
        if done and not self.killed and workers:
            self.killed.append(workers[0])
            os.kill(workers[0], signal.SIGKILL)


@pytest.mark.parametrize(
    ("num_views", "is_killed"), [(2, False), (1, True)], ids=["left alone", "a worker killed"]
)
def test_shards_are_those_of_this_process(
    executor, network, pictures, tmp_path, num_views, is_killed
):
    here, there, killer = tmp_path / "here", tmp_path / "there", Killer()
    if is_killed:  # a classifier's trunk is that of its backbone, and its layers have to be known
        head = [FeatureLayer("block3_add", "avg"), FeatureLayer("block4_pool", "max")]
        network = models.build_classifier(network, head, 2, num_landmarks=3)
    assert extract(network, pictures, here, num_views=num_views) == num_views * NUM_IMAGES
    options = {"progress": killer} if is_killed else {}
    before = len(executor.spans)
    with executors.using(executor):
        extract(network, pictures, there, num_views=num_views, **options)
    assert files_of(there) == files_of(here)
    # Five shards and a file of facts for each layer and view; a shard is two files.
    assert len(files_of(there)) == 2 * num_views * (2 * 5 + 1)
    workers = {span.worker for span in executor.spans[before:]}
    assert len(workers) >= 2
    assert bool(killer.killed) == is_killed
    assert extract(network, pictures, there, num_views=num_views) == 0


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("files")
    for number in range(NUM_IMAGES):
        Image.fromarray(pictures.read(number)).save(found / f"{number:04d}.png")
    (found / "0500.png").write_bytes(b"no picture")
    return found


@pytest.fixture
def run(network, tmp_path) -> Run:
    head = [FeatureLayer("block3_add", "avg"), FeatureLayer("block4_pool", "max")]
    model = models.average_views(models.build_classifier(network, head, 2), (0, 4))
    rng = np.random.default_rng(0)
    model.get_layer(models.LOGITS).set_weights([rng.normal(size=(14, 2)), rng.normal(size=2)])
    made = Run.create(tmp_path / "run")
    data = {"name": "shapes", "class_names": ["a", "b"]}
    made.write_config({"kind": "transfer", "dataset": data, "settings": dataclasses.asdict(CONFIG)})
    model.save(made.model_path)
    return made


@pytest.mark.parametrize("is_killed", [False, True], ids=["left alone", "a worker killed"])
def test_tables_are_those_of_this_process(executor, run, folder, tmp_path, is_killed):
    here, there = (Request(tmp_path / f"{name}.parquet", [folder]) for name in ("here", "there"))
    killer = Killer()

    def report(stage: str, done: int, total: int, words: str) -> None:
        if is_killed:
            killer(done, total)

    answer_files(run, here)
    with executors.using(executor):
        found = answer_files(run, there, report=report)
    assert (found["num_answered"], found["num_problems"]) == (NUM_IMAGES - 1, 1)
    assert there.output.read_bytes() == here.output.read_bytes()
    assert there.problems.read_bytes() == here.problems.read_bytes()
    assert bool(killer.killed) == is_killed


def test_urls_are_read_by_workers(executor, run, folder, tmp_path):
    names = [f"file://{path}" for path in sorted(folder.iterdir())[:40]]
    (tmp_path / "list").write_text("\n".join(names))
    requests = [
        Request(tmp_path / "urls.csv", listed=str(tmp_path / "list")),
        Request(tmp_path / "paths.csv", sorted(folder.iterdir())[:40]),
    ]
    with executors.using(executor):
        answer_files(run, requests[0])
    answer_files(run, requests[1])
    urls, paths = (request.output.read_text() for request in requests)
    assert urls.replace("file://", "") == paths


def test_an_error_of_a_worker_is_that_of_this_process(executor, network, pictures, tmp_path):
    few = datasets.ImageDataset(
        name="gone", class_names=("a",), labels=np.zeros(2, np.int64), digests=("1" * 64, "2" * 64),
        files=("a.png", "b.png"),
        source=Files((tmp_path / "a.png", tmp_path / "b.png"), ("a.png", "b.png")),
    )  # fmt: skip
    with executors.using(executor), pytest.raises(ImageError, match=r"a\.png: no such file"):
        extract(network, few, tmp_path / "features")


def test_nobody_is_told_and_nobody_else_is_obeyed(executor):
    ray = executor._connect()
    usage = pytest.importorskip("ray._common.usage.usage_lib")
    assert not usage.usage_stats_enabled()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert ray.get_runtime_context().gcs_address.startswith("127.0.0.1:")


@pytest.fixture
def network(tmp_path_factory) -> keras.Model:
    return build()


def build() -> keras.Model:
    """As in tests/transfer, without what only they need."""
    from safelight.transfer import backbones

    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    x = backbones.ImageResizing(16, 16, name="resizing")(images)
    x = backbones.ImageNetPreprocessing("tf", name="preprocessing")(x)
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="block1_conv")(x)
    x = keras.layers.MaxPooling2D(name="block1_pool")(x)
    y = keras.layers.Conv2D(6, 3, padding="same", name="block3_conv")(x)
    x = keras.layers.Add(name="block3_add")([x, y])
    x = keras.layers.Conv2D(8, 3, padding="same", name="block4_conv")(x)
    x = keras.layers.MaxPooling2D(name="block4_pool")(x)
    return keras.Model(images, x, name="tiny")
