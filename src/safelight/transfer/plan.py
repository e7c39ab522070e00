"""What a configuration means for a given network: where it is cut, and what its head sees."""

from __future__ import annotations

import dataclasses

import keras

from safelight.transfer import backbones
from safelight.transfer.config import TrainConfig
from safelight.transfer.features import FeatureLayer


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a configuration means for a given network.

    Attributes:
        cut: The last frozen layer; `None` where the whole network is trained.
        head_layers: What the head sees.
        fine_tunes: Whether anything but the head is trained.
        cached: Whether activations of the cut stand in for the frozen part.
    """

    cut: str | None
    head_layers: tuple[FeatureLayer, ...]
    fine_tunes: bool
    cached: bool

    @classmethod
    def make(cls, network: keras.Model, config: TrainConfig) -> Plan:
        """The plan, with names checked against the network.

        Args:
            network: A backbone, or a classifier made of one.
            config: The settings.

        Raises:
            ValueError: A layer that the network does not have, nothing left to freeze, or a head
                layer that is not computed from the cut.
        """
        last = [layer.name for layer in network.layers if not layer.name.startswith("head_")][-1]
        first = config.unfreeze_from
        if first == "auto":
            first = backbones.find_backbone(config.backbone).unfreeze_from
        everything = first == "all" or not config.pretrained
        cut = None if everything else last
        if first is not None and not everything:
            cut = backbones.cut_layer(network, first)
        if config.head_layers:
            head_layers = tuple(_parse_layer(text) for text in config.head_layers)
        else:
            names = dict.fromkeys([cut, last] if cut else [last])
            head_layers = tuple(
                FeatureLayer(name, pooling) for pooling in ("avg", "max") for name in names if name
            )
        for wanted in head_layers:
            backbones.get_layer(network, wanted.layer)
        if cut is not None and first is not None:
            _check_above(network, cut, head_layers)
        tunes = everything or first is not None
        return cls(cut, head_layers, tunes and config.epochs > 0, config.cached and cut is not None)

    @property
    def kept_layers(self) -> tuple[FeatureLayer, ...]:
        """The activations that predictions can start from: the cut's, or what the head sees."""
        if self.fine_tunes and self.cut is not None:
            return (FeatureLayer(self.cut),)
        return self.head_layers


def _check_above(network: keras.Model, cut: str, head_layers: tuple[FeatureLayer, ...]) -> None:
    """Refused before anything is computed: what the head reads must come from the cut."""
    for head in head_layers:
        name = backbones.get_layer(network, head.layer).name
        if cut not in {layer.name for layer in backbones.layers_until(network, name)}:
            raise ValueError(
                f"the head reads {head}, which is not computed from the cut {cut}: choose head "
                "layers at or above the cut, or unfreeze from a shallower block."
            )


def _parse_layer(text: str) -> FeatureLayer:
    layer, _, pooling = text.partition("/")
    if pooling not in ("", "avg", "max"):
        raise ValueError(f"head layer {text!r}: expected LAYER/avg or LAYER/max.")
    return FeatureLayer(layer, "max" if pooling == "max" else "avg")
