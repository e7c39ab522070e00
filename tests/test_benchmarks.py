import dataclasses
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
TORCH_PYTHON = ROOT / ".venv-torch" / "bin" / "python"
JAX_PYTHON = ROOT / ".venv-backends" / "bin" / "python"


@pytest.fixture(autouse=True)
def _scripts_find_each_other(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def module(name):
    return importlib.import_module(name)


def make_result(variant, *, seed, correct, total, num_train=40):
    """A result as the driver writes it, with numbers that a reader can follow."""
    protocol = module("protocol")
    hits = np.array([int(mark) for mark in correct])
    probabilities = np.stack([1.0 - hits, hits], axis=1)
    recipe = protocol.Protocol(num_train=num_train, num_test=len(correct), seed=seed)
    return {
        "claim": protocol.CLAIM,
        "variant": variant,
        "title": protocol.VARIANTS[variant].title,
        "machine": {"cpu": "Some CPU", "cpu_family": "", "cores": 2},
        "protocol": dataclasses.asdict(recipe),
        "metrics": protocol.score(probabilities, np.ones(len(correct), dtype=int)),
        "seconds": {"total": total, "head": total / 4, "block5": total / 2},
        "images_per_second": recipe.num_presentations / total,
        "peak_gib": 1.5,
        "versions": {"numpy": "2"},
    }


def test_the_network_costs_what_its_paper_says():
    count = module("protocol").num_multiply_adds
    assert count(224) == pytest.approx(15.35e9, rel=1e-3)
    assert count(224, until_block=4) / count(224) == pytest.approx(0.91, abs=0.005)
    # By hand: one 3x3 convolution 3 -> 64 and one 64 -> 64 over 8 x 8 pixels.
    assert count(8, until_block=1) == 64 * 9 * (3 * 64 + 64 * 64)


def test_the_interval_covers_the_binomial_one_and_names_the_mean():
    hits = np.repeat([1, 0], [80, 20])
    interval = module("protocol").accuracy_interval(hits)
    assert interval["value"] == pytest.approx(0.8)
    half = 1.96 * np.sqrt(0.8 * 0.2 / 100)
    assert interval["low"] == pytest.approx(0.8 - half, abs=0.015)
    assert interval["high"] == pytest.approx(0.8 + half, abs=0.015)


def test_the_log_loss_is_that_of_the_closed_form():
    probabilities = np.array([[0.25, 0.75], [0.5, 0.5]])
    loss = module("protocol").log_loss(probabilities, np.array([1, 0]))
    assert loss == pytest.approx(-(np.log(0.75) + np.log(0.5)) / 2)


def test_the_per_image_record_survives_json():
    protocol = module("protocol")
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    metrics = json.loads(json.dumps(protocol.score(probabilities, np.array([0, 0, 0]))))
    np.testing.assert_array_equal(protocol.correct_of({"metrics": metrics}), [1, 0, 1])


def test_a_protocol_comes_back_from_its_file(tmp_path):
    protocol = module("protocol").Protocol(num_train=7, data_digest="abc")
    protocol.save(tmp_path / "p.json")
    assert module("protocol").Protocol.read(tmp_path / "p.json") == protocol


def test_names_of_results_hold_no_odd_characters():
    name = module("protocol").result_name("claim", "A(R) CPU @ 2 GHz, ×2", "torch-2.13.0", "e s0")
    assert name == "claim__a-r-cpu-2-ghz-2__torch-2.13.0__e-s0.json"


def test_the_draw_is_a_seeded_part_without_repeats():
    draw = module("prepare").draw
    chosen = draw(50, 20, 3)
    assert len(set(chosen)) == 20
    assert chosen.max() < 50
    np.testing.assert_array_equal(chosen, draw(50, 20, 3))
    with pytest.raises(ValueError, match="has 5"):
        draw(5, 6, 0)


def test_the_digest_sees_every_byte_and_the_shape():
    digest = module("prepare").digest
    arrays = {"a": np.zeros((2, 3), np.uint8)}
    changed = {"a": np.array([[0, 0, 0], [0, 0, 1]], np.uint8)}
    assert len({digest(arrays), digest(changed), digest({"a": arrays["a"].T})}) == 3


def test_a_stage_entered_twice_adds_up():
    watch = module("measuring").Stopwatch()
    for _ in range(2):
        with watch.stage("head"):
            pass
    assert list(watch.seconds) == ["head"]
    assert watch.seconds["head"] > 0


def test_the_machine_is_described_without_its_name():
    description = module("measuring").machine()
    assert description["cores"] >= 1
    assert os.uname().nodename not in json.dumps(description)


def test_letters_choose_variants():
    driver = module("transfer_cached_vs_end_to_end")
    assert [variant.letter for variant in driver.chosen_variants("d, a")] == ["d", "a"]
    with pytest.raises(ValueError, match="'z'"):
        driver.chosen_variants("z")


def test_a_finished_variant_is_skipped_and_another_protocol_is_not_overwritten(tmp_path):
    driver, protocol = module("transfer_cached_vs_end_to_end"), module("protocol").Protocol()
    path = tmp_path / "r.json"
    assert not driver.is_finished(path, protocol)
    path.write_text(json.dumps({"protocol": dataclasses.asdict(protocol)}))
    assert driver.is_finished(path, protocol)
    with pytest.raises(ValueError, match="--force"):
        driver.is_finished(path, dataclasses.replace(protocol, num_train=1))


def test_a_child_that_fails_names_its_log_and_one_that_works_has_a_peak(tmp_path):
    driver, log = module("transfer_cached_vs_end_to_end"), tmp_path / "x.log"
    usage = driver.run_process([sys.executable, "-c", "print(1)"], log)
    assert usage.seconds > 0
    assert 0 < usage.cpu_seconds < 60
    assert 0.001 < usage.peak_gib < 8
    with pytest.raises(RuntimeError, match=r"x\.log"):
        driver.run_process([sys.executable, "-c", "raise SystemExit(3)"], log)


def test_the_table_pools_seeds_and_compares_with_the_cached_variant():
    report = module("report")
    results = [
        make_result("d", seed=0, correct="1" * 90 + "0" * 10, total=1200.0),
        make_result("a", seed=0, correct="1" * 88 + "0" * 12, total=90.0),
        make_result("a", seed=1, correct="1" * 92 + "0" * 8, total=110.0),
    ]
    text = report.render_table(results)
    ours, guide = (line for line in text.splitlines() if line.startswith(("| a:", "| d:")))
    assert "| 100 | 1.0 |" in ours
    assert "| 90.0 [" in ours
    assert "| 1200 | 12.0 |" in guide
    assert "| +0.0 [" in guide
    assert "seeds 0, 1" in text


def test_results_of_another_protocol_stand_in_a_table_of_their_own():
    results = [
        make_result("a", seed=0, correct="1101", total=1.0),
        make_result("a", seed=0, correct="1101", total=1.0, num_train=41),
    ]
    assert module("report").render_table(results).count("| variant |") == 2


def test_only_what_is_between_the_markers_changes():
    report = module("report")
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    assert report.insert(text, "new\n") == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    assert report.insert("no markers", "new\n") == "no markers"


@pytest.mark.parametrize("name", ["README.md", "benchmarks/README.md"])
def test_readme_tables_equal_the_results(name):
    report = module("report")
    path = ROOT / name
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if report.BEGIN not in text:
        pytest.skip(f"{name} has no markers")
    assert report.insert(text, report.render_table(report.read_results())) == text


PEERS_SCRIPT = """
import sys
import numpy as np
from pathlib import Path
from measuring import Assignment, Part, Stopwatch, read_parts, read_weights
from protocol import VARIANTS, Protocol

folder, backend = Path(sys.argv[1]), sys.argv[2]
recipe = Protocol(image_size=32, head_epochs=1, block5_epochs=1, batch_size=4)
weights = read_weights(folder / "weights.npz")
images = read_parts(folder / "data.npz")["test"].images
letter = {"tensorflow": "d", "torch": "e"}[backend]
given = Assignment(
    VARIANTS[letter], recipe, folder / "data.npz", folder / "weights.npz", folder, 1
)
if backend == "tensorflow":
    import keras
    from peers import keras_guide as peer

    base = peer.build_base(weights, 32)
    prepared = keras.applications.vgg16.preprocess_input(images.astype("float32"))
    features = np.asarray(keras.ops.mean(base(prepared), axis=(1, 2)))
    peer.unfreeze_block5(base)
    assert all("block5" in v.path for v in base.trainable_variables), "frozen means frozen"
    assert len(base.trainable_variables) == 6
else:
    import torch
    from peers import plain_torch as peer

    network = peer.Network(weights, num_classes=2, dropout=0.2)
    with torch.no_grad():
        x = network.trunk(peer.preprocess(peer.to_tensor(images)))
        features = network.block5(x).mean(dim=(2, 3)).numpy()
    network.block5.requires_grad_(True)
    frozen = [weight.clone() for weight in network.trunk.parameters()]
    network(peer.to_tensor(images)).sum().backward()
    assert all(weight.grad is None for weight in network.trunk.parameters())
    assert all(weight.grad is not None for weight in network.block5.parameters())
    trainer = peer.Trainer(network, recipe, bfloat16=False)
    trainer.fit(read_parts(folder / "data.npz"), epochs=1, learning_rate=0.01)
    pairs = zip(frozen, network.trunk.parameters())
    assert all(torch.equal(old, new) for old, new in pairs), "frozen means frozen"
watch = Stopwatch()
probabilities, _ = peer.train_and_predict(given, watch)
assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
assert {"decode", "head", "block5", "evaluation"} <= set(watch.seconds)
np.save(folder / f"{backend}.npy", features)
"""


def make_small_data(folder):
    """Random pixels and He-scaled random weights in the layout of the real ones."""
    protocol, rng = module("protocol"), np.random.default_rng(0)
    weights, channels = {}, 3
    for block, widths in enumerate(protocol.VGG16_BLOCKS, start=1):
        for index, width in enumerate(widths, start=1):
            scale = np.float32(np.sqrt(2 / (9 * channels)))
            kernel = rng.standard_normal((3, 3, channels, width), dtype=np.float32) * scale
            weights[f"block{block}_conv{index}/kernel"] = kernel
            weights[f"block{block}_conv{index}/bias"] = rng.random(width, dtype=np.float32)
            channels = width
    np.savez(folder / "weights.npz", **weights)
    arrays = {}
    for part in protocol.PARTS:
        arrays[f"{part}_images"] = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(6) % 2
    np.savez(folder / "data.npz", **arrays)


@pytest.mark.slow
@pytest.mark.skipif(not TORCH_PYTHON.exists(), reason="needs .venv-torch")
def test_the_peers_are_one_network_and_leave_its_trunk_alone(tmp_path):
    make_small_data(tmp_path)
    pythons = {"tensorflow": sys.executable, "torch": str(TORCH_PYTHON)}
    for backend, python in pythons.items():
        call = [python, "-c", PEERS_SCRIPT, str(tmp_path), backend]
        environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    ours, theirs = (np.load(tmp_path / f"{backend}.npy") for backend in pythons)
    np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-3 * np.abs(ours).max())


def make_vae_result(variant, *, epochs, elbos, seed=0, batch_size=128):
    """A training's result as the driver writes it."""
    driver, protocol = module("vae_training_speed"), module("vae.protocol")
    recipe = protocol.Protocol(batch_size=batch_size, seed=seed, epochs=len(epochs))
    return {
        "claim": protocol.CLAIM,
        "variant": variant,
        "title": protocol.VARIANTS[variant].title,
        "ours": protocol.VARIANTS[variant].ours,
        "machine": {"cpu": "Some CPU", "cpu_family": "", "cores": 2},
        "protocol": dataclasses.asdict(recipe),
        "seconds": {"epochs": epochs},
        "versions": {"numpy": "2"},
        **driver.summarise(epochs, elbos, recipe.num_train),
    }


def test_the_common_judge_is_the_elbo():
    network = module("vae.network")
    weights, rng = network.first_weights(0), np.random.default_rng(0)
    weights["pixels/kernel"][:] = 0
    weights["pixels/bias"][:] = np.log(3)
    weights["mean/kernel"][:] = 0
    weights["mean/bias"][:] = 1.0
    weights["log_variance/kernel"][:] = 0
    pixels = np.repeat([[1, 0, 1, 1]], 196, axis=0).reshape(1, 784).repeat(3, axis=0)
    found = network.elbo(weights, pixels, rng.standard_normal((3, 20)))
    # Every pixel white with probability 3/4; KL of N(1, 1) from N(0, 1) is 1/2 for each latent.
    by_hand = 588 * np.log(0.75) + 196 * np.log(0.25) - 20 * 0.5
    assert found == pytest.approx(by_hand, rel=1e-6)


def test_the_judge_averages_over_chunks(monkeypatch):
    network = module("vae.network")
    rng = np.random.default_rng(1)
    pixels, noise = rng.integers(0, 2, (7, 784)), rng.standard_normal((7, 20))
    whole = network.elbo(network.first_weights(3), pixels, noise)
    monkeypatch.setattr(network, "_CHUNK", 2)
    assert network.elbo(network.first_weights(3), pixels, noise) == pytest.approx(whole)


def test_the_clock_leaves_out_what_the_benchmark_does_itself(monkeypatch):
    clock, now = module("vae.measuring").Clock(max_seconds=5), 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    clock.start()
    value = np.zeros(3)

    def read_slowly():
        nonlocal now
        now += 20
        return {"w": value}

    now += 3
    assert not clock.end_epoch(read_slowly)
    value += 1
    now += 4
    assert clock.end_epoch(read_slowly)
    assert clock.seconds == [3, 7]
    np.testing.assert_array_equal([each["w"][0] for each in clock.weights], [0, 1])


def test_a_training_is_summed_up_by_its_median_epoch_and_first_crossings():
    summary = module("vae_training_speed").summarise(
        [5.0, 7.0, 8.0, 10.0], [-120.0, -104.0, -99.0, -101.0], 60_000
    )
    assert summary["images_per_second"] == {"steady": 30_000, "whole": 24_000}
    assert summary["seconds_to"] == {"-105": 7.0, "-100": 8.0, "-97": None}


def test_the_table_of_trainings_says_who_was_first():
    results = [
        make_vae_result("a", epochs=[4.0, 5.0, 6.0], elbos=[-120.0, -104.0, -99.0]),
        make_vae_result("e", epochs=[5.0, 10.0, 15.0], elbos=[-120.0, -110.0, -104.0]),
        make_vae_result("i", epochs=[3.0, 5.0, 7.0], elbos=[-120.0, -110.0, -104.0]),
        make_vae_result("a", epochs=[4.0, 5.0], elbos=[-120.0, -104.0], batch_size=512),
    ]
    text = module("report").render_table(results)
    ours, pythae, _ = (line for line in text.splitlines() if line.startswith(("| a:", "| e:")))
    assert "| 60,000 | 5.0 | 30,000 | 4.0 | 5.0 | 6.0 |  | 3 | -99.0 |" in ours
    assert "| 15.0 |  |  | 3 | -104.0 |" in pythae
    assert "(a) trains 2.00 times" in text
    assert "(i); first to a held-out ELBO of -105: a after 5.0 s, -100: a after 6.0 s." in text
    assert text.count("| variant |") == 2


def test_two_estimators_are_compared_image_by_image():
    driver = module("vae_likelihood_estimator")
    gap = driver.compare([-80.0, -90.0, -100.0], [-81.0, -90.0, -101.0])
    assert gap["difference"] == pytest.approx(2 / 3)
    assert gap["standard_error"] == pytest.approx(np.std([1, 0, 1], ddof=1) / np.sqrt(3))
    answers = [
        {"name": "Safelight, float32", "seconds": [0.1, 0.2, 0.3], "values": [-80.0, -90.0]},
        {"name": driver.REFERENCE, "seconds": [5.0, 4.0, 6.0], "values": [-80.5, -90.0]},
    ]
    for each in answers:
        each |= {"num_samples": 500, "first_seconds": 1.0, "settings": {}}
    rows = driver.summarise(answers, 2)
    assert rows[0]["times_faster"] == pytest.approx(25)
    assert rows[0]["seconds_per_image"] == pytest.approx(0.1)
    assert rows[1]["difference"] == 0


VAE_SCRIPT = """
import sys
import numpy as np
from pathlib import Path
from vae.measuring import Assignment, Clock
from vae.network import elbo, first_weights
from vae.protocol import VARIANTS, Protocol

letter, work = sys.argv[1], Path(sys.argv[2])
protocol = Protocol(num_train=200, batch_size=50, epochs=2)
rng = np.random.default_rng(0)
pictures = 255 * (rng.random((4, 28, 28)) < 0.3)
images = np.repeat(pictures, 50, axis=0).astype("uint8")
given = Assignment(VARIANTS[letter], protocol, images, first_weights(0), work, 1)
if letter in "abcd":
    from vae import ours as peer
elif letter == "e":
    from peers import vae_pythae as peer
elif letter == "f":
    from peers import vae_keras_example as peer
elif letter in "gh":
    from peers import vae_torch_example as peer
else:
    from peers import vae_jax as peer
clock = Clock(60.0)
peer.measure(given, clock)
assert len(clock.seconds) == 2, clock.seconds
pixels = (images // 255).reshape(200, 784)
noise = rng.standard_normal((200, 20))
shapes = {name: value.shape for name, value in first_weights(0).items()}
assert {name: value.shape for name, value in clock.weights[-1].items()} == shapes
elbos = [elbo(weights, pixels, noise) for weights in (first_weights(0), *clock.weights)]
assert elbos[0] < elbos[1] < elbos[2], elbos
print(*elbos[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(not (TORCH_PYTHON.exists() and JAX_PYTHON.exists()), reason="needs both venvs")
def test_all_training_loops_learn_and_the_peers_learn_alike(tmp_path):
    pythons = {"tensorflow": sys.executable, "torch": str(TORCH_PYTHON), "jax": str(JAX_PYTHON)}
    elbos = {}
    for letter, variant in module("vae.protocol").VARIANTS.items():
        call = [pythons[variant.backend], "-c", VAE_SCRIPT, letter, str(tmp_path)]
        environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (letter, done.stderr[-3000:])
        elbos[letter] = [float(word) for word in done.stdout.split()[-2:]]
    peers = np.array([elbos[letter] for letter in "efghij"])
    # The same start, steps and data: they differ by order, noise and rounding.
    assert np.ptp(peers, axis=0).max() < 0.03 * np.abs(peers).mean()


def test_the_learning_curve_table_says_how_many_ranges_hold():
    repeat = {
        "seed": 100,
        "num_had": 984,
        "num_more": 984,
        "expected": {"value": 0.872, "low": 0.85, "high": 0.894},
        "seen": 0.9,
        "covered": False,
    }
    result = {
        "claim": module("report").CURVE_CLAIM,
        "machine": {"cpu": "Some CPU", "cpu_family": "", "cores": 2},
        "repeats": [repeat, {**repeat, "seed": 101, "seen": 0.88, "covered": True}],
        "num_covered": 1,
        "coverage": 0.8,
        "versions": {"numpy": "2"},
    }
    text = module("report").render_table([result])
    assert "1 of 2 ranges hold" in text
    assert "| 100 | 984 | 984 | 87.2 [85.0, 89.4] | 90.0 | no |" in text
    assert "| 101 | 984 | 984 | 87.2 [85.0, 89.4] | 88.0 | yes |" in text
    assert module("report").CURVE_CLAIM == module("transfer_learning_curve").CLAIM


def test_a_machine_is_named_by_its_best_instructions_if_they_were_noted():
    measuring = module("measuring")
    old = {"cpu": "AMD EPYC", "cpu_family": "25", "cores": 2}
    assert measuring.machine_name(old) == "AMD EPYC family 25 2 cores"
    new = {**old, "instructions": "avx2"}
    assert measuring.machine_name(new) == "AMD EPYC family 25 avx2 2 cores"
    best = measuring.best_instructions
    assert best({"avx2", "avx512f", "avx512_bf16", "amx_tile"}) == "amx"
    assert best({"avx2", "avx512f", "avx512_bf16"}) == "avx512-bf16"
    assert best({"avx2", "avx512f"}) == "avx512"
    assert best({"sse2"}) == ""
