"""Settings that exclude each other are refused before anything is trained."""

import dataclasses

import pytest

from safelight.vae.config import PRESETS, TrainConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"final_samples": 5, "beta": 2.0}, r"final_samples=5 with beta=2.*or final_samples=1"),
        ({"final_samples": 5, "free_bits": 0.1}, "final_samples=5 with .*free_bits=0.1"),
        ({"final_samples": 3, "num_samples": 5}, "final_samples=3 with num_samples=5: .*looser"),
        ({"final_samples": 0}, "final_samples=0: expected at least 1"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1: expected 0 or more"),
        ({"weight_decay": 900.0, "learning_rate": 0.001}, "weight_decay=900 .*take away 90.0% of"),
        ({"flow_couplings": 1}, "flow_couplings=1: expected at least 2"),
        ({"flow_units": 0}, "flow_units=0: expected at least 1"),
    ],
)
def test_what_does_not_go_together_is_told_by_its_own_name(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_with_another_architecture_has_that_one_s_widths(name):
    """500 filters at each size would take days."""
    config = TrainConfig.preset(name, architecture="resnet", epochs=1)
    assert PRESETS[name]["hidden_units"]
    assert (config.architecture, config.hidden_units) == ("resnet", ())
    assert (config.prior, config.gradient) == ("flow", "stl")
    own = TrainConfig.preset(name, architecture="conv", hidden_units=(8,))
    assert own.hidden_units == (8,)
    assert TrainConfig.preset(name).hidden_units == PRESETS[name]["hidden_units"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trained_with_another_beta_says_what_is_in_the_way(name):
    if PRESETS[name].get("final_samples", 1) == 1:
        assert TrainConfig.preset(name, beta=2.0).beta == 2
        return
    with pytest.raises(ValueError, match="final_samples"):
        TrainConfig.preset(name, beta=2.0)
    same = dataclasses.replace(TrainConfig.preset(name, final_samples=1), beta=2.0)
    assert TrainConfig.preset(name, final_samples=1, beta=2.0) == same
