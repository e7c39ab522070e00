"""Settings that exclude each other are refused before anything is trained."""

import dataclasses
import itertools
import math

import pytest

from safelight.vae.building import build_vae
from safelight.vae.config import PRESETS, TrainConfig, ways_to_wake_units


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"final_samples": 5, "beta": 2.0}, r"final_samples=5 with beta=2.*or final_samples=1"),
        ({"final_samples": 5, "free_bits": 0.1}, "final_samples=5 with .*free_bits=0.1"),
        ({"final_samples": 3, "num_samples": 5}, "final_samples=3 with num_samples=5: .*looser"),
        (
            {"final_gradient": "stl", "final_samples": 5},
            "final_gradient='stl' with num_samples=1 and final_samples=5 would be biased",
        ),
        ({"final_gradient": "stl", "free_bits": 0.1}, "final_gradient='stl' with free_bits=0.1"),
        (
            {"final_gradient": "dreg", "second_latent_dim": 2},
            "final_gradient='dreg' with two stochastic layers: .*expected final_gradient='plain'",
        ),
        ({"final_gradient": "best"}, "final_gradient='best': expected one of auto, plain"),
        ({"final_samples": 0}, "final_samples=0: expected at least 1"),
        ({"backward_samples": -1}, "backward_samples=-1: expected 0 or more"),
        ({"backward_samples": 5}, "backward_samples=5 with .*none would be left.*num_samples=10"),
        (
            {"backward_samples": 9, "final_samples": 9, "num_samples": 5},
            "backward_samples=9 with num_samples=5 and final_samples=9: none",
        ),
        ({"weight_decay": -0.1}, "weight_decay=-0.1: expected 0 or more"),
        ({"weight_decay": 900.0, "learning_rate": 0.001}, "weight_decay=900 .*take away 90.0% of"),
        ({"flow_couplings": 1}, "flow_couplings=1: expected at least 2"),
        ({"flow_units": 0}, "flow_units=0: expected at least 1"),
    ],
)
def test_what_does_not_go_together_is_told_by_its_own_name(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"warmup_epochs": 20, "epochs": 20},
            "warmup_epochs=20 with epochs=20: .* expected warmup_epochs of at most 19",
        ),
        ({"prior_components": 9}, "prior_components=9 with prior='normal' .*prior='mixture' or"),
        ({"prior_components": 9, "prior": "flow"}, "prior_components=9 with prior='flow'"),
        ({"flow_couplings": 4}, "flow_couplings=4 .*nothing would read it; expected prior='flow'"),
        ({"flow_units": 8, "prior": "vamp"}, "flow_units=8 with prior='vamp'"),
        ({"inference": "bottom_up"}, "inference='bottom_up' .*expected a second_latent_dim above"),
    ],
)
def test_what_would_have_no_effect_is_refused_in_a_new_model_only(changes, message):
    config = TrainConfig(**changes)  # an older run that holds it can still be read
    with pytest.raises(ValueError, match=message):
        config.check_new()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_make_new_models(name):
    TrainConfig.preset(name).check_new()


def _stops_by(name):
    return "minutes" if "minutes" in PRESETS[name] else "epochs"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_with_another_architecture_has_that_one_s_widths(name):
    """500 filters at each size would take days."""
    config = TrainConfig.preset(name, architecture="resnet", epochs=1)
    assert PRESETS[name]["hidden_units"]
    assert (config.architecture, config.hidden_units) == ("resnet", ())
    recipe = {"minutes": ("flow", "stl"), "epochs": ("normal", PRESETS[name]["gradient"])}
    assert (config.prior, config.gradient) == recipe[_stops_by(name)]
    own = TrainConfig.preset(name, architecture="conv", hidden_units=(8,))
    assert own.hidden_units == (8,)
    assert TrainConfig.preset(name).hidden_units == PRESETS[name]["hidden_units"]


def test_samples_of_a_preset_that_is_changed_to_fewer_are_all_gone_through():
    assert TrainConfig.preset("best", final_samples=1).backward_samples == 0
    assert TrainConfig.preset("best", final_samples=2).backward_samples == 0
    assert TrainConfig.preset("best", final_samples=3).backward_samples == 2
    with pytest.raises(ValueError, match="backward_samples=2 with"):
        TrainConfig.preset("best", final_samples=2, backward_samples=2)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trained_with_another_beta_says_what_is_in_the_way(name):
    samples = {key for key in ("num_samples", "final_samples") if PRESETS[name].get(key, 1) > 1}
    if not samples:
        assert TrainConfig.preset(name, beta=2.0).beta == 2
        return
    with pytest.raises(ValueError, match=r"_samples=5 with beta=2\.0 .* has no KL term to weigh"):
        TrainConfig.preset(name, beta=2.0)
    one = {**dict.fromkeys(samples, 1), "gradient": "stl"}
    same = dataclasses.replace(TrainConfig.preset(name, **one), beta=2.0)
    assert TrainConfig.preset(name, **one, beta=2.0) == same


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_stops_by_what_is_said_beside_it(name):
    assert TrainConfig.preset(name, epochs=3).minutes is None
    assert TrainConfig.preset(name, minutes=3).epochs is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Burda et al. 2016, section 5: what a layer of n to m units has of weights, (n + 1) m.
        ("burda-1", 2 * 201 * 200 + 785 * 200 + 2 * 201 * 50 + 51 * 200 + 201 * 784),
        (
            "burda-two",
            # x to h1 to h2 ...
            (785 * 200 + 201 * 200 + 2 * 201 * 100)
            + (2 * 101 * 100 + 2 * 101 * 50)
            # ... and back.
            + (51 * 100 + 101 * 100 + 2 * 101 * 100)
            + (101 * 200 + 201 * 200 + 201 * 784),
        ),
    ],
)
def test_burda_s_networks_have_as_many_weights_as_published(name, expected):
    model = build_vae((28, 28, 1), TrainConfig.preset(name))
    assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == expected


def _allowed(**settings):
    try:
        return TrainConfig(**settings)
    except ValueError:
        return None


def test_what_is_advised_against_sleeping_units_is_allowed_and_all_that_is():
    """Brute force: each way is tried with all settings that decide on the loss."""
    choices = {
        "prior": ("normal", "flow"),
        "second_latent_dim": (0, 3),
        "gradient": ("plain", "stl", "dreg"),
        "num_samples": (1, 5),
        "final_samples": (1, 5),
        "final_gradient": ("auto", "plain", "stl"),
        "warmup_epochs": (0, 30),
    }
    seen = set()
    for values in itertools.product(*choices.values()):
        config = _allowed(**dict(zip(choices, values, strict=True)))
        if config is None:
            continue
        settings = dataclasses.asdict(config)
        found = ways_to_wake_units(settings)
        for name, value in {"warmup_epochs": 60, "free_bits": 0.1, "beta": 0.5}.items():
            taken = _allowed(**{**settings, name: found.get(name, value)})
            assert (taken is not None) == (name in found)
        assert found["warmup_epochs"] > config.warmup_epochs
        seen.add(tuple(found))
    assert len(seen) == 3
    assert ways_to_wake_units({}) == {"warmup_epochs": 10, "free_bits": 0.1, "beta": 0.5}
    assert [ways_to_wake_units({"beta": beta})["beta"] for beta in (4, 10, 784)] == [2, 1, 1]


def test_a_warm_up_is_advised_only_if_it_leaves_half_of_the_training():
    for epochs, warmup in itertools.product(range(1, 25), range(4)):
        found = ways_to_wake_units({"epochs": epochs, "warmup_epochs": warmup})
        assert ("warmup_epochs" in found) == (warmup < epochs // 2)
        TrainConfig(epochs=epochs, warmup_epochs=found.get("warmup_epochs", 0)).check_new()
