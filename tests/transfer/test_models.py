import keras
import numpy as np
import pytest

from safelight.transfer import backbones, models
from safelight.transfer.augmentation import turn
from safelight.transfer.features import FeatureExtractor, FeatureLayer
from safelight.transfer.prediction import predict

RAW = np.random.default_rng(0).integers(0, 256, (5, 20, 24, 3), np.uint8)
LAST, CUT, LOWER = "block4_pool", "block3_add", "block2_drop"


def spoken(model: keras.Model) -> keras.Model:
    """With a head that says something: random standardisation and weights, moderate logits."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if layer.name.startswith("head_") and layer.weights:
            layer.set_weights([rng.uniform(0.2, 1.0, w.shape) for w in layer.get_weights()])
    return model


def numbers(model: keras.Model, inputs) -> np.ndarray:
    """What it says, as an array on every backend."""
    return keras.ops.convert_to_numpy(model(inputs))


def logits_to_probabilities(logits) -> np.ndarray:
    e = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def cached_answers(classifier, kept, cache, dataset) -> np.ndarray:
    extractor = FeatureExtractor(classifier, precision="float32", cache=cache)
    found = extractor.extract(dataset, kept)
    rows = [found[layer].gather() for layer in kept]
    tail = models.build_tail(classifier, kept)
    return logits_to_probabilities(tail.predict_on_batch(rows if len(rows) > 1 else rows[0]))


POOLED = [FeatureLayer(CUT, "avg"), FeatureLayer(LAST, "avg"), FeatureLayer(LAST, "max")]


@pytest.mark.parametrize("hidden_units", [None, 7])
@pytest.mark.parametrize(
    ("head", "kept"),
    [(POOLED, [FeatureLayer(CUT)]), (POOLED, POOLED), (POOLED[1:2], POOLED[1:2])],
    ids=["cut", "all head layers", "one head layer"],
)
def test_the_joined_model_answers_as_cached_rows_and_tail(
    eager, network, cache, shapes, head, kept, hidden_units
):
    options = {"dropout": 0.4, "hidden_units": hidden_units}
    classifier = spoken(models.build_classifier(network, head, 3, **options))
    tail = models.build_tail(classifier, kept)
    tail.set_weights([w * 1.1 for w in tail.get_weights()])
    joined = models.join(classifier, tail)
    cached = cached_answers(joined, kept, cache, shapes)
    raw = np.stack([shapes.read(i) for i in range(len(shapes))])
    np.testing.assert_allclose(numbers(joined, raw), cached, atol=1e-4)
    np.testing.assert_allclose(predict(joined, list(raw)), cached, atol=1e-4)
    assert cached.std(0).max() > 1e-3


def test_vgg16_joined_equals_cached_tail(vgg16, cache, shapes, tmp_path):
    head = [FeatureLayer("block4_pool", "avg"), FeatureLayer("block5_pool", "avg")]
    classifier = models.build_classifier(vgg16, head, 2)
    features = FeatureExtractor(vgg16, precision="float32", cache=cache).extract(shapes, head)
    stacked = np.concatenate([features[layer].gather() for layer in head], axis=1)
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(0, 0.05, (stacked.shape[1], 2)), np.array([0.1, -0.2])
    scale = stacked.std(0) + 1e-6
    models.set_linear_head(classifier, stacked.mean(0), scale, kernel, bias)
    cached = cached_answers(classifier, [FeatureLayer("block4_pool")], cache, shapes)
    by_hand = logits_to_probabilities((stacked - stacked.mean(0)) / scale @ kernel + bias)
    np.testing.assert_allclose(cached, by_hand, atol=1e-4)
    classifier.save(tmp_path / "m.keras")
    saved = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    raw = [shapes.read(i) for i in range(len(shapes))]
    np.testing.assert_allclose(saved.predict(np.stack(raw), verbose=0), cached, atol=1e-4)
    np.testing.assert_allclose(predict(saved, raw), cached, atol=1e-4)


@pytest.mark.parametrize("symmetries", [(0, 4), (0, 4, 6, 2), (0, 4, 6, 2, 1, 3, 5, 7)])
def test_averaged_views_are_the_mean_of_what_each_turned_picture_gives(
    eager, network, tmp_path, symmetries
):
    raw = RAW[:, :20, :20]
    classifier = spoken(models.build_classifier(network, POOLED, 3))
    averaged = models.average_views(classifier, symmetries)
    log_probabilities = [
        np.log(numbers(classifier, np.ascontiguousarray(turn(raw, symmetry))))
        for symmetry in symmetries
    ]
    expected = logits_to_probabilities(np.mean(log_probabilities, axis=0))

    averaged.save(tmp_path / "m.keras")
    saved = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    assert models.symmetries_of(saved) == symmetries
    for model in (averaged, saved):
        np.testing.assert_allclose(numbers(model, raw), expected, atol=1e-5)
        np.testing.assert_allclose(predict(model, list(raw)), expected, atol=1e-5)
    assert np.ptp([np.exp(each) for each in log_probabilities], axis=0).max() > 1e-3


def test_quarter_turns_need_square_pictures(build_network):
    classifier = models.build_classifier(build_network((16, 20)), POOLED, 3)
    models.average_views(classifier, (0, 4))
    with pytest.raises(ValueError, match="square image_size"):
        models.average_views(classifier, (0, 1))


def test_a_temperature_divides_all_logits(network):
    classifier = spoken(models.build_classifier(network, POOLED, 3))
    before = np.log(numbers(classifier, RAW))
    models.cool(classifier, 2.5)
    after = logits_to_probabilities(before / 2.5)
    np.testing.assert_allclose(numbers(classifier, RAW), after, atol=1e-5)


@pytest.mark.parametrize("num_images", [0, 1, 33])
def test_predict_takes_any_number_and_any_sizes(eager, network, num_images):
    classifier = spoken(models.build_classifier(network, POOLED, 3))
    rng = np.random.default_rng(2)
    images = [
        rng.integers(0, 256, (*rng.integers(8, 40, 2), 3), np.uint8) for _ in range(num_images)
    ]
    found = predict(classifier, images)
    assert found.shape == (num_images, 3)
    for image, row in zip(images, found, strict=True):
        np.testing.assert_allclose(numbers(classifier, image[None])[0], row, atol=2e-3)


def test_the_pixel_model_is_the_classifier_without_resizing_and_softmax(network):
    classifier = spoken(models.build_classifier(network, POOLED, 3))
    pixels = network.get_layer("resizing")(RAW)
    logits = numbers(models.build_pixel_model(classifier, cut=CUT), pixels)
    expected = numbers(classifier, RAW)
    np.testing.assert_allclose(logits_to_probabilities(logits), expected, atol=1e-5)


@pytest.mark.parametrize(
    "build",
    [
        lambda c: models.build_tail(c, [FeatureLayer(CUT)]),
        lambda c: models.build_pixel_model(c, cut=CUT),
    ],
    ids=["tail", "pixel model"],
)
def test_tails_share_nothing_with_the_classifier_until_joined(network, hash_layers, build):
    classifier = spoken(models.build_classifier(network, POOLED, 3))
    before = hash_layers(classifier)
    part = build(classifier)
    part.set_weights([w + 1 for w in part.get_weights()])
    assert hash_layers(classifier) == before
    models.join(classifier, part)
    moved = {name for name, value in hash_layers(classifier).items() if value != before[name]}
    assert moved == set(hash_layers(part))


@pytest.mark.parametrize(("cut", "open_from"), [(CUT, "block4"), (LOWER, "block3"), (None, "bl")])
def test_the_pixel_model_freezes_up_to_the_cut(network, cut, open_from):
    pixel_model = models.build_pixel_model(models.build_classifier(network, POOLED, 2), cut=cut)
    blocks = [la for la in pixel_model.layers if la.weights and not la.name.startswith("head_")]
    assert {la.name for la in blocks if la.trainable} == {
        la.name for la in blocks if la.name >= open_from
    }


def test_a_tail_below_what_the_head_reads_is_refused(network):
    head = [FeatureLayer(LOWER, "avg"), FeatureLayer(LAST, "avg")]
    classifier = models.build_classifier(network, head, 2)
    with pytest.raises(ValueError, match="at or above the cut"):
        models.build_tail(classifier, [FeatureLayer(CUT)])


@pytest.mark.parametrize(
    ("layers", "num_classes", "message"),
    [
        ([FeatureLayer(LAST, "avg")], 1, "at least two"),
        ([FeatureLayer(LAST)], 2, "not pooled"),
        ([FeatureLayer("block7", "avg")], 2, "no layer or block 'block7'"),
    ],
)
def test_what_build_classifier_refuses(network, layers, num_classes, message):
    with pytest.raises(ValueError, match=message):
        models.build_classifier(network, layers, num_classes)


def test_join_refuses_layers_that_the_classifier_lacks(network):
    classifier = models.build_classifier(network, POOLED, 2)
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="elsewhere")])
    with pytest.raises(ValueError, match="no layer 'elsewhere'"):
        models.join(classifier, other)


def test_the_head_computes_in_float32_whatever_the_policy(network):
    with backbones.dtype_policy("mixed_bfloat16"):
        classifier = models.build_classifier(network, POOLED, 2)
    heads = [la for la in classifier.layers if la.name.startswith("head_")]
    assert {la.compute_dtype for la in heads} == {"float32"}
    tail = models.build_tail(classifier, [FeatureLayer(CUT)], precision="bfloat16")
    dtypes = {la.name: la.compute_dtype for la in tail.layers if la.weights}
    assert {name for name, dtype in dtypes.items() if dtype == "float32"} == {
        name for name in dtypes if name.startswith("head_")
    }
    assert {str(w.dtype) for w in tail.weights} == {"float32"}


def test_standardize_is_its_formula():
    layer = models.Standardize()
    x = np.random.default_rng(3).normal(size=(4, 3)).astype("float32")
    layer.build(x.shape)
    layer.set_weights([np.array([1.0, 2, 3]), np.array([0.5, 1, 4])])
    np.testing.assert_allclose(layer(x), (x - [1, 2, 3]) / [0.5, 1, 4], rtol=1e-6, atol=1e-6)
    assert layer.trainable_weights == []
