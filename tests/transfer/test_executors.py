"""Where something is computed leaves no trace in what is computed."""

import dataclasses
import os
import pickle

import numpy as np
import pytest

from safelight import executors
from safelight.images import ImageError
from safelight.sources import Arrays
from safelight.transfer import features
from safelight.transfer.augmentation import ViewMaker
from safelight.transfer.config import Augmentation
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.features import FeatureExtractor, FeatureLayer

pytestmark = pytest.mark.usefixtures("eager", "small_shards")

LAYERS = [FeatureLayer("block3_add"), FeatureLayer("block4_pool", "avg")]
VIEWS = {"views": ViewMaker(Augmentation(rotation=0.1), seed=3), "num_views": 2}


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(features, "BATCH_SIZE", 2)
    monkeypatch.setattr(features, "_SHARD_ROWS", 5)


class Elsewhere:
    """Does the last task first, with what was packed to be sent; may be stopped on the way."""

    def __init__(self, *, stop_after=100, change=lambda work: work):
        self.stop_after, self.change, self.num_tasks = stop_after, change, 0

    def run(self, work, tasks):
        do = pickle.loads(pickle.dumps(self.change(work))).begin()
        for task in reversed(list(tasks)):
            self.num_tasks += 1
            if self.num_tasks > self.stop_after:
                raise ConnectionError("gone")
            yield pickle.loads(pickle.dumps(next(do([pickle.loads(pickle.dumps(task))]))))


def extract(network, dataset, root, executor=None, **options):
    extractor = FeatureExtractor(network, cache=FeatureCache(root), precision="float32")
    with executors.using(executor):
        found = extractor.extract(dataset, LAYERS, **{**VIEWS, **options})
    return extractor.num_computed, found


def files_of(root):
    paths = [path for path in root.rglob("*") if path.suffix in (".npy", ".json")]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def test_an_extraction_elsewhere_leaves_the_same_files(network, shapes, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    executor, seen = Elsewhere(), []
    extract(network, shapes, here)
    num_computed, found = extract(
        network, shapes, there, executor, progress=lambda *now: seen.append(now)
    )
    assert files_of(there) == files_of(here)
    # Twelve pictures in shards of two batches of two: 4, 4, 4; for each of two views and layers.
    assert sum(name.endswith(".npy") for name in files_of(here)) == 3 * 2 * 2
    assert (executor.num_tasks, num_computed) == (6, 24)
    assert seen[-1] == (24, 24)
    assert found[LAYERS[0]].gather(view=1).shape[0] == 12
    assert extract(network, shapes, there)[0] == 0


def test_an_extraction_that_was_stopped_elsewhere_ends_here_with_the_same_files(
    network, shapes, tmp_path
):
    here, there = tmp_path / "here", tmp_path / "there"
    extract(network, shapes.subset(range(11)), here)
    with pytest.raises(ConnectionError):
        extract(network, shapes.subset(range(11)), there, Elsewhere(stop_after=2))
    # Shards of 4, 4 and 3: the last two are there.
    assert extract(network, shapes.subset(range(11)), there)[0] == 22 - 7
    assert files_of(there) == files_of(here)


def test_sixteen_bits_travel_unharmed(network, shapes, tmp_path):
    for name, executor in (("here", None), ("there", Elsewhere())):
        cache = FeatureCache(tmp_path / name)
        extractor = FeatureExtractor(network, cache=cache, precision="bfloat16")
        with executors.using(executor):
            extractor.extract(shapes, LAYERS)
    assert files_of(tmp_path / "there") == files_of(tmp_path / "here")


@dataclasses.dataclass(frozen=True, eq=False)
class Bad(Arrays):
    def read(self, index, mode, *, digest=None):
        raise ImageError("a.jpg", "truncated")

    def subset(self, indices):
        return self

    def __reduce__(self):
        return Bad, (self.images, self.rows)


def test_a_file_that_went_bad_is_told_as_here(network, shapes, tmp_path):
    images = np.stack([shapes.read(i) for i in range(len(shapes))])
    spoilt = dataclasses.replace(shapes, source=Bad(images, np.arange(len(images))))
    for executor in (None, Elsewhere()):
        with pytest.raises(ImageError, match=r"a\.jpg: truncated"):
            extract(network, spoilt, tmp_path / "features", executor)


def test_a_worker_with_other_versions_is_refused(network, shapes, tmp_path):
    executor = Elsewhere(change=lambda work: dataclasses.replace(work, engine="keras", keys=("x",)))
    with pytest.raises(ValueError, match="the same versions"):
        extract(network, shapes, tmp_path, executor)


def test_the_innermost_executor_counts_and_none_changes_nothing():
    first, second = Elsewhere(), Elsewhere()
    assert executors.current() is None
    with executors.using(first):
        with executors.using(second):
            assert executors.current() is second
        with executors.using(None):
            assert executors.current() is first
    assert executors.current() is None


def test_without_ray_it_is_a_sentence(monkeypatch):
    monkeypatch.setattr(executors.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"safelight\[scale\]"):
        executors.RayExecutor(workers=2)
    with pytest.raises(ValueError, match="workers=0"):
        executors.RayExecutor(workers=0)


def test_threads_are_as_many_as_are_asked_for(monkeypatch):
    from safelight.transfer.ncnn_engine import num_threads

    monkeypatch.setenv("SAFELIGHT_NUM_THREADS", "3")
    assert num_threads() == 3
    for nonsense in ("", "0", "-1", "x"):
        monkeypatch.setenv("SAFELIGHT_NUM_THREADS", nonsense)
        assert num_threads() == len(os.sched_getaffinity(0))
