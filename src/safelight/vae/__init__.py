"""Variational autoencoders: pictures without labels become a model that can be looked into.

    from safelight import datasets, vae
    images = vae.load_images(datasets.load("mnist", part="train")).images
    config = vae.TrainConfig(latent_dim=20, minutes=4)
    model = vae.build_vae(images.shape[1:], config, mean_picture=images.mean(0) / 255)
    trained = vae.train(model, images, config=config)
    report = vae.evaluate(trained.model, test_images, num_importance_samples=5000)

Likelihoods are in nats per image: summed over pixels, channels and latents, averaged over images
only. Names are loaded when they are first used, and Keras with them.
"""

from typing import TYPE_CHECKING

from safelight.lazy import on_demand

if TYPE_CHECKING:
    from safelight.generative.pictures import load_images as load_images
    from safelight.vae.anomalies import report_anomalies as report_anomalies
    from safelight.vae.building import build_vae as build_vae
    from safelight.vae.config import TrainConfig as TrainConfig
    from safelight.vae.densities import fit_density as fit_density
    from safelight.vae.evaluation import dissect as dissect
    from safelight.vae.evaluation import estimate_log_likelihood as estimate_log_likelihood
    from safelight.vae.evaluation import evaluate as evaluate
    from safelight.vae.evaluation import interpolate as interpolate
    from safelight.vae.evaluation import traverse as traverse
    from safelight.vae.fitted_flows import fit_flow as fit_flow
    from safelight.vae.flows import Flow as Flow
    from safelight.vae.gradient_noise import measure_noise as measure_noise
    from safelight.vae.ladders import TwoLayers as TwoLayers
    from safelight.vae.live import LiveView as LiveView
    from safelight.vae.models import VAE as VAE
    from safelight.vae.networks import Sampling as Sampling
    from safelight.vae.networks import build_decoder as build_decoder
    from safelight.vae.networks import build_encoder as build_encoder
    from safelight.vae.priors import Mixture as Mixture
    from safelight.vae.priors import Prior as Prior
    from safelight.vae.priors import StandardNormal as StandardNormal
    from safelight.vae.priors import VampPrior as VampPrior
    from safelight.vae.training import train as train

_HOMES = {
    "Flow": "flows",
    "LiveView": "live",
    "Mixture": "priors",
    "Prior": "priors",
    "Sampling": "networks",
    "StandardNormal": "priors",
    "TrainConfig": "config",
    "TwoLayers": "ladders",
    "VAE": "models",
    "VampPrior": "priors",
    "build_decoder": "networks",
    "build_encoder": "networks",
    "build_vae": "building",
    "dissect": "evaluation",
    "estimate_log_likelihood": "evaluation",
    "evaluate": "evaluation",
    "fit_density": "densities",
    "fit_flow": "fitted_flows",
    "interpolate": "evaluation",
    "load_images": "safelight.generative.pictures",
    "measure_noise": "gradient_noise",
    "report_anomalies": "anomalies",
    "train": "training",
    "traverse": "evaluation",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = on_demand(__name__, _HOMES)
