import dataclasses
import multiprocessing
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from PIL import Image

from safelight import datasets
from safelight.datasets import ImageDataset
from safelight.images import ImageError, resize
from safelight.transfer import backbones, engines, features, models
from safelight.transfer.augmentation import ViewMaker
from safelight.transfer.config import Augmentation
from safelight.transfer.feature_cache import CacheError, FeatureCache
from safelight.transfer.feature_rows import Features
from safelight.transfer.features import (
    FeatureExtractor,
    FeatureLayer,
)

pytestmark = pytest.mark.usefixtures("eager")

CUT = FeatureLayer("block3_add")
POOLED = FeatureLayer("block4_pool", "avg")
TURNS = Augmentation(rotation=0.1, contrast=0.2)


def make_extractor(network, cache, **options) -> FeatureExtractor:
    return FeatureExtractor(network, cache=cache, **{"precision": "float32", **options})


def run_directly(network, layer: FeatureLayer, pixels: np.ndarray) -> np.ndarray:
    """The layer's output from already resized pixels, without any of our machinery."""
    sub = keras.Model(network.input, network.get_layer(layer.layer).output)
    out = keras.ops.convert_to_numpy(sub(pixels, training=False))
    return {None: out, "avg": out.mean((1, 2)), "max": out.max((1, 2))}[layer.pooling]


def views_of(dataset: ImageDataset, maker: ViewMaker | None, view: int, size=(16, 16)):
    images = (resize(dataset.read(i), size) for i in range(len(dataset)))
    if maker is None:
        return np.stack(list(images))
    return np.stack([maker(x, dataset.digests[i], view) for i, x in enumerate(images)])


ALL = [CUT, FeatureLayer("block2_add", "max"), POOLED]


@pytest.mark.parametrize("layer", ALL, ids=str)
def test_features_equal_the_model_s_own(network, cache, shapes, layer):
    found = make_extractor(network, cache).extract(shapes, ALL)[layer]
    raw = np.stack([shapes.read(i) for i in range(len(shapes))])
    np.testing.assert_allclose(found.gather(), run_directly(network, layer, raw), atol=1e-5)


def test_gather_equals_brute_force_for_any_images_and_views(build_network, cache, shapes):
    network, maker = build_network(), ViewMaker(TURNS, seed=4)
    found = make_extractor(network, cache).extract(shapes, [CUT], views=maker, num_views=3)[CUT]
    copy = backbones.copy_model(network)
    trunk = keras.Model(copy.get_layer("resizing").output, copy.get_layer(CUT.layer).output)
    expected = np.stack(
        [trunk.predict_on_batch(views_of(shapes, maker, view)) for view in range(3)]
    )
    rng = np.random.default_rng(0)
    indices, views = rng.integers(0, len(shapes), 40), rng.integers(0, 3, 40)
    np.testing.assert_allclose(
        found.gather(indices, view=views), expected[views, indices], atol=1e-5
    )
    for view in range(3):
        np.testing.assert_allclose(found.gather(view=view), expected[view], atol=1e-5)
    assert (found.num_images, found.num_views) == (12, 3)


def num_computed(network, cache, dataset, layers=(CUT,), *, num_views=1, views=None, **options):
    extractor = make_extractor(network, cache, **options)
    extractor.extract(dataset, list(layers), views=views, num_views=num_views)
    assert extractor.num_computed + extractor.num_found == len(dataset) * num_views
    return extractor.num_computed


def with_changed_byte(dataset: ImageDataset) -> ImageDataset:
    images = np.stack([dataset.read(i) for i in range(len(dataset))])
    images[3, 5, 5, 0] ^= 1
    return ImageDataset.from_arrays(
        images, dataset.labels, class_names=dataset.class_names, near_duplicates=False
    )


def nudged(network: keras.Model, layer: str, place: int = 0) -> keras.Model:
    """A copy with the smallest possible change of one number in a layer."""
    copy = backbones.copy_model(network)
    weights = copy.get_layer(layer).get_weights()
    weights[place].flat[0] = np.nextafter(weights[place].flat[0], np.float32(np.inf))
    copy.get_layer(layer).set_weights(weights)
    return copy


def _averaging(network: keras.Model) -> keras.Model:
    """A classifier on the network that looks at every picture twice."""
    head = [FeatureLayer("block4_pool", "avg")]
    return models.average_views(models.build_classifier(network, head, 2), (0, 4))


HITS = {
    "the same again": lambda n, d: (n, d),
    "another order": lambda n, d: (n, d.subset(np.arange(len(d))[::-1])),
    "a part": lambda n, d: (n, d.subset([7, 2])),
    "a copy": lambda n, d: (backbones.copy_model(n), d),
    "views that it averages": lambda n, d: (_averaging(n), d),
    "a weight above the cut": lambda n, d: (nudged(n, "block4_conv"), d),
    "a statistic above the cut": lambda n, d: (nudged(n, "block4_bn", 3), d),
    "frozen": lambda n, d: (backbones.freeze(n, until="block4_pool") and n, d),
}


@pytest.mark.parametrize("change", HITS.values(), ids=HITS.keys())
def test_what_does_not_matter_hits(network, cache, shapes, change):
    assert num_computed(network, cache, shapes) == len(shapes)
    assert num_computed(*_reorder(change(network, shapes), cache)) == 0


def _reorder(pair, cache):
    return pair[0], cache, pair[1]


def test_a_saved_and_loaded_model_hits(network, cache, shapes, tmp_path):
    num_computed(network, cache, shapes, ALL)
    network.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert num_computed(again, cache, shapes, ALL) == 0


MISSES = {
    "size": lambda build: {"network": build((16, 18))},
    "preprocessing": lambda build: {"network": build(mode="torch")},
    "a weight": lambda build: {"network": nudged(build(), "block1_conv")},
    "a bias": lambda build: {"network": nudged(build(), "block3_conv", 1)},
    "a moving mean": lambda build: {"network": nudged(build(), "block2_bn", 2)},
    "a moving variance": lambda build: {"network": nudged(build(), "block2_bn", 3)},
    "the cut": lambda build: {"layers": [FeatureLayer("block2_add")]},
    "a layer of the same values": lambda build: {"layers": [FeatureLayer("block2_drop")]},
    "pooling": lambda build: {"layers": [FeatureLayer("block3_add", "avg")]},
    "precision": lambda build: {"precision": "bfloat16"},
}


@pytest.mark.parametrize("change", MISSES.values(), ids=MISSES.keys())
def test_what_matters_misses(build_network, cache, shapes, change):
    num_computed(build_network(), cache, shapes)
    changed = {"network": build_network(), **change(build_network)}
    assert num_computed(cache=cache, dataset=shapes, **changed) == len(shapes)


VIEW_MISSES = {
    "seed": (ViewMaker(TURNS, seed=1), 12),
    "setting": (ViewMaker(dataclasses.replace(TURNS, zoom=0.06)), 12),
    "none": (ViewMaker(TURNS), 0),
}


@pytest.mark.parametrize(("maker", "computed"), VIEW_MISSES.values(), ids=VIEW_MISSES.keys())
def test_views_hit_by_number_setting_and_seed(network, cache, shapes, maker, computed):
    first = ViewMaker(TURNS)
    assert num_computed(network, cache, shapes, num_views=2, views=first) == 24
    assert num_computed(network, cache, shapes, num_views=2, views=maker) == computed
    assert num_computed(network, cache, shapes) == 0
    assert num_computed(network, cache, shapes, num_views=3, views=first) == 12


def test_a_file_that_was_replaced_meanwhile_is_not_kept_under_its_old_digest(
    network, cache, tmp_path
):
    for i in range(8):
        folder = tmp_path / "pictures" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    dataset = datasets.from_directory(tmp_path / "pictures")
    (tmp_path / "pictures" / "a" / "2.png").write_bytes(
        (tmp_path / "pictures" / "b" / "1.png").read_bytes()
    )
    with pytest.raises(ImageError, match=r"2\.png: has changed since"):
        make_extractor(network, cache).extract(dataset, [CUT])
    again = datasets.from_directory(tmp_path / "pictures")
    make_extractor(network, cache).extract(again, [CUT])


def test_drawn_views_of_another_backend_are_others(monkeypatch):
    """Whatever computes their activations: the backends' random numbers differ."""
    drawn, exact = ViewMaker(TURNS), ViewMaker(Augmentation(horizontal_flip=True))
    here = [maker.describe(1) for maker in (drawn, exact)]
    monkeypatch.setattr(keras.backend, "backend", lambda: "another")
    there = [maker.describe(1) for maker in (drawn, exact)]
    assert here[0] != there[0]
    assert here[1] == there[1]


def test_one_changed_byte_and_one_new_picture_compute_one_each(network, cache, shapes):
    num_computed(network, cache, shapes.subset(range(11)))
    assert num_computed(network, cache, shapes) == 1
    assert num_computed(network, cache, with_changed_byte(shapes)) == 1


def test_the_same_picture_twice_is_computed_once(network, cache, shapes):
    images = np.stack([shapes.read(i) for i in (0, 1, 0, 0)])
    twice = ImageDataset.from_arrays(images, [0, 1, 0, 0], class_names=shapes.class_names)
    extractor = make_extractor(network, cache)
    rows = extractor.extract(twice, [CUT])[CUT].gather()
    assert (extractor.num_computed, extractor.num_found) == (2, 2)
    np.testing.assert_array_equal(rows[0], rows[3])


def test_a_second_layer_costs_a_pass_and_disturbs_nothing(network, cache, shapes):
    first = make_extractor(network, cache).extract(shapes.subset([0, 5]), [CUT])[CUT].gather()
    both = make_extractor(network, cache).extract(shapes, [CUT, POOLED])
    np.testing.assert_allclose(both[CUT].gather([0, 5]), first, atol=1e-6)
    assert num_computed(network, cache, shapes, [POOLED]) == 0


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("added", "computed"),
    [
        ([POOLED], 0),
        ([FeatureLayer("block3_add", "max"), FeatureLayer("block4_conv", "avg")], 0),
        ([FeatureLayer("block2_add", "avg")], 24),
        ([POOLED, FeatureLayer("block2_relu", "max")], 24),
    ],
    ids=["above", "at and above", "below", "both"],
)
def test_new_rows_come_from_the_cut_s_where_they_can(
    network, cache, shapes, tmp_path, precision, added, computed
):
    options = {"views": ViewMaker(TURNS), "num_views": 2, "precision": precision}
    num_computed(network, cache, shapes, **options)
    assert num_computed(network, cache, shapes, [CUT, *added], **options) == computed
    directly = features.FeatureCache(tmp_path / "directly")
    del options["precision"]
    for layer in added:
        found, expected = (
            make_extractor(network, place, precision=precision).extract(shapes, layers, **options)[
                layer
            ]
            for place, layers in ((cache, [CUT, *added]), (directly, [layer]))
        )
        for view in range(2):
            rows = expected.gather(view=view)
            np.testing.assert_allclose(
                found.gather(view=view), rows, atol=2e-2 if precision == "bfloat16" else 1e-5
            )


def test_later_changes_of_the_backbone_do_not_matter(network, cache, shapes):
    extractor = make_extractor(network, cache)
    before = backbones.copy_model(network)
    network.set_weights([w * 0 for w in network.get_weights()])
    raw = np.stack([shapes.read(i) for i in range(len(shapes))])
    np.testing.assert_allclose(
        extractor.extract(shapes, [CUT])[CUT].gather(), run_directly(before, CUT, raw), atol=1e-5
    )


def test_bfloat16_rows_are_stored_as_such_and_near(network, cache, shapes):
    exact = make_extractor(network, cache).extract(shapes, ALL)
    rough = make_extractor(network, cache, precision="bfloat16").extract(shapes, ALL)
    assert [rough[layer].gather([0]).dtype.name for layer in ALL] == ["bfloat16", *["float32"] * 2]
    for layer in ALL:
        a, b = exact[layer].gather(), rough[layer].gather().astype("float32")
        assert np.abs(a - b).max() < 0.05 * np.abs(a).max()


def test_an_image_s_row_does_not_depend_on_its_batch_mates(network, cache, shapes, tmp_path):
    alone = make_extractor(network, cache).extract(shapes.subset([4]), [CUT])[CUT].gather()
    other = features.FeatureCache(tmp_path / "other")
    together = make_extractor(network, other).extract(shapes, [CUT])[CUT].gather([4])
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_progress_counts_images_times_views(network, cache, shapes, monkeypatch):
    monkeypatch.setattr(features, "BATCH_SIZE", 5)
    seen = []
    for _ in range(2):
        make_extractor(network, cache).extract(
            shapes, [CUT], views=ViewMaker(TURNS), num_views=2, progress=lambda *a: seen.append(a)
        )
    done = [0, 5, 10, 12, 12, 17, 22, 24]
    assert seen == [(d, 24) for d in [*done, 12, 24]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_views": 2}, "ViewMaker"),
        ({"num_views": 0}, "num_views=0"),
        ({"layers": [FeatureLayer("block9")]}, "no layer or block 'block9'"),
        ({"layers": [FeatureLayer("block3_add", "mean")]}, "'avg', 'max' or None"),
    ],
)
def test_what_extract_refuses(network, cache, shapes, options, message):
    with pytest.raises(ValueError, match=message):
        make_extractor(network, cache).extract(shapes, **{"layers": [CUT], **options})


def test_a_network_without_resizing_is_refused(cache):
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match="load_backbone"):
        make_extractor(keras.Model(inputs, keras.layers.ReLU()(inputs)), cache)


@pytest.mark.parametrize(
    ("flags", "asked", "expected"),
    [(True, "auto", "bfloat16"), (False, "auto", "float32"), (False, "bfloat16", "bfloat16"),
     (True, "float32", "float32")],
)  # fmt: skip
def test_precision_follows_the_processor_unless_told(monkeypatch, flags, asked, expected):
    monkeypatch.setattr(engines, "_has_native_bfloat16", lambda: flags)
    if keras.backend.backend() == "jax" and asked == "auto":
        expected = "float32"  # its convolutions gain nothing by bfloat16 on a CPU
    assert engines.choose_precision(asked) == expected


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="float16"):
        engines.choose_precision("float16")


def test_no_room_is_said_before_anything_is_computed(network, cache, shapes):
    cache.max_bytes = 100
    extractor = make_extractor(network, cache)
    with pytest.raises(CacheError, match="SAFELIGHT_CACHE_LIMIT"):
        extractor.extract(shapes, [CUT])
    assert extractor.num_computed == 0


class StopError(Exception):
    pass


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ImageError, StopError])
def test_an_interruption_keeps_what_was_computed(network, cache, shapes, monkeypatch, kind):
    monkeypatch.setattr(features, "BATCH_SIZE", 4)

    def stop(done, _):
        if done == 8:
            raise kind(*(["a.jpg", "truncated"] if kind is ImageError else []))

    with pytest.raises(kind):
        make_extractor(network, cache).extract(shapes, [CUT, POOLED], progress=stop)
    assert num_computed(network, cache, shapes, [CUT, POOLED]) == 4


EXTRACT = """
import os, signal, sys
import numpy as np
from safelight import datasets
from safelight.transfer import features
from safelight.transfer.feature_cache import FeatureCache
import keras
features.BATCH_SIZE, features._SHARD_ROWS = 4, 8
from safelight.transfer import backbones

def extract(model, root, kill_at=-1):
    def progress(done, total):
        if done == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    network = keras.saving.load_model(model)
    extractor = features.FeatureExtractor(network, precision="float32", cache=FeatureCache(root))
    layers = [features.FeatureLayer("block3_add"), features.FeatureLayer("block4_pool", "avg")]
    shapes = datasets.make_shapes(36, image_size=20, num_classes=2)
    found = extractor.extract(shapes, layers, progress=progress)
    return extractor.num_computed, [found[layer].gather() for layer in layers]
"""


@pytest.fixture
def extract(network, tmp_path, monkeypatch):
    """The function above, from a file that other processes can import too."""
    (tmp_path / "extract_job.py").write_text(EXTRACT)
    network.save(tmp_path / "network.keras")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(features, "BATCH_SIZE", 4)
    monkeypatch.setattr(features, "_SHARD_ROWS", 8)
    if keras.backend.backend() == "tensorflow":  # as in the other processes, to the last bit
        import tensorflow as tf

        tf.config.run_functions_eagerly(False)
    import extract_job

    yield extract_job.extract
    del sys.modules["extract_job"]


def test_a_killed_extraction_goes_on_where_it_stopped(extract, tmp_path):
    model, root = str(tmp_path / "network.keras"), tmp_path / "features"
    code = f"import extract_job; extract_job.extract({model!r}, {str(root)!r}, kill_at=28)"
    child = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert child.returncode == -signal.SIGKILL
    for folder in root.glob("*/"):
        (folder / "tmp-shard-left.npy").write_bytes(b"half")
        (folder / "shard-left.npy").write_bytes(b"without its manifest")
    num_computed, rows = extract(model, str(root))
    # 28 images were run, three shards of 8 written.
    assert num_computed == 36 - 24
    assert not list(root.rglob("*left*"))
    undisturbed = extract(model, str(tmp_path / "undisturbed"))
    assert undisturbed[0] == 36
    for resumed, expected in zip(rows, undisturbed[1], strict=True):
        assert resumed.tobytes() == expected.tobytes()
    assert extract(model, str(root))[0] == 0


def in_processes(extract, jobs):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return pool.starmap(extract, jobs)


def in_threads(extract, jobs):
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(extract, *zip(*jobs, strict=True)))


@pytest.mark.parametrize("run", [in_threads, pytest.param(in_processes, marks=pytest.mark.slow)])
def test_two_at_once_share_the_work(extract, tmp_path, run):
    jobs = [(str(tmp_path / "network.keras"), str(tmp_path / "features"))] * 2
    answers = run(extract, jobs)
    assert sum(num for num, _ in answers) == 36
    expected = extract(jobs[0][0], str(tmp_path / "undisturbed"))[1]
    for _, rows in answers:
        for found, wanted in zip(rows, expected, strict=True):
            assert found.tobytes() == wanted.tobytes()


def test_held_rows_equal_read_rows(tmp_path):
    digests = [f"{i:064x}" for i in range(7)]
    cache, rng = FeatureCache(tmp_path), np.random.default_rng(0)
    entries = [cache.entry({"view": view}, (2, 3), "float32") for view in range(2)]
    for entry in entries:
        entry.append(digests, rng.normal(size=(7, 2, 3)).astype("float32"))
    features = Features(entries, digests)
    chosen, views = np.array([6, 0, 3, 3]), np.array([1, 0, 1, 0])
    read = features.gather(chosen, view=views)
    assert not features.hold(max_bytes=2 * 7 * 6 * 4 - 1)
    assert features.hold(max_bytes=2 * 7 * 6 * 4)
    for path in tmp_path.glob("*/*.npy"):
        path.unlink()
    np.testing.assert_array_equal(features.gather(chosen, view=views), read)
