"""One training on several devices; in processes of their own, since JAX counts its devices once."""

import json
import os
import socket
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from safelight.vae.devices import find_devices

ON_JAX = keras.backend.backend() == "jax"
only_jax = pytest.mark.skipif(not ON_JAX, reason="only JAX deals out a batch")
SECONDS = 600  # for a process on a busy machine

PROGRAM = """
    import json, sys
    import numpy as np
    from safelight.cli.console import start_keras

    devices, settings, output, checkpoint = json.loads(sys.argv[1])
    start_keras("dense", training=True, devices=devices)  # as the command line does
    from safelight import vae
    from safelight.vae.devices import sharing

    images = np.random.default_rng(0).integers(0, 256, (36, 6, 5, 1)).astype("uint8")
    config = vae.TrainConfig(latent_dim=3, likelihood="bernoulli", **settings)
    with sharing(devices):
        model = vae.build_vae(images.shape[1:], config)
        trained = vae.train(model, images, config=config, checkpoint=checkpoint)
    if output:
        np.savez(output, *trained.model.get_weights(), elbo=trained.history["elbo"])
"""
SETTINGS = {"hidden_units": [7], "batch_size": 12, "epochs": 3, "seed": 1, "learning_rate": 0.01}


def start(devices, output, *, virtual=1, settings=None, checkpoint=None, **environment):
    arguments = [devices, settings or SETTINGS, str(output) if output else None, checkpoint]
    flags = f"--xla_force_host_platform_device_count={virtual}"
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), json.dumps(arguments)],
        env={**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    said = [process.communicate(timeout=SECONDS)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(said)


def read(path):
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """What a single device learns."""
    path = tmp_path_factory.mktemp("one") / "one.npz"
    finish(start(1, path))
    return read(path)


@only_jax
def test_several_virtual_devices_learn_what_one_does(tmp_path, one):
    finish(start(3, tmp_path / "found.npz", virtual=3))
    assert_same(read(tmp_path / "found.npz"), one)


@only_jax
def test_two_processes_learn_what_one_does_over_gloo(tmp_path, one):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    shared = {
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{port}",
        "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
    }
    both = [
        start(2, tmp_path / f"{i}.npz", **shared, KERAS_DISTRIBUTION_PROCESS_ID=str(i))
        for i in range(2)
    ]
    finish(*both)
    first, second = (read(tmp_path / f"{i}.npz") for i in range(2))
    assert_same(first, one)
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)


def test_one_device_is_none_to_share_with():
    assert find_devices(1) is None


@pytest.mark.skipif(ON_JAX, reason="JAX can")
def test_other_backends_refuse_in_a_sentence():
    with pytest.raises(ValueError, match=r"devices=2 with Keras on .*: expected KERAS_BACKEND=jax"):
        find_devices(2)


@only_jax
def test_what_cannot_be_shared_is_refused(tmp_path):
    with pytest.raises(ValueError, match="devices=0: expected at least 1"):
        find_devices(0)
    with pytest.raises(ValueError, match=r"devices=64: there are .*device_count=64"):
        find_devices(64)
    uneven = start(2, None, virtual=2, settings={**SETTINGS, "batch_size": 5})
    said, _ = uneven.communicate(timeout=SECONDS)
    assert uneven.returncode
    assert "batch_size=5 on 2 devices: expected a multiple of 2" in said
