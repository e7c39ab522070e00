"""`safelight vae anomalies|rate-distortion`, `train --only` and `sample --density`."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from safelight.runs import Run
from safelight.vae.config import TrainConfig

SMALL = ("--epochs", 1, "--latent-dim", 3, "--hidden-units", 8, "--batch-size", 16)
SIZE = (8, 10)


def check_sentence(code, err):
    assert code == 2, err
    assert "Traceback" not in err
    assert err.startswith("safelight: ")


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Smooth pictures, and noisy ones."""
    root = tmp_path_factory.mktemp("data") / "cells"
    rng = np.random.default_rng(0)
    for name, noise in (("smooth", 4), ("noisy", 90)):
        (root / name).mkdir(parents=True)
        for number in range(30):
            grey = np.linspace(60, 60 + 3 * number, SIZE[1]) + noise * rng.normal(size=SIZE)
            picture = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
            picture.save(root / name / f"{number:02d}.png")
    return root


@pytest.fixture(scope="module")
def trained(cells, leave, tmp_path_factory):
    """A run that has learned from the smooth ones alone."""
    run = tmp_path_factory.mktemp("runs") / "smooth"
    assert leave("vae", "train", cells, "--output", run, "--only", "smooth", *SMALL) == 0
    return run


# --- train --only


def test_one_class_is_learned_and_the_run_says_so(trained, call):
    run = Run.open(trained)
    assert run.config["dataset"]["only"] == "smooth"
    assert run.config["dataset"]["num_images"] == 30
    assert run.config["dataset"]["class_names"] == []
    assert run.metrics["probes"] is None
    code, out, _ = call("runs", "show", trained)
    assert code == 0
    assert "ELBO surgery      KL " in out
    assert "aggregate.png" in out


def test_its_own_test_part_is_found_among_all_classes(trained, call):
    code, out, _ = call("vae", "evaluate", trained, "--num-importance-samples", 0, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["num_images"] == Run.open(trained).metrics["num_images"]
    surgery = found["surgery"]
    assert surgery["kl"] == pytest.approx(found["kl"]["value"], rel=1e-4)
    assert surgery["kl"] == pytest.approx(surgery["mutual_information"] + surgery["aggregate_kl"])


def test_an_unknown_class_is_a_sentence(cells, call, tmp_path):
    train = ("vae", "train", cells, "--output", tmp_path / "run", "--only", "rough")
    code, _, err = call(*train, early=True)
    check_sentence(code, err)
    assert "no class 'rough'" in err
    assert not (tmp_path / "run").exists()


# --- anomalies


def test_noisy_pictures_are_odd_to_who_knows_smooth_ones(trained, call):
    code, out, _ = call("vae", "anomalies", trained)
    assert code == 0
    assert out.count("AUROC") == 4
    assert "30 anomalies and 8 pictures of smooth" in out
    with (trained / "anomalies.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 38
    assert [row["label"] for row in rows[:10]] == ["noisy"] * 10
    seen = set(Run.open(trained).config["split"]["digests"]["train"])
    assert len(seen) == 19
    for name in ("anomalies", "anomaly_scores", "anomaly_roc"):
        assert (trained / "pictures" / f"{name}.png").is_file()


def test_other_pictures_are_scored_and_without_classes_not_judged(trained, cells, call):
    code, out, _ = call("vae", "anomalies", trained, cells / "noisy", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["num_images"], found["num_anomalous"], found["auroc"]) == (30, None, {})


def test_which_class_is_normal_must_be_known(trained, cells, call, tmp_path):
    code, _, err = call("vae", "anomalies", trained, "--normal", "rough", early=True)
    check_sentence(code, err)
    assert "--normal rough" in err
    run = Run.open(shutil.copytree(trained, tmp_path / "run"))
    config = run.config
    del config["dataset"]["only"]
    config["dataset"]["source"] = str(cells)
    run.write_config(config)
    code, _, err = call("vae", "anomalies", run.path, early=True)
    check_sentence(code, err)
    assert "--normal CLASS" in err


# --- sample --density


def test_samples_of_a_mixture_are_fitted_once_and_kept(trained, call, tmp_path):
    code, out, _ = call("vae", "sample", trained, "--density", "mixture", "--num", 6)
    assert code == 0
    assert "nats more probable" in out
    assert (trained / "pictures" / "samples-mixture-seed0.png").is_file()
    written = (trained / "density.npz").stat().st_mtime_ns
    folder = tmp_path / "drawn"
    code, _, _ = call(
        "vae", "sample", trained, "--density", "gaussian", "--num", 3, "--output", folder
    )
    assert (code, len(list(folder.iterdir()))) == (0, 3)
    assert (trained / "density.npz").stat().st_mtime_ns == written


def test_samples_of_a_flow_are_fitted_once_and_kept(trained, call, monkeypatch):
    monkeypatch.setattr("safelight.vae.fitted_flows._ROUNDS", 1)
    sample = ("vae", "sample", trained, "--density", "flow", "--num", 6)
    code, out, _ = call(*sample)
    assert code == 0
    assert "a flow of 6 couplings: latents of held-out pictures are" in out
    assert (trained / "pictures" / "samples-flow-seed0.png").is_file()
    written = (trained / "density_flow.npz").stat().st_mtime_ns
    assert call(*sample)[:2] == (0, out)
    assert (trained / "density_flow.npz").stat().st_mtime_ns == written


@pytest.mark.parametrize("name", ["mixture", "flow"])
def test_a_density_of_another_model_is_a_sentence(name, trained, call, tmp_path):
    from safelight.metrics import Interval
    from safelight.vae import densities, fitted_flows
    from safelight.vae.flows import Flow

    shutil.copytree(trained, tmp_path / "run")
    run, units, gain = Run(tmp_path / "run"), 70, Interval(0.0, 0.0, 0.0)
    if name == "mixture":
        wide = densities.LatentMixture(np.ones(1), np.zeros((1, units)), np.eye(units)[None])
        values = dict.fromkeys(("prior", "gaussian", "mixture"), 0.0)
        gains = {"gaussian": gain, "mixture": gain}
        densities.keep_density(run, densities.FittedDensity(wide, wide, {1: 0.0}, values, gains))
    else:
        flow = Flow(2, 4)
        flow.connect_units(units)
        density = fitted_flows.FlowDensity(flow, np.zeros(units), np.ones(units))
        values = {"prior": 0.0, "flow": 0.0}
        densities.keep_density(run, fitted_flows.FittedFlow(density, values, gain))
    code, _, err = call("vae", "sample", run.path, "--density", name)
    check_sentence(code, err)
    assert "of 70 latent units" in err
    assert "it is of another model; delete it" in err


def test_a_temperature_for_a_fitted_density_is_a_sentence(trained, call):
    sample = ("vae", "sample", trained, "--density", "mixture", "--temperature", 0.7)
    code, _, err = call(*sample, early=True)
    check_sentence(code, err)
    assert "a spread of its own" in err


# --- rate-distortion


@pytest.mark.parametrize("layers", [(), ("--second-latent-dim", 2)], ids=["one", "two"])
def test_a_curve_has_a_point_for_each_beta_and_goes_on_where_it_stopped(
    cells, call, tmp_path, monkeypatch, layers
):
    from safelight.vae import rate_distortion

    run = tmp_path / "curve"
    command = ("vae", "rate-distortion", cells, "--output", run, *SMALL, *layers)
    command = (*command, "--betas", "4,0.5")
    measure, tried = rate_distortion._measure, []

    def stop_at_the_second(run, parts, config, *, report):
        tried.append(config.beta)
        if len(tried) == 2:
            raise KeyboardInterrupt
        return measure(run, parts, config, report=report)

    monkeypatch.setattr(rate_distortion, "_measure", stop_at_the_second)
    code, _, _ = call(*command)
    assert code == 130
    assert not Run.open(run).finished
    code, out, err = call(*command)
    assert code == 0, err
    assert tried == [0.5, 4.0, 4.0]  # the first was kept
    points = Run.open(run).metrics["rate_distortion"]
    assert [point["beta"] for point in points] == [0.5, 4.0]
    for point in points:
        assert point["elbo"]["value"] == pytest.approx(
            -point["rate"]["value"] - point["distortion"]["value"], rel=1e-5
        )
        assert point["distortion"]["low"] < point["distortion"]["value"]
    assert (run / "pictures" / "rate_distortion.png").is_file()
    assert "distortion" in out
    code, _, err = call(*command, early=True)
    check_sentence(code, err)
    assert "a finished run" in err
    code, out, _ = call("runs", "list", tmp_path, "--json", early=True)
    assert [each["kind"] for each in json.loads(out)] == ["vae-rate-distortion"]


@pytest.mark.parametrize("betas", ["", "a,b", "1,1", "-1,2", "nan", "inf"])
def test_what_are_no_betas_is_a_sentence(cells, call, tmp_path, betas):
    command = ("vae", "rate-distortion", cells, "--output", tmp_path / "run", "--betas", betas)
    code, _, err = call(*command, early=True)
    check_sentence(code, err)
    assert "0.25,0.5,1,2,4" in err


def test_other_settings_do_not_go_on_with_a_curve(cells, call, tmp_path):
    run = tmp_path / "curve"
    command = ("vae", "rate-distortion", cells, "--output", run, *SMALL, "--betas", "1,2")
    settings = dataclasses.asdict(TrainConfig(seed=5))
    Run.create(run).write_config({"kind": "vae-rate-distortion", "settings": settings})
    (run / "rate_distortion.csv").write_text("beta\n")
    code, _, err = call(*command)
    check_sentence(code, err.splitlines()[-1])
    assert "seed 5 instead of 0" in err
