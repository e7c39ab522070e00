import dataclasses

import keras
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

from safelight.transfer import backbones, models, training
from safelight.transfer.augmentation import BatchAugmenter, ViewMaker
from safelight.transfer.batches import FeatureBatches, ImageBatches
from safelight.transfer.calibration import fit_temperature, log_loss
from safelight.transfer.config import Augmentation, TrainConfig
from safelight.transfer.features import FeatureExtractor, FeatureLayer
from safelight.transfer.fine_tuning import KeepBest, WeightAverage, fine_tune
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


def head_problem(learning_rate: float, **options):
    """A head that starts perfect or from zero on separable points, its data, its settings."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    rows = (rng.normal(0, 1, (40, 3)) + 2 * labels[:, None]).astype("float32")
    targets = np.eye(2, dtype="float32")[labels]

    class Rows(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return rows[i * 10 : i * 10 + 10], targets[i * 10 : i * 10 + 10]

    keras.utils.set_random_seed(0)
    config = dataclasses.replace(TINY, learning_rate=learning_rate, **options)
    return models.build_head(3, 2), Rows(), config


def loss_of(model, data) -> float:
    return model.evaluate(data, verbose=0, return_dict=True)["loss"]


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_training_that_makes_it_worse_gives_the_start_back(optimizer):
    model, data, config = head_problem(0.1, epochs=10)
    fine_tune(model, data, data, config=config)
    start = [w.copy() for w in model.get_weights()]
    config = dataclasses.replace(config, learning_rate=1e4, patience=2, optimizer=optimizer)
    tuned = fine_tune(model, data, data, config=config)
    history = tuned.history
    assert all((a == b).all() for a, b in zip(start, model.get_weights(), strict=True))
    assert history["epoch"] == [0.0, 1.0, 2.0]
    assert min(history["val_loss"]) == history["val_loss"][0]
    assert not tuned.interrupted
    assert tuned.kept == "epoch 0"


def test_the_best_epoch_is_what_remains():
    model, data, config = head_problem(3.0, epochs=8, patience=8, weight_averaging=False)
    tuned = fine_tune(model, data, data, config=config)
    history = tuned.history
    assert tuned.kept == f"epoch {int(np.argmin(history['val_loss']))}"
    assert loss_of(model, data) == pytest.approx(min(history["val_loss"]), rel=1e-5)
    assert {len(column) for column in history.values()} == {9}
    assert np.isnan([history["loss"][0], history["accuracy"][0]]).all()


@pytest.mark.parametrize("stop_at", [1, 4, 10])
def test_ctrl_c_keeps_the_best_so_far(stop_at):
    model, data, config = head_problem(0.05, epochs=5)
    calls = []

    def report(*_):
        calls.append([w.copy() for w in model.get_weights()])
        if len(calls) == stop_at:
            raise KeyboardInterrupt

    config = dataclasses.replace(config, weight_averaging=False)
    tuned = fine_tune(model, data, data, config=config, report=report)
    history = tuned.history
    assert tuned.interrupted
    whole_epochs = (stop_at - 1) // 4
    assert len(history["val_loss"]) == whole_epochs + 1
    assert loss_of(model, data) == pytest.approx(min(history["val_loss"]), rel=1e-5)
    assert {len(column) for column in history.values()} == {whole_epochs + 1}


def test_the_average_of_the_second_half_is_kept_where_no_epoch_is_clearly_better():
    model, data, config = head_problem(0.3, epochs=40, patience=40)
    fine_tune(model, data, data, config=config)  # to the optimum, about which it then wanders
    config = dataclasses.replace(config, epochs=6, patience=6)
    after_epoch, losses = [], []

    class Watched(type(data)):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            if i == 0:  # validation begins, so an epoch has ended
                after_epoch.append(model.get_weights())
            return data[i]

    tuned = fine_tune(model, data, Watched(), config=config)
    expected = [np.mean(weights, axis=0) for weights in zip(*after_epoch[4:7], strict=True)]
    assert tuned.kept == "average of epochs 4 to 6"
    for mean, weight in zip(expected, model.get_weights(), strict=True):
        np.testing.assert_allclose(mean, weight, rtol=1e-5, atol=1e-7)
    for weights in after_epoch[:7]:
        model.set_weights(weights)
        losses.append(loss_of(model, data))
    np.testing.assert_allclose(losses, tuned.history["val_loss"], rtol=1e-5)


def test_the_average_gives_way_to_an_epoch_that_is_better_by_a_standard_error():
    """The first epoch is good, then a huge rate throws the weights far away."""
    model, data, config = head_problem(0.05, epochs=4, patience=9)
    epochs = []

    class Thrown(type(data)):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return data[i]

        def on_epoch_end(self):
            epochs.append(model.get_weights())
            if len(epochs) > 1:
                model.set_weights([*epochs[0][:-2], -9 * epochs[0][-2], epochs[0][-1]])

    tuned = fine_tune(model, Thrown(), data, config=config)
    assert tuned.kept == f"epoch {int(np.argmin(tuned.history['val_loss']))}"
    assert loss_of(model, data) == pytest.approx(min(tuned.history["val_loss"]), rel=1e-5)


def test_an_average_of_weights_is_their_mean_from_its_first_epoch_on():
    model = models.build_head(2, 2)
    average = WeightAverage(model, 2)
    for epoch, value in enumerate([7.0, 1.0, 2.0, 6.0], start=1):
        model.set_weights([np.full_like(w, value) for w in model.get_weights()])
        average.update(epoch)
    assert average.count == 3
    assert average.put() == "average of epochs 2 to 4"
    assert all(np.allclose(w, 3.0) for w in model.get_weights())


def test_patience_counts_from_the_best_epoch():
    keep = KeepBest(models.build_head(2, 2), 1.0, patience=2)
    losses = [0.9, 0.95, 0.8, float("nan"), 0.81]
    stopped = [keep.update(epoch, loss) for epoch, loss in enumerate(losses, start=1)]
    assert stopped == [False, False, False, False, True]
    assert (keep.best, keep.best_epoch) == (0.8, 3)


@pytest.mark.parametrize("counts", [(5, 5), (9, 1), (2, 7, 4)])
def test_class_weights_average_to_one_and_are_scikit_learn_s(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    weights = balanced_weights(np.eye(len(counts), dtype="float32")[labels])
    np.testing.assert_allclose(weights, compute_sample_weight("balanced", labels), rtol=1e-6)
    assert weights.mean() == pytest.approx(1)


def test_soft_class_weights_average_to_one():
    targets = np.random.default_rng(0).dirichlet([1, 3, 0.5], 50).astype("float32")
    assert balanced_weights(targets).mean() == pytest.approx(1, rel=1e-5)


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


@pytest.mark.parametrize("unfreeze_from", [None, "block3"])
def test_calibration_changes_no_answer_and_lowers_the_held_out_loss(
    eager, tiny, splits, cache, unfreeze_from
):
    config = dataclasses.replace(TINY, unfreeze_from=unfreeze_from, learning_rate=1e-2)
    plain, calm = (
        train(splits, dataclasses.replace(config, calibrated=on), cache=cache)
        for on in (False, True)
    )
    logits = [
        predict_logits(t.model, splits.test, config=config, cache=cache) for t in (plain, calm)
    ]

    assert plain.temperature == 1.0 != calm.temperature
    np.testing.assert_allclose(logits[1] * calm.temperature, logits[0], rtol=1e-4, atol=1e-5)
    if unfreeze_from:
        part = splits.validation
        before, after = (
            log_loss(predict_logits(t.model, part, config=config, cache=cache), part.labels)
            for t in (plain, calm)
        )
        assert after < before + 0.02


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
