"""Transfer learning: a pretrained network and a few hundred labelled pictures become a classifier.

    from safelight import datasets, transfer
    splits = datasets.split(datasets.load("elpv"), seed=0)
    trained = transfer.train(splits, transfer.TrainConfig(unfreeze_from="block5_conv1"))
    report = transfer.evaluate(trained.model, splits.test, config=trained.config)

Names are loaded when they are first used, and Keras with them.
"""

from typing import TYPE_CHECKING

from safelight.lazy import on_demand

if TYPE_CHECKING:
    from safelight.transfer.augmentation import ViewMaker as ViewMaker
    from safelight.transfer.backbones import freeze as freeze
    from safelight.transfer.backbones import load_backbone as load_backbone
    from safelight.transfer.backbones import unfreeze_from as unfreeze_from
    from safelight.transfer.config import TrainConfig as TrainConfig
    from safelight.transfer.evaluation import evaluate as evaluate
    from safelight.transfer.explanations import Explainer as Explainer
    from safelight.transfer.feature_cache import FeatureCache as FeatureCache
    from safelight.transfer.features import FeatureExtractor as FeatureExtractor
    from safelight.transfer.features import FeatureLayer as FeatureLayer
    from safelight.transfer.models import build_classifier as build_classifier
    from safelight.transfer.occlusion import Occluder as Occluder
    from safelight.transfer.prediction import predict as predict
    from safelight.transfer.training import train as train

_HOMES = {
    "Explainer": "explanations",
    "FeatureCache": "feature_cache",
    "FeatureExtractor": "features",
    "FeatureLayer": "features",
    "Occluder": "occlusion",
    "TrainConfig": "config",
    "ViewMaker": "augmentation",
    "build_classifier": "models",
    "evaluate": "evaluation",
    "freeze": "backbones",
    "load_backbone": "backbones",
    "predict": "prediction",
    "train": "training",
    "unfreeze_from": "backbones",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = on_demand(__name__, _HOMES)
