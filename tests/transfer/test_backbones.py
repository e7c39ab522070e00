import json
import re

import keras
import numpy as np
import pytest

from safelight.images import resize
from safelight.transfer import backbones
from safelight.transfer.features import weights_digest


def read_edges(model: keras.Model) -> dict[str, list[str]]:
    """For each layer the names that it reads from."""
    pattern = r'"keras_history": \["(\w+)"'
    return {
        entry["name"]: re.findall(pattern, json.dumps(entry["inbound_nodes"]))
        for entry in model.get_config()["layers"]
    }


def reaches_end(edges: dict[str, list[str]], without: str) -> bool:
    """Brute force: whether the input still reaches the last layer with one taken out."""
    reached = {name for name, sources in edges.items() if not sources} - {without}
    for _ in edges:
        new = {n for n, sources in edges.items() if n != without and reached & set(sources)}
        if new <= reached:
            break
        reached |= new
    return list(edges)[-1] in reached


def brute_force_cut(model: keras.Model, first: str) -> str:
    edges = read_edges(model)
    upstream = {layer.name for layer in backbones.layers_until(model, first)} - {first}
    cuts = [name for name in upstream if not reaches_end(edges, name)]
    # Of two dominators one lies below the other: the deepest depends on all the rest.
    return max(cuts, key=lambda name: len(backbones.layers_until(model, name)))


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("block1_bn", "block1_conv"),
        ("block2_conv", "block1_pool"),
        ("block2_relu", "block1_pool"),
        ("block2_add", "block1_pool"),
        ("block3_bn", "block2_drop"),
        ("block4_conv", "block3_add"),
        ("block4", "block3_add"),
        ("block4_pool", "block4_relu"),
    ],
)
def test_cut_is_the_last_bottleneck_before_a_layer(network, first, expected):
    assert backbones.cut_layer(network, first) == expected
    assert brute_force_cut(network, backbones.get_layer(network, first).name) == expected


@pytest.mark.parametrize(
    ("first", "expected"),
    [("block5_conv1", "block4_pool"), ("block5_conv3", "block5_conv2"), ("block4", "block3_pool")],
)
def test_cut_of_a_chain_is_the_layer_before(vgg16, first, expected):
    assert (
        backbones.cut_layer(vgg16, first)
        == expected
        == brute_force_cut(vgg16, backbones.get_layer(vgg16, first).name)
    )


@pytest.mark.parametrize("first", ["block_15_project", "block_16_project_BN"])
def test_cut_of_a_real_branched_network(mobilenet, first):
    assert backbones.cut_layer(mobilenet, first) == brute_force_cut(mobilenet, first)


def test_no_cut_below_the_first_layer(network):
    with pytest.raises(ValueError, match="leaves no layer below"):
        backbones.cut_layer(network, "images")


@pytest.mark.parametrize(
    ("name", "near"), [("block5_conv9", "block5_conv"), ("blok5_pool", "block5_pool")]
)
def test_unknown_layers_give_near_names(vgg16, name, near):
    with pytest.raises(ValueError, match=f"{name}.*near names are .*{near}"):
        backbones.freeze(vgg16, until=name)


def conv_weights(inputs: int, outputs: int) -> int:
    return 3 * 3 * inputs * outputs + outputs


BLOCK5 = 3 * conv_weights(512, 512)


@pytest.mark.parametrize(
    ("until", "open_weights"),
    [
        ("block5_pool", 0),
        ("block4_pool", BLOCK5),
        ("block3_pool", BLOCK5 + conv_weights(256, 512) + 2 * conv_weights(512, 512)),
        ("preprocessing", 14_714_688),
    ],
)
def test_frozen_weights_of_vgg16_by_arithmetic(vgg16, until, open_weights):
    frozen = backbones.freeze(vgg16, until=until)
    trainable = sum(int(np.prod(w.shape)) for w in vgg16.trainable_weights)
    vgg16.trainable = True
    assert (frozen, trainable) == (14_714_688 - open_weights, open_weights)


def test_unfreeze_from_opens_the_block_and_what_follows(network):
    assert backbones.unfreeze_from(network, "block3") == "block2_drop"
    state = {layer.name: layer.trainable for layer in network.layers if layer.weights}
    assert state == {name: name[:6] in ("block3", "block4") for name in state}


def test_a_frozen_batchnorm_ignores_its_neighbours_and_keeps_its_statistics(network, hash_layers):
    backbones.freeze(network, until="block4_pool")
    before = hash_layers(network)
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    network.get_layer("block2_drop").rate = 0.0
    alone, together = (network(images[:k], training=True) for k in (1, 3))
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-5, atol=1e-6)
    assert hash_layers(network) == before


@pytest.mark.parametrize("shape", [(20, 31, 3), (64, 48, 3), (16, 24, 3), (9, 5, 1), (300, 200, 1)])
def test_resizing_inside_the_model_equals_the_one_outside(shape):
    images = np.random.default_rng(1).integers(0, 256, (2, *shape), np.uint8)
    inside = backbones.ImageResizing(16, 24)(images)
    outside = np.stack([resize(image, (16, 24)) for image in images])
    assert inside.shape == (2, 16, 24, 3)
    np.testing.assert_allclose(inside, np.broadcast_to(outside, inside.shape), atol=0.01 * 2.55)


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch"])
def test_preprocessing_equals_that_of_keras_applications(mode):
    pixels = np.random.default_rng(2).uniform(0, 255, (2, 5, 4, 3)).astype("float32")
    expected = keras.applications.imagenet_utils.preprocess_input(
        pixels.copy(), data_format="channels_last", mode=mode
    )
    np.testing.assert_allclose(
        backbones.ImageNetPreprocessing(mode)(pixels), expected, rtol=1e-5, atol=1e-4
    )


def test_preprocessing_none_leaves_pixels_alone():
    pixels = np.ones((1, 2, 2, 3), "float32")
    np.testing.assert_array_equal(backbones.ImageNetPreprocessing("none")(pixels), pixels)
    with pytest.raises(ValueError, match="caffe"):
        backbones.ImageNetPreprocessing("imagenet")


def test_a_grey_image_equals_itself_three_times(build_network):
    grey, colour = build_network(channels=1), build_network()
    grey.set_weights(colour.get_weights())
    image = np.random.default_rng(3).integers(0, 256, (2, 21, 30, 1), np.uint8)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(grey(image)),
        keras.ops.convert_to_numpy(colour(np.repeat(image, 3, -1))),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("batch", [(1, 16, 24, 3), (3, 50, 20, 3), (7, 8, 8, 3)])
def test_a_saved_model_answers_alike_in_safe_mode(build_network, tmp_path, batch):
    model = build_network((16, 24))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    images = np.random.default_rng(4).integers(0, 256, batch, np.uint8)
    found, expected = (keras.ops.convert_to_numpy(each(images)) for each in (again, model))
    np.testing.assert_array_equal(found, expected)
    assert again.output_shape == model.output_shape


def test_a_copy_shares_nothing_and_keeps_flags(network, hash_layers):
    backbones.freeze(network, until="block2_drop")
    copy = backbones.copy_model(network, precision="bfloat16")
    before = hash_layers(network)
    assert hash_layers(copy) == before
    assert [la.trainable for la in copy.layers] == [la.trainable for la in network.layers]
    assert copy.get_layer("block1_conv").compute_dtype == "bfloat16"
    assert copy.get_layer("preprocessing").compute_dtype == "float32"
    first = [net.get_layer("block1_conv").kernel_initializer for net in (copy, network)]
    assert first[0].get_config() == first[1].get_config()  # not the zeros it was copied with
    copy.set_weights([w + 1 for w in copy.get_weights()])
    assert hash_layers(network) == before


def test_the_dtype_policy_comes_back_after_an_error():
    before = keras.config.dtype_policy().name
    with pytest.raises(ZeroDivisionError), backbones.dtype_policy("mixed_bfloat16"):
        _ = 1 / 0
    assert keras.config.dtype_policy().name == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vgg17"}, "vgg17.*expected one of vgg16"),
        ({"name": "vgg16", "image_size": 31}, "at least 32"),
        ({"name": "vgg16", "image_size": (224, 8)}, "at least 32"),
    ],
)
def test_what_load_backbone_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        backbones.load_backbone(weights=None, **arguments)


def test_weights_come_from_a_file_too(vgg16, tmp_path, hash_layers):
    vgg16.save_weights(tmp_path / "own.weights.h5")
    again = backbones.load_backbone(
        "vgg16", image_size=(32, 40), weights=tmp_path / "own.weights.h5"
    )
    assert hash_layers(again) == hash_layers(vgg16)
    assert again.output_shape == (None, 1, 1, 512)


@pytest.mark.slow
@pytest.mark.parametrize("row", backbones.BACKBONES.values(), ids=lambda row: row.name)
def test_every_row_of_the_table_can_be_cut_where_it_says(row):
    model = backbones.load_backbone(row.name, image_size=64, weights=None)
    cut = backbones.unfreeze_from(model, row.unfreeze_from)
    first = backbones.get_layer(model, row.unfreeze_from).name
    assert cut == brute_force_cut(model, first)
    frozen, total = (
        sum(backbones.count_weights(layer) for layer in layers)
        for layers in (backbones.layers_until(model, cut), model.layers)
    )
    assert 0.2 < frozen / total < 1


@pytest.mark.slow
@pytest.mark.parametrize("row", backbones.BACKBONES.values(), ids=lambda row: row.name)
def test_the_same_network_built_again_has_the_same_names_and_key(row):
    """Keras counts layers without a name, and a key with such a name would never be found again."""
    first, second = (
        backbones.load_backbone(row.name, image_size=64, weights=None) for _ in range(2)
    )
    second.set_weights(first.get_weights())
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    one, other = (weights_digest(backbones.copy_model(each).layers) for each in (first, second))
    assert one == other


@pytest.mark.slow
def test_a_network_whose_sums_are_no_layers_is_copied():
    model = backbones.load_backbone("convnexttiny", image_size=32, weights=None)
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 30, 3), np.uint8)
    wanted = model.predict_on_batch(images)
    for precision, tolerance in (("float32", 1e-4), ("bfloat16", 0.2)):
        copy = backbones.copy_model(model, precision=precision)
        found = np.asarray(copy.predict_on_batch(images), "float32")
        assert np.abs(found - wanted).max() < tolerance * np.abs(wanted).max()


@pytest.mark.slow
def test_a_cut_is_a_layer_where_sums_are_none():
    model = backbones.load_backbone("convnexttiny", image_size=64, weights=None)
    layers = {layer.name for layer in model.layers}
    cut = backbones.cut_layer(model, "convnext_tiny_stage_3_block_1")
    assert cut in layers
    assert cut == "convnext_tiny_downsampling_block_2"
    assert backbones.cut_layer(model, "convnext_tiny_stage_2_block_5") in layers
