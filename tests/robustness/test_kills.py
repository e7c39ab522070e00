"""Real commands, really killed; benchmarks/robustness_kill.py does it a hundred times."""

import os
import shutil
import signal
import subprocess
import sys
import time

import keras
import pytest
from PIL import Image

from safelight.runs import Run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="needs signals and process groups"),
]
SECONDS = 600  # for a command on a busy machine
SMALL = "--epochs 4 --latent-dim 2 --hidden-units 8 --batch-size 16".split()


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "safelight", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def finish(*arguments):
    child = start(*arguments)
    out, _ = child.communicate(timeout=SECONDS)
    assert child.returncode == 0, out
    return out


def kill_when(child, ready):
    """Kills a command and all that it has started; whether it was still at work."""
    begun = time.monotonic()
    while child.poll() is None and not ready():
        assert time.monotonic() - begun < SECONDS
        time.sleep(0.001)
    alive = child.poll() is None
    os.killpg(child.pid, signal.SIGKILL) if alive else None
    child.communicate()
    return alive


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pictures):
    folder = tmp_path_factory.mktemp("killed")
    for number, label in enumerate(pictures.labels):
        path = folder / "data" / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures.read(number)).save(path)
    finish("vae", "train", folder / "data", "--output", folder / "undisturbed", *SMALL)
    return folder


def weights(run):
    from safelight.vae import experiment

    model = experiment.load_vae(Run.open(run))
    return [keras.ops.convert_to_numpy(weight.value).tobytes() for weight in model.weights]


def test_a_training_killed_while_it_saves_ends_with_the_same_bits(folder, check_whole):
    run = folder / "run"
    command = ("vae", "train", folder / "data", "--output", run, *SMALL)
    for _ in range(3):  # a machine that stands still at the wrong moment sees no partial file
        if kill_when(start(*command), lambda: list(run.glob(".model.*.partial.*"))):
            break
        shutil.rmtree(run)
    else:
        pytest.fail("three trainings came to their end before they were killed")
    check_whole(run)
    assert not Run.open(run).finished
    finish(*command)
    assert weights(run) == weights(folder / "undisturbed")
    # Its validation is looked at as often as the time allows, and decides nothing.
    assert Run.open(run).history["elbo"] == Run.open(folder / "undisturbed").history["elbo"]
    assert list(run.rglob("*.partial*")) == []


def test_a_report_killed_at_four_moments_is_written_by_the_next_command(folder, check_whole):
    run = folder / "reported"
    shutil.copytree(folder / "undisturbed", run)
    begun = time.monotonic()
    finish("report", run)
    seconds = time.monotonic() - begun
    for part in (0.5, 0.8, 0.95, 1.0):
        (run / "report.html").unlink(missing_ok=True)
        child, ready = start("report", run), time.monotonic() + part * seconds
        kill_when(child, lambda ready=ready: time.monotonic() > ready)
        check_whole(run)
    finish("report", run)
    assert check_whole(run) > 10
