"""Two trainings into one folder, a cache that several users share, a folder that is moved."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from safelight.locks import alone, hold
from safelight.runs import Run
from safelight.transfer.feature_cache import CacheError, FeatureCache

HOLDER = """
import sys, time
from safelight.locks import alone
from safelight.runs import Run
@alone
def write(run):
    print("holds", flush=True)
    time.sleep(600)
write(Run.create(sys.argv[1]))
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that trains into a folder."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "holds\n"
    yield child
    child.kill()
    child.communicate()


def test_a_second_training_into_a_folder_is_refused_and_a_killed_one_holds_nothing(
    holder, tmp_path
):
    path = tmp_path / "run"
    before = sorted(path.iterdir())
    for call in (Run.check, Run.create):
        for overwrite in (False, True):
            with pytest.raises(ValueError, match=r"another process is writing.*--output"):
                call(path, overwrite=overwrite)
    assert sorted(path.iterdir()) == before
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    Run.check(path)
    Run.create(path).write_metrics({})


def test_a_training_writes_alone_in_its_own_thread_too(tmp_path):
    @alone
    def write(run, number):
        Run.create(run.path, overwrite=True)  # nested calls of one training are one
        with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="another process"):
            pool.submit(Run.create, run.path, overwrite=True).result()
        return number

    assert write(Run.create(tmp_path / "run"), number=3) == 3
    Run.create(tmp_path / "run")


WRITERS = ("transfer.experiment.run_training", "transfer.experiment.add_learning_curve",
           "transfer.sweep.run_sweep",
           "vae.experiment.run_training", "vae.rate_distortion.run_curve")  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_every_training_refuses_a_folder_that_another_one_holds(tmp_path, name):
    """Before it looks at anything else: both have made sure that they may, and one was first."""
    module, _, function = name.rpartition(".")
    write = getattr(importlib.import_module(f"safelight.{module}"), function)
    run = Run.create(tmp_path / "run")
    before = sorted(run.path.rglob("*"))
    refused = pytest.raises(ValueError, match=r"another process is writing.*--output")
    with ThreadPoolExecutor(1) as pool, hold(run.path), refused:
        pool.submit(write, run).result()
    assert sorted(run.path.rglob("*")) == before
    with pytest.raises(TypeError):  # nobody holds it any more, and the rest is asked for
        write(run)


def test_a_folder_that_is_moved_meanwhile_is_left_whole_and_the_rest_is_an_error(
    tmp_path, check_whole
):
    run = Run.create(tmp_path / "run")
    run.write_history({"loss": [1.0]})
    shutil.move(tmp_path / "run", tmp_path / "moved")
    for write in (
        lambda: run.write_metrics({}),
        lambda: run.picture_path("history"),
        lambda: run.write_predictions({"file": ["a"]}),
    ):
        with pytest.raises(FileNotFoundError) as error:
            write()
        assert "partial" not in str(error.value)
    assert check_whole(tmp_path / "moved") == 2
    assert not (tmp_path / "run").exists()


# --- a cache of several users


def rows_of(digests):
    return np.stack([np.full((2, 3), float(d), "float32") for d in digests])


def fill(root, *digests):
    entry = FeatureCache(root).entry({"name": "a"}, (2, 3), "float32")
    entry.append(digests, rows_of(digests))
    return entry


def protect(root):
    """What one user lets others read."""
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def release(root):
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_activations_of_another_user_are_used_and_what_is_missing_is_a_sentence(
    open_folder, as_nobody
):
    root = open_folder / "features"
    fill(root, "0", "1")
    protect(root)
    try:
        with as_nobody():
            cache = FeatureCache(root)
            entry = cache.entry({"name": "a"}, (2, 3), "float32")
            with cache.locked([entry]):
                assert entry.missing(["0", "1", "2"]) == ["2"]
                np.testing.assert_array_equal(entry.gather(["1", "0"]), rows_of(["1", "0"]))
                with pytest.raises(CacheError, match="SAFELIGHT_HOME"):
                    entry.append(["2"], rows_of(["2"]))
            with pytest.raises(CacheError, match=r"cannot be written.*SAFELIGHT_HOME"):
                cache.entry({"name": "b"}, (2, 3), "float32")
            assert [each.facts["name"] for each in cache.entries()] == ["a"]
    finally:
        release(root)
    assert fill(root, "2").missing(["0", "1", "2"]) == []


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX users")
def test_a_cache_of_a_group_is_written_by_all_of_it(open_folder):
    """Files get what the umask leaves them, so that a group's umask of 002 is enough."""
    before = os.umask(0o002)
    try:
        root = open_folder / "features"
        entry = fill(root, "0")
        with FeatureCache(root).locked([entry]):
            pass
    finally:
        os.umask(before)
    for path in root.rglob("*"):
        wanted = 0o070 if path.is_dir() else 0o060
        assert path.stat().st_mode & wanted == wanted, path


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX users")
def test_a_fetched_asset_can_be_read_by_others(open_folder, monkeypatch, as_nobody):
    import hashlib

    from safelight import assets
    from safelight.asset_sources import RemoteFile, Source

    (open_folder / "toy.bin").write_bytes(b"toy")
    content = f"sha256:{hashlib.sha256(b'toy').hexdigest()}"
    file = RemoteFile("toy.bin", content, 3, (open_folder / "toy.bin").as_uri())
    row = assets.Asset(
        "toy", "", "", "", "", "file", "toy.bin", 3, content, (Source("url", (file,)),)
    )
    table = {"toy": row, "other": assets.Asset(**{**vars(row), "name": "other", "file": "b.bin"})}
    home = open_folder / "home"
    monkeypatch.setenv("SAFELIGHT_HOME", str(home))
    assets.fetch("toy", table=table)
    protect(home)
    try:
        with as_nobody():
            assert assets.fetch("toy", table=table).read_bytes() == b"toy"
            assert assets.verify("toy", table=table)
            with pytest.raises(assets.AssetError, match=r"cannot be kept.*SAFELIGHT_HOME"):
                assets.fetch("other", table=table)
    finally:
        release(home)


# --- a clock that is set back


def test_a_clock_that_is_set_back_loses_nothing(tmp_path):
    """Entries in use stay, whatever their dates say; locks and leftovers ask no clock."""
    root = tmp_path / "features"
    fill(root, "0")
    tomorrow = time.time() + 86_400
    for path in [*root.rglob("*")]:
        os.utime(path, (tomorrow, tomorrow))
    entry = fill(root, "1")
    assert entry.missing(["0", "1"]) == []
    cache = FeatureCache(root, max_bytes=1)
    with pytest.raises(CacheError, match="room"):
        cache.make_room(10, [entry])
    np.testing.assert_array_equal(entry.gather(["0", "1"]), rows_of(["0", "1"]))
    assert FeatureCache(root).entries()[0].num_rows == 2


def test_runs_are_listed_and_replaced_whatever_their_dates(tmp_path, monkeypatch):
    import datetime

    import safelight.runs as module

    class Past(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(1999, 12, 31, tzinfo=tz)

    Run.create(tmp_path / "first").write_metrics({"accuracy": 0.5})
    monkeypatch.setattr(module, "datetime", Past)
    Run.create(tmp_path / "second").write_metrics({"accuracy": 0.5})
    listed = module.list_runs(tmp_path)
    assert [(row.path.name, row.problem) for row in listed] == [("second", ""), ("first", "")]
    Run.create(tmp_path / "first", overwrite=True)
    assert not Run.open(tmp_path / "first").finished


@pytest.mark.slow
def test_minutes_are_counted_by_a_clock_that_nobody_sets(tmp_path, pictures, monkeypatch):
    """The time of day runs backwards, a thousand times as fast, while a training counts seconds."""
    from safelight.vae import build_vae, train
    from safelight.vae.config import TrainConfig

    begun = time.perf_counter()
    monkeypatch.setattr(time, "time", lambda: 1e9 - 1000 * (time.perf_counter() - begun))
    images = np.stack([pictures.read(number) for number in range(len(pictures))])
    config = TrainConfig(latent_dim=2, hidden_units=(4,), batch_size=20, minutes=0.01)
    trained = train(
        build_vae(images.shape[1:], config), images, config=config,
        checkpoint=tmp_path / "checkpoint.npz",
    )  # fmt: skip
    assert 0 < trained.seconds["training"] <= time.perf_counter() - begun
    assert not trained.interrupted


# --- what a killed server has kept


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX users")
def test_uploads_of_a_killed_server_are_removed_and_those_of_a_living_one_stay(
    tmp_path, monkeypatch
):
    import tempfile

    from safelight.app import privacy

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, living, other = (tmp_path / f"{privacy._PREFIX}{name}" for name in ("a", "b", "c"))
    for folder in (dead, living):
        folder.mkdir()
        (folder / "face.png").write_bytes(b"somebody's")
    (tmp_path / "photos").mkdir()
    other.symlink_to(tmp_path / "photos")
    with hold(dead):
        pass  # its lock file is there, and nobody holds it
    with ThreadPoolExecutor(1) as pool, hold(living):
        pool.submit(privacy._remove_killed).result()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [living.name, other.name, "photos"]
    )
    assert (living / "face.png").exists()
