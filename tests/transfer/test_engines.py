"""The same numbers, whoever computes them."""

import keras
import numpy as np
import pytest

from safelight import datasets
from safelight.transfer import backbones, engines, ncnn_engine
from safelight.transfer.augmentation import ViewMaker
from safelight.transfer.config import Augmentation
from safelight.transfer.features import FeatureExtractor, FeatureLayer

LAYERS = [
    FeatureLayer("block2_conv1"),
    FeatureLayer("block3_pool", "avg"),
    FeatureLayer("block3_pool", "max"),
    FeatureLayer("block4_pool"),
    FeatureLayer("block5_pool", "avg"),
]
OTHERS = [
    pytest.param("ncnn", marks=pytest.mark.skipif(not ncnn_engine.is_installed(), reason="extra")),
    pytest.param("openvino", marks=pytest.mark.slow),
]


def need(engine: str) -> None:
    pytest.importorskip(engine)


@pytest.fixture(scope="module")
def vgg() -> keras.Model:
    """Odd sides: pools then leave a row out, and planes do not end where ncnn would like."""
    keras.utils.set_random_seed(1)
    model = backbones.load_backbone("vgg16", image_size=(70, 54), weights=None)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([1.5 * kernel, rng.normal(0, 5, bias.shape)])
    return model


@pytest.mark.parametrize("engine", OTHERS)
def test_engines_agree_on_every_kind_of_output(vgg, cache, shapes, engine):
    need(engine)
    maker = ViewMaker(Augmentation(horizontal_flip=True))
    found = {
        name: FeatureExtractor(vgg, precision="float32", cache=cache, engine=name)
        for name in ("keras", engine)
    }
    rows = {
        name: each.extract(shapes, LAYERS, views=maker, num_views=2) for name, each in found.items()
    }
    assert [each.num_computed for each in found.values()] == [24, 24]  # never the other's rows
    for layer in LAYERS:
        for view in range(2):
            ours, keras_own = (rows[name][layer].gather(view=view) for name in (engine, "keras"))
            assert ours.shape == keras_own.shape
            scale = np.abs(keras_own).max()
            assert scale > 0
            np.testing.assert_allclose(ours, keras_own, atol=1e-4 * scale)


def test_ncnn_does_not_see_the_neighbours_in_a_batch(vgg, cache):
    need("ncnn")
    trunk = keras.Model(vgg.get_layer("resizing").output, vgg.get_layer("block3_pool").output)
    run = engines.build_engine("ncnn", trunk, precision="float32")
    pixels = np.random.default_rng(0).uniform(0, 255, (5, 70, 54, 3)).astype("float32")
    (together,) = run(pixels)
    alone = np.concatenate([run(pixels[i : i + 1])[0] for i in range(5)])
    np.testing.assert_array_equal(together, alone)


def test_a_layer_read_twice_and_a_plain_valid_convolution_are_translated():
    need("ncnn")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((11, 9, 3))
    x = keras.layers.Conv2D(7, (3, 2), strides=(2, 1), use_bias=False, name="a")(inputs)
    y = keras.layers.Conv2D(5, 1, activation="relu", name="b")(x)
    z = keras.layers.MaxPooling2D((2, 3), strides=(1, 2), name="c")(x)
    model = keras.Model(inputs, [x, y, z, keras.layers.Dropout(0.5, name="d")(y)])
    pixels = np.random.default_rng(0).normal(size=(4, 11, 9, 3)).astype("float32")
    expected = model.predict_on_batch(pixels)
    for ours, theirs in zip(ncnn_engine.NcnnTrunk(model)(pixels), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_activations_derived_from_a_cut_are_the_same_engine_s(vgg, cache, shapes):
    need("ncnn")
    cut, head = FeatureLayer("block4_pool"), FeatureLayer("block5_pool", "avg")
    extractor = FeatureExtractor(vgg, precision="float32", cache=cache, engine="ncnn")
    extractor.extract(shapes, [cut])
    derived = extractor.extract(shapes, [cut, head])[head].gather()
    assert extractor.num_computed == len(shapes)
    fresh = FeatureExtractor(vgg, precision="float32", cache=cache, engine="keras")
    np.testing.assert_allclose(
        derived, fresh.extract(shapes, [head])[head].gather(), rtol=1e-4, atol=1e-3
    )


def test_auto_takes_ncnn_for_what_it_knows(vgg, network, monkeypatch):
    monkeypatch.setattr(ncnn_engine, "is_installed", lambda: True)
    assert engines.choose_engine("auto", vgg.layers[2:], precision="float32") == "ncnn"
    assert engines.choose_engine("auto", vgg.layers[2:], precision="bfloat16") == "keras"
    assert engines.choose_engine("auto", network.layers, precision="float32") == "keras"
    monkeypatch.setattr(ncnn_engine, "is_installed", lambda: False)
    assert engines.choose_engine("auto", vgg.layers[2:], precision="float32") == "keras"


def test_auto_takes_openvino_where_the_processor_has_amx(vgg, monkeypatch):
    monkeypatch.setattr(engines, "_processor_flags", lambda: frozenset({"amx_bf16"}))
    for there, expected in ((True, "openvino"), (False, "keras")):
        monkeypatch.setattr(engines, "_has_openvino", lambda there=there: there)
        assert engines.choose_engine("auto", vgg.layers, precision="bfloat16") == expected


@pytest.mark.parametrize(
    ("engine", "installed", "precision", "layers", "words"),
    [
        ("caffe", True, "float32", "vgg", "expected one of auto"),
        ("ncnn", False, "float32", "vgg", "pip install"),
        ("ncnn", True, "bfloat16", "vgg", "float32"),
        ("ncnn", True, "float32", "other", "VGG"),
    ],
)
def test_an_engine_that_cannot_is_refused(
    vgg, network, monkeypatch, engine, installed, precision, layers, words
):
    monkeypatch.setattr(ncnn_engine, "is_installed", lambda: installed)
    chosen = {"vgg": vgg.layers[2:], "other": network.layers}[layers]
    with pytest.raises(ValueError, match=words):
        engines.choose_engine(engine, chosen, precision=precision)


@pytest.mark.slow
@pytest.mark.assets
def test_with_the_real_weights_features_agree_to_a_millionth(cache):
    need("ncnn")
    cells = datasets.load("elpv").subset(np.arange(0, 2624, 400))
    network = backbones.load_backbone("vgg16")
    layers = [FeatureLayer(f"block{n}_pool", kind) for n in (3, 4, 5) for kind in ("avg", "max")]
    ours, theirs = (
        FeatureExtractor(network, precision="float32", cache=cache, engine=name).extract(
            cells, layers
        )
        for name in ("ncnn", "keras")
    )
    for layer in layers:
        a, b = ours[layer].gather(), theirs[layer].gather()
        assert np.abs(a - b).max() < 1e-5 * np.abs(b).max()


@pytest.mark.slow
def test_many_outputs_keep_their_order():
    """OpenVINO sorts them by name, output_10 before output_2."""
    need("openvino")
    pixels = keras.Input((4, 4, 3))
    scaled = [keras.layers.Rescaling(factor)(pixels) for factor in range(1, 13)]
    trunk = keras.Model(pixels, [keras.layers.GlobalAveragePooling2D()(each) for each in scaled])
    run = engines.build_engine("openvino", trunk, precision="float32")
    found = [rows[0, 0] for rows in run(np.ones((2, 4, 4, 3), "float32"))]
    np.testing.assert_allclose(found, np.arange(1, 13))
