"""Generative adversarial networks: a generator that learns by being found out.

    from safelight import datasets, gan
    images = gan.load_images(datasets.load("mnist", part="train")).images
    config = gan.TrainConfig(minutes=10)
    model = gan.build_gan(images.shape[1:], config)
    trained = gan.train(model, images, config=config)
    pictures = trained.model.generate(64)  # floats in [0, 1]

Names are loaded when they are first used, and Keras with them.
"""

from typing import TYPE_CHECKING

from safelight.lazy import on_demand

if TYPE_CHECKING:
    from safelight.gan.config import TrainConfig as TrainConfig
    from safelight.gan.models import GAN as GAN
    from safelight.gan.models import build_gan as build_gan
    from safelight.gan.networks import build_discriminator as build_discriminator
    from safelight.gan.networks import build_encoder as build_encoder
    from safelight.gan.networks import build_generator as build_generator
    from safelight.gan.training import train as train
    from safelight.generative.pictures import load_images as load_images

_HOMES = {
    "GAN": "models",
    "TrainConfig": "config",
    "build_discriminator": "networks",
    "build_encoder": "networks",
    "build_gan": "models",
    "build_generator": "networks",
    "load_images": "safelight.generative.pictures",
    "train": "training",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = on_demand(__name__, _HOMES)
