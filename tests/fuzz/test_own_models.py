"""What Safelight writes itself is let in: every network of the table, every kind of autoencoder."""

import keras
import pytest

from safelight.model_files import check_config, load_model
from safelight.transfer import backbones, models
from safelight.transfer.features import FeatureLayer
from safelight.vae import building
from safelight.vae.config import TrainConfig

KINDS = (
    {}, {"architecture": "residual", "prior": "flow"}, {"architecture": "conv", "prior": "vamp"},
    {"architecture": "resnet", "prior": "mixture"},
    {"second_latent_dim": 3, "inference": "top_down"},
    {"second_latent_dim": 3, "inference": "bottom_up"}, {"likelihood": "discretized_logistic"},
)  # fmt: skip


def config_of(model):
    return keras.saving.serialize_keras_object(model)


@pytest.mark.slow
@pytest.mark.one_backend
@pytest.mark.parametrize("name", backbones.BACKBONES)
def test_every_network_of_the_table_is_let_in(name):
    backbone = backbones.load_backbone(name, image_size=64, weights=None)
    last = FeatureLayer(backbone.layers[-1].name, "avg")
    check_config(config_of(models.build_classifier(backbone, [last], 3, hidden_units=4)))


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_every_kind_of_autoencoder_is_let_in(settings):
    hidden = {"hidden_units": (8, 8, 8)} if settings.get("architecture") == "residual" else {}
    config = TrainConfig(latent_dim=2, epochs=1, **{**settings, **hidden})
    check_config(config_of(building.build_vae((8, 8, 1), config)))


def test_a_kernel_head_over_views_is_let_in_and_loads(tmp_path):
    inputs = keras.Input((None, None, 3), dtype="uint8")
    x = backbones.ImageResizing(8, 8, (0, 4), name="resizing")(inputs)
    x = backbones.ImageNetPreprocessing("tf", name="preprocessing")(x)
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    network = keras.Model(inputs, x, name="tiny")
    built = models.build_classifier(network, [FeatureLayer("conv", "avg")], 2, num_landmarks=3)
    built.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in built.layers]
