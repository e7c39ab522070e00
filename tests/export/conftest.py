"""A classifier of small shapes whose head was drawn, as a run; nothing is trained."""

import keras
import numpy as np
import pytest

from safelight import datasets
from safelight.runs import Run
from safelight.transfer import backbones, heads, kernel_heads, models, prediction
from safelight.transfer.features import FeatureLayer

SIZE = 24


def _build_backbone():
    """Many kinds of layers that the networks of the table are made of."""
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    x = backbones.ImageResizing(SIZE, SIZE, name="resizing")(images)
    x = backbones.ImageNetPreprocessing("caffe", name="preprocessing")(x)
    x = keras.layers.ZeroPadding2D(1, name="block1_pad")(x)
    x = keras.layers.Conv2D(8, 3, strides=2, name="block1_conv")(x)
    x = keras.layers.BatchNormalization(name="block1_bn")(x)
    x = keras.layers.ReLU(6.0, name="block1_relu")(x)
    before = x
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="block2_depthwise")(x)
    x = keras.layers.Activation("swish", name="block2_swish")(x)
    x = keras.layers.Dropout(0.5, name="block2_drop")(x)
    x = keras.layers.Add(name="block2_add")([before, x])
    x = keras.layers.LayerNormalization(name="block3_norm")(x)
    x = keras.layers.Conv2D(12, 1, activation="gelu", name="block3_conv")(x)
    x = keras.layers.MaxPooling2D(name="block3_pool")(x)
    model = keras.Model(images, x, name="small")
    # Drawn here, since each backend draws others; and a fresh BatchNormalization is the identity.
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.name.endswith(("_bn", "_norm")):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.weights])
        elif layer.weights:
            kernel, bias = layer.weights
            scale = np.sqrt(2 / np.prod(kernel.shape[:3]))
            layer.set_weights([
                rng.normal(0, scale, kernel.shape), rng.normal(0, 0.1, bias.shape)
            ])  # fmt: skip
    return model


def _build_classifier(*, symmetries=(0,), kernel=False):
    """A classifier of shapes, its head fitted on some of them."""
    layers = [FeatureLayer("block2_add", "avg"), FeatureLayer("block3_pool", "max")]
    shown = datasets.make_shapes(36, image_size=40, num_classes=3, seed=7)
    pixels = [shown.read(number) for number in range(len(shown))]
    built = models.build_classifier(
        _build_backbone(), layers, 3, num_landmarks=len(shown) if kernel else None
    )
    targets = np.eye(3)[shown.labels]
    features = prediction.answer(built, pixels).features[:, None, :]
    if kernel:
        head = kernel_heads.fit_kernel_head(features, targets, widths=models.head_widths(built))
        models.set_kernel_head(built, head)
    else:
        head = heads.fit_logistic_head(features, targets)
        models.set_linear_head(built, head.mean, head.scale, head.kernel, head.bias)
    # One that says the same of all, or nearly, would hide a mistake.
    models.cool(built, float(prediction.answer(built, pixels).logits.std(axis=0).max()))
    said = prediction.predict(built, pixels)
    assert len(set(said.argmax(1))) > 1
    assert said.max(1).std() > 0.01
    return models.average_views(built, symmetries) if len(symmetries) > 1 else built


@pytest.fixture(scope="session")
def build_classifier():
    return _build_classifier


@pytest.fixture(scope="session")
def dataset():
    return datasets.make_shapes(90, image_size=40, num_classes=3)


def _make_run(folder, dataset, classifier):
    splits = datasets.split(dataset, seed=0)
    run = Run.create(folder)
    run.write_config({
        "kind": "transfer",
        "dataset": {
            "name": "shapes", "class_names": list(dataset.class_names),
            "num_images": len(dataset), "fingerprint": dataset.fingerprint,
        },
        "split": {"digests": {
            name: [dataset.digests[i][:16] for i in rows] for name, rows in splits.indices.items()
        }},
        "settings": {},
    })  # fmt: skip
    classifier.save(run.model_path)
    run.write_metrics({"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}})
    return run


@pytest.fixture(scope="session")
def make_run():
    return _make_run


@pytest.fixture(scope="session")
def run(tmp_path_factory, dataset):
    """Averaged over turned and mirrored views, with a kernel head."""
    classifier = _build_classifier(symmetries=(0, 1, 6), kernel=True)
    return _make_run(tmp_path_factory.mktemp("run") / "run", dataset, classifier)
