"""Whose weights and pictures a run was made of."""

from __future__ import annotations

from safelight.assets import ASSETS


def tell_licences(dataset: str, backbone: str, *, pretrained: bool) -> list[str]:
    """What the pictures and weights are under that Safelight fetches, a sentence for each.

    Args:
        dataset: Its name; what is none of ours is left out.
        backbone: Its name.
        pretrained: Whether its weights were fetched.
    """
    weights = f"{backbone}-imagenet-notop" if pretrained else ""
    known = [ASSETS[name] for name in (dataset, weights) if name in ASSETS]
    return [f"{each.name}: {each.licence}, {each.attribution}" for each in known]
