import dataclasses
import json
import zipfile

import numpy as np
import pytest

from safelight.generative import checkpoints
from safelight.generative.checkpoints import Checkpoint, identify, load_checkpoint, save_checkpoint
from safelight.vae.config import TrainConfig

IMAGES = np.arange(24, dtype="uint8").reshape(2, 4, 3, 1)
CONFIG = TrainConfig(epochs=3, hidden_units=(4,))


def make_checkpoint():
    rng = np.random.default_rng(0)
    arrays = {
        "weights/encoder/hidden_0/kernel": rng.normal(size=(3, 2)).astype("float32"),
        "weights/vae/log_scale": np.float32(np.pi).reshape(()),
    }
    return Checkpoint(
        epochs=2,
        seconds={"before": 0.1, "validation": 1e-300},
        plan=((0, 0.0), (7, 1 / 3), (9, 1.0)),
        history={"epoch": [1.0, 2.0], "val_elbo": [-100.1, float("nan")]},
        arrays=arrays,
        tables={"kl_per_unit": np.array([[0.5], [0.25]])},
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.npz"


def test_what_is_saved_is_loaded_to_the_last_bit(path):
    saved, identity = make_checkpoint(), identify(CONFIG, IMAGES, None)
    save_checkpoint(path, saved, identity)
    found = load_checkpoint(path, identity)
    assert (found.epochs, found.seconds) == (2, saved.seconds)
    assert [tuple(knot) for knot in found.plan] == list(saved.plan)
    assert found.history["epoch"] == [1.0, 2.0]
    assert np.isnan(found.history["val_elbo"][1])
    np.testing.assert_array_equal(found.tables["kl_per_unit"], saved.tables["kl_per_unit"])
    assert set(found.arrays) == set(saved.arrays)
    for name, array in saved.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)


def test_no_file_is_no_checkpoint(path):
    assert load_checkpoint(path, identify(CONFIG)) is None


def test_other_settings_are_refused_by_name(path):
    save_checkpoint(path, make_checkpoint(), identify(CONFIG, IMAGES))
    other = dataclasses.replace(CONFIG, beta=2.0, latent_dim=8)
    with pytest.raises(
        ValueError, match=r"made with latent_dim=40, beta=1.0, and now .*=8, beta=2"
    ):
        load_checkpoint(path, identify(other, IMAGES))


def test_a_checkpoint_of_another_version_is_refused_as_that(path):
    identity = identify(CONFIG, IMAGES)
    older = {name: value for name, value in identity.items() if name != "beta"}
    for mine, theirs, name in (
        (older, identity, "beta"),
        (identity, older, "beta"),
        ({**identity, "format": 1}, identity, "format"),
    ):
        save_checkpoint(path, make_checkpoint(), mine)
        with pytest.raises(ValueError, match=rf"another version of Safelight, whose {name} "):
            load_checkpoint(path, theirs)


def test_other_pictures_labels_or_another_backend_are_refused(path, monkeypatch):
    labels = np.array([0, 1])
    identity = identify(CONFIG, IMAGES, labels)
    save_checkpoint(path, make_checkpoint(), identity)
    changed = IMAGES.copy()
    changed[1, 3, 2, 0] += 1
    for data in ((changed, labels), (IMAGES, 1 - labels), (IMAGES, None), (IMAGES[:1], labels)):
        with pytest.raises(ValueError, match="other pictures or labels"):
            load_checkpoint(path, identify(CONFIG, *data))
    assert load_checkpoint(path, identify(CONFIG, IMAGES.copy(), labels.copy())) is not None
    monkeypatch.setattr(checkpoints.keras.backend, "backend", lambda: "another")
    with pytest.raises(
        ValueError, match=r"now it is backend='another'; KERAS_BACKEND=.* chooses that"
    ):
        load_checkpoint(path, identify(CONFIG, IMAGES, labels))


def test_shape_and_dtype_belong_to_the_data():
    identities = [
        identify(CONFIG, array)
        for array in (IMAGES, IMAGES.reshape(2, 3, 4, 1), IMAGES.view("int8"), IMAGES[:, ::-1])
    ]
    assert len({tuple(identity["data"]) for identity in identities}) == 4


def test_a_damaged_file_is_refused_in_one_sentence(path):
    identity = identify(CONFIG)
    save_checkpoint(path, make_checkpoint(), identity)
    whole = path.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged.*remove it to start anew"):
            load_checkpoint(path, identity)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("about.npy", b"not an array")
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(path, identity)


def test_a_history_with_holes_is_refused_by_name(path):
    identity, tables = identify(CONFIG), {"kl_per_unit": 1}
    save_checkpoint(path, make_checkpoint(), identity)
    assert load_checkpoint(path, identity, columns=["val_elbo"], tables=tables) is not None
    with pytest.raises(ValueError, match=r"without loss for each of its 2 epochs; remove it"):
        load_checkpoint(path, identity, columns=["val_elbo", "loss"])
    column, table = [-1.0, -2.0], np.ones((2, 1))
    for name, history, rows in (
        ("val_elbo", {"val_elbo": [-1.0]}, {"kl_per_unit": table}),
        ("val_elbo", {}, {"kl_per_unit": table, "val_elbo": table}),
        ("kl_per_unit", {"val_elbo": column}, {"kl_per_unit": np.ones((3, 1))}),
        ("kl_per_unit", {"val_elbo": column}, {"kl_per_unit": np.ones((2, 2))}),
        ("kl_per_unit", {"val_elbo": column}, {"kl_per_unit": np.ones(())}),
        ("kl_per_unit", {"val_elbo": column, "kl_per_unit": column}, {}),
    ):
        made = dataclasses.replace(make_checkpoint(), history=history, tables=rows)
        save_checkpoint(path, made, identity)
        with pytest.raises(ValueError, match=rf"without {name} for each"):
            load_checkpoint(path, identity, columns=["val_elbo"], tables=tables)
    for item in ("1", None, True, [1.0]):
        made = dataclasses.replace(make_checkpoint(), history={"val_elbo": [1.0, item]})
        save_checkpoint(path, made, identity)
        with pytest.raises(ValueError, match="damaged"):
            load_checkpoint(path, identity)


def test_objects_are_neither_written_nor_read(path):
    """A pickle runs code when it is loaded."""
    identity = identify(CONFIG)
    bad = np.array([{"a": 1}], dtype=object)
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        save_checkpoint(path, dataclasses.replace(make_checkpoint(), arrays={"x": bad}), identity)
    assert list(path.parent.iterdir()) == []
    np.savez(path, about=np.array([json.dumps({})], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(path, identity)


def test_the_one_before_stays_until_the_next_is_whole(path, monkeypatch):
    identity = identify(CONFIG)
    save_checkpoint(path, make_checkpoint(), identity)
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, make_checkpoint(), identity)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
