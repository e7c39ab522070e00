import dataclasses
import inspect

import keras
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

from safelight import datasets
from safelight.transfer import backbones, models, training
from safelight.transfer.augmentation import BatchAugmenter, ViewMaker
from safelight.transfer.batches import FeatureBatches, ImageBatches
from safelight.transfer.calibration import fit_temperature, log_loss
from safelight.transfer.config import Augmentation, TrainConfig
from safelight.transfer.features import FeatureExtractor, FeatureLayer
from safelight.transfer.fine_tuning import fine_tune
from safelight.transfer.prediction import predict_logits
from safelight.transfer.training import balanced_weights, make_targets, train

# TensorFlow's word on the fixture `eager`: its data pipelines stay graphs.
pytestmark = pytest.mark.filterwarnings("ignore:Even though the:UserWarning")

TINY = TrainConfig(
    image_size=16,
    unfreeze_from="block3",
    epochs=2,
    batch_size=8,
    learning_rate=1e-3,
    precision="float32",
    views=2,
)


@pytest.fixture
def tiny(monkeypatch, build_network):
    """`train` with the tiny network in VGG16's place."""
    built = []

    def load(name, *, image_size, weights):
        built.append(build_network((image_size, image_size)))
        return built[-1]

    monkeypatch.setattr(backbones, "load_backbone", load)
    return built


def tail_data(network, dataset, cache, cut: str):
    found = FeatureExtractor(network, precision="float32", cache=cache).extract(
        dataset, [FeatureLayer(cut)]
    )[FeatureLayer(cut)]
    targets = make_targets(dataset)
    fit = FeatureBatches(found, targets, batch_size=8, seed=0)
    return fit, FeatureBatches(found, targets, batch_size=8)


def pixel_data(network, dataset, cache, cut: str):
    size = network.get_layer("resizing").height
    targets = make_targets(dataset)
    augmenter = BatchAugmenter(Augmentation())
    options = {"batch_size": 8}
    fit = ImageBatches(dataset, (size, size), targets, seed=0, augmenter=augmenter, **options)
    return fit, ImageBatches(dataset, (size, size), targets, **options)


ROUTES = {
    "cached tail": (lambda c, cut: models.build_tail(c, [FeatureLayer(cut)]), tail_data),
    "whole network": (lambda c, cut: models.build_pixel_model(c, cut=cut), pixel_data),
}
NETWORKS = [
    ("vgg16", "block5_conv2", "block5_pool"),
    ("mobilenet", "block_16_project", "out_relu"),
    ("network", "block3", "block4_pool"),
]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("name", "first", "last"),
    [pytest.param(*row, marks=[pytest.mark.slow] * (row[0] == "mobilenet")) for row in NETWORKS],
)
def test_what_is_frozen_keeps_every_bit(
    request, shapes, cache, hash_layers, route, name, first, last
):
    backbone = request.getfixturevalue(name)
    cut = backbones.cut_layer(backbone, first)
    classifier = models.build_classifier(
        backbones.copy_model(backbone), [FeatureLayer(last, "avg")], 2
    )
    before, (build, make_data) = hash_layers(classifier), ROUTES[route]
    model = build(classifier, cut)
    config = dataclasses.replace(TINY, epochs=1, learning_rate=1e-2)
    fit, _ = make_data(classifier, shapes, cache, cut)
    model.compile(
        keras.optimizers.Adam(config.learning_rate),
        keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    model.fit(fit, epochs=1, verbose=0)
    inside = hash_layers(model)
    after = hash_layers(models.join(classifier, model))
    frozen = {la.name for la in backbones.layers_until(classifier, cut) if la.weights}
    for hashes in (inside, after):
        assert {n for n in hashes if n in frozen and hashes[n] != before[n]} == set()
    changed = {n for n in after if after[n] != before[n]}
    assert changed == set(before) - frozen - {models.STANDARDIZE}
    assert len(frozen) > 2
    assert any("bn" in n.lower() for n in frozen) or name == "vgg16"


def test_batches_take_each_image_once_an_epoch_in_an_order_of_seed_and_epoch(
    shapes, cache, network
):
    def orders(make_data, seed):
        fit, _ = make_data(network, shapes, cache, "block3_add")
        fit = type(fit)(*args_of(fit, shapes), batch_size=5, seed=seed)
        found = []
        for _ in range(3):
            found.append(np.concatenate([fit[i][1] for i in range(len(fit))])[:, 0].tolist())
            fit.on_epoch_end()
        return found

    def args_of(fit, dataset):
        numbers = np.arange(len(dataset), dtype="float32")[:, None]
        if isinstance(fit, FeatureBatches):
            return fit._features, numbers
        return dataset, (16, 16), numbers

    for make_data in (tail_data, pixel_data):
        first = orders(make_data, 1)
        assert all(sorted(epoch) == list(range(12)) for epoch in first)
        assert first[0] != first[1] != first[2]
        assert orders(make_data, 1) == first
        assert orders(make_data, 2) != first
        assert orders(make_data, None) == [list(range(12))] * 3


def test_training_sees_each_batch_once_an_epoch(shapes, cache, network):
    """The next batch is made ahead of time; the epochs must stay whole all the same."""
    seen = []

    class Spy(FeatureBatches):
        def __getitem__(self, index):
            seen.append((self._epoch, index))
            return super().__getitem__(index)

    features = FeatureExtractor(network, precision="float32", cache=cache).extract(
        shapes, [FeatureLayer("block4_pool", "avg")]
    )[FeatureLayer("block4_pool", "avg")]
    data = Spy(features, make_targets(shapes), batch_size=5, seed=0)
    model = models.build_head(8, 2)
    fine_tune(model, data, FeatureBatches(features, make_targets(shapes)), config=TINY)
    assert seen == [(epoch, index) for epoch in range(TINY.epochs) for index in range(3)]


def test_a_row_is_one_of_its_image_s_views_with_its_own_target_and_weight(shapes, cache, network):
    layer = FeatureLayer("block4_pool", "avg")
    found = FeatureExtractor(network, precision="float32", cache=cache).extract(
        shapes, [layer], views=ViewMaker(Augmentation(rotation=0.2)), num_views=3
    )[layer]
    views = np.stack([found.gather(view=view) for view in range(3)])
    numbers = np.arange(12, dtype="float32")
    data = FeatureBatches(found, numbers[:, None], batch_size=5, seed=0, weights=numbers * 2)
    drawn = set()
    for _ in range(8):
        for batch in (data[i] for i in range(len(data))):
            for row, target, weight in zip(*batch, strict=True):
                view = int(np.abs(views[:, int(target[0])] - row).max(1).argmin())
                np.testing.assert_array_equal(views[view, int(target[0])], row)
                assert weight == 2 * target[0]
                drawn.add((int(target[0]), view))
        data.on_epoch_end()
    assert len(drawn) > 30


@pytest.mark.parametrize("counts", [(5, 5), (9, 1), (2, 7, 4)])
def test_class_weights_average_to_one_and_are_scikit_learn_s(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    weights = balanced_weights(np.eye(len(counts), dtype="float32")[labels])
    np.testing.assert_allclose(weights, compute_sample_weight("balanced", labels), rtol=1e-6)
    assert weights.mean() == pytest.approx(1)


def test_soft_class_weights_average_to_one():
    targets = np.random.default_rng(0).dirichlet([1, 3, 0.5], 50).astype("float32")
    assert balanced_weights(targets).mean() == pytest.approx(1, rel=1e-5)


class SeenError(Exception):
    """Ends a training of which enough was seen."""


def arguments_of(monkeypatch, name):
    """Lets a training end where it calls the function of that name; what that was called with."""
    signature, seen = inspect.signature(getattr(training, name)), {}

    def stop(*arguments, **options):
        seen.update(signature.bind(*arguments, **options).arguments)
        raise SeenError

    monkeypatch.setattr(training, name, stop)
    return seen


@pytest.fixture(scope="module")
def uneven():
    """Three times as many pictures of one class as of the other."""
    shapes = datasets.make_shapes(60, image_size=16, num_classes=2)
    return datasets.split(shapes.subset([i for i in range(60) if i % 6 in (0, 1, 2, 4)]), seed=0)


@pytest.mark.parametrize("head", ["logistic", "kernel", "dense"])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_balanced_classes_count_alike_in_the_head(
    eager, tiny, uneven, monkeypatch, cache, head, class_weight
):
    seen = arguments_of(monkeypatch, f"fit_{head}_head")
    options = {"unfreeze_from": None, "head": head, "class_weight": class_weight}
    with pytest.raises(SeenError):
        train(uneven, dataclasses.replace(TINY, **options), cache=cache)
    labels = uneven.train.labels
    if head != "dense":  # the only one that validation stops
        labels = np.concatenate([labels, uneven.validation.labels])
    assert np.ptp(np.bincount(labels)) > 8
    np.testing.assert_array_equal(seen["targets"].argmax(1), labels)
    if class_weight is None:
        assert seen["weights"] is None
    else:
        expected = compute_sample_weight("balanced", labels)
        np.testing.assert_allclose(seen["weights"], expected, rtol=1e-6)


@pytest.mark.parametrize("cached", [True, False])
def test_balanced_classes_count_alike_in_all_batches_of_fine_tuning(
    eager, tiny, uneven, monkeypatch, cache, cached
):
    seen = arguments_of(monkeypatch, "fine_tune")
    config = dataclasses.replace(TINY, class_weight="balanced", cached=cached)
    with pytest.raises(SeenError):
        train(uneven, config, cache=cache)
    batches = [seen["train_data"][i] for i in range(len(seen["train_data"]))]
    targets, weights = (np.concatenate([batch[place] for batch in batches]) for place in (1, 2))
    labels = targets.argmax(1)
    assert np.bincount(labels).tolist() == np.bincount(uneven.train.labels).tolist()
    np.testing.assert_allclose(weights, compute_sample_weight("balanced", labels), rtol=1e-6)
    assert len(seen["validation_data"][0]) == 2  # it is judged as it is


@pytest.mark.parametrize(("has_them", "soft"), [(True, True), (True, False), (False, True)])
def test_soft_targets_are_taken_where_they_are(shapes, has_them, soft):
    probabilities = np.full((12, 2), 0.5)
    dataset = dataclasses.replace(shapes, targets=probabilities if has_them else None)
    expected = probabilities if has_them and soft else np.eye(2)[shapes.labels]
    np.testing.assert_array_equal(make_targets(dataset, soft=soft), expected)


QUICK = {
    "cached": {},
    "uncached": {"cached": False},
    "from scratch": {"pretrained": False},
    "head only": {"unfreeze_from": None},
    "two head layers, one view": {
        "head_layers": ("block3_add/max", "block4_pool/avg"),
        "views": 1,
        "epochs": 1,
    },
    "head layers below the cut": {"head_layers": ("block1_pool/max", "block4_pool/avg")},
    "averaged views": {"vertical_flip": True, "quarter_turns": True, "test_views": 8},
}
SLOW = {
    "everything": {"unfreeze_from": "all"},
    "no epochs": {"epochs": 0},
    "dense head": {"head": "dense", "hidden_units": 5, "unfreeze_from": None},
    "dense head, tuned": {"head": "dense", "hidden_units": 5},
    "weights, adamw": {"class_weight": "balanced", "optimizer": "adamw"},
    "bfloat16": {"precision": "bfloat16"},
}


@pytest.mark.parametrize(
    "options",
    [
        *(pytest.param(options, id=name) for name, options in QUICK.items()),
        *(pytest.param(options, id=name, marks=pytest.mark.slow) for name, options in SLOW.items()),
    ],
)
def test_every_way_to_train_gives_a_model_that_answers(eager, tiny, splits, cache, options):
    config = dataclasses.replace(TINY, **options)
    stages = set()
    trained = train(splits, config, cache=cache, report=lambda stage, *_: stages.add(stage))
    answers = keras.ops.convert_to_numpy(
        trained.model(np.stack([splits.test.read(i) for i in range(4)]))
    )
    np.testing.assert_allclose(np.sum(answers, axis=1), 1, atol=1e-5)
    tunes = config.epochs > 0 and (config.unfreeze_from or not config.pretrained)
    assert ("fine-tuning" in stages) == bool(tunes) == bool(trained.history)
    stages = {"load", "extract", "head", "calibrate", *["fine_tune"] * bool(tunes)}
    assert set(trained.seconds) == stages
    whole = not config.pretrained or config.unfreeze_from == "all"
    last = {None: "block4_pool"}.get(config.unfreeze_from, "block2_drop")
    assert trained.cut == (None if whole else last)
    views = config.views if config.cached and not whole else 1
    # A logistic head that stays alone is fitted on the validation part too, all views of it.
    watched = config.test_views if tunes or config.head == "dense" else views
    expected = len(splits.train) * views + len(splits.validation) * watched
    assert trained.images_computed == expected
    assert (trained.inverse_strength is None) == (config.head == "dense")


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"cached": False}, marks=pytest.mark.slow),
        pytest.param({"pretrained": False}, marks=pytest.mark.slow),
    ],
)
def test_the_same_seed_gives_the_same_numbers(eager, tiny, splits, tmp_path, options):
    def losses(seed: int, name: str) -> tuple[list[float], bytes]:
        cache = training.FeatureCache(tmp_path / name)
        config = dataclasses.replace(TINY, epochs=1, seed=seed, **options)
        trained = train(splits, config, cache=cache)
        weights = b"".join(w.tobytes() for w in trained.model.get_weights())
        return trained.history["loss"][1:] + trained.history["val_loss"], weights

    first = losses(0, "a")
    keras.utils.set_random_seed(123)
    assert losses(0, "b") == first
    assert losses(1, "c")[0] != first[0]


def test_another_training_on_the_same_pictures_computes_nothing(eager, tiny, splits, cache):
    assert train(splits, dataclasses.replace(TINY, epochs=1), cache=cache).images_computed > 0
    other = dataclasses.replace(TINY, learning_rate=1e-4, epochs=1, class_weight="balanced")
    assert train(splits, other, cache=cache).images_computed == 0


def test_training_learns_shapes_better_than_chance(eager, tiny, splits, cache):
    config = dataclasses.replace(TINY, epochs=6, weight_averaging=False)
    trained = train(splits, config, cache=cache)
    assert trained.history["val_loss"][0] >= min(trained.history["val_loss"])
    raw = np.stack([splits.train.read(i) for i in range(len(splits.train))])
    answers = keras.ops.convert_to_numpy(trained.model(raw))
    accuracy = (answers.argmax(axis=1) == splits.train.labels).mean()
    assert accuracy > 0.8


def test_out_of_fold_logits_are_those_of_heads_that_had_not_seen_the_picture(
    eager, tiny, splits, cache
):
    config = dataclasses.replace(TINY, unfreeze_from=None, calibrated=False)
    trained = train(splits, config, cache=cache)

    assert trained.out_of_fold.shape == (len(splits.train) + len(splits.validation), 2)
    # On twenty channels of a random network a head that had seen a picture does better on it.
    seen = predict_logits(trained.model, splits.train, config=config, cache=cache)
    labels = splits.train.labels
    own = seen / fit_temperature(seen, labels)
    assert log_loss(trained.out_of_fold[: len(labels)], labels) > log_loss(own, labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unfreeze_from": "block9"}, "no layer or block 'block9'"),
        ({"head_layers": ("block4_pool/mean",)}, "LAYER/avg or LAYER/max"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_computed(
    tiny, splits, cache, options, message
):
    with pytest.raises(ValueError, match=message):
        train(splits, dataclasses.replace(TINY, **options), cache=cache)
    assert not cache.root.exists()


@pytest.mark.parametrize("options", [{}, {"unfreeze_from": None, "head": "dense"}])
def test_what_is_watched_must_be_there(tiny, splits, cache, options):
    indices = {**splits.indices, "validation": splits.indices["validation"][:0]}
    empty = dataclasses.replace(splits, validation=splits.validation.subset([]), indices=indices)
    with pytest.raises(ValueError, match="validation part is empty"):
        train(empty, dataclasses.replace(TINY, **options), cache=cache)
    assert not cache.root.exists()
    head_only = dataclasses.replace(TINY, unfreeze_from=None)
    assert train(empty, head_only, cache=cache).images_computed == 2 * len(splits.train)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "svm"}, "head='svm'"),
        ({"optimizer": "sgd"}, "optimizer='sgd'"),
        ({"views": 0}, "views=0"),
        ({"epochs": -1}, "epochs=-1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"rotation": 2.0}, "rotation=2.0"),
        ({"horizontal_flip": False, "rotation": 0.0, "zoom": 0.0, "views": 2}, "expected views=1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _ = TrainConfig(**options).augmentation
