"""`kill -9` between any two changes of the disk: nothing is half there, and the next call mends it.

No moment is drawn by chance: every state that a call goes through is looked at (`Moments`).
"""

import contextlib
import dataclasses
import functools
import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from safelight import assets, bundles, files
from safelight.asset_sources import RemoteFile, Source
from safelight.assets import Asset, fetch
from safelight.report import write_model_card, write_report
from safelight.runs import Run, list_runs
from safelight.transfer.feature_cache import FeatureCache
from safelight.weight_files import array_digest, write_npz


def write_run(path, *, seed=0, overwrite=False):
    """All files that a run may have, in the order of a training, without a training."""
    rng = np.random.default_rng(seed)
    run = Run.create(path, overwrite=overwrite)
    run.write_config({"kind": "transfer", "dataset": {"name": "shapes"}, "seed": seed})
    files.write_text(run.path / "environment.json", "{}")  # asking takes a second
    with files.atomic_path(run.model_path) as partial, zipfile.ZipFile(partial, "w") as archive:
        archive.writestr("model.weights.h5", rng.bytes(200))
    run.write_history({"loss": rng.random(4)})
    run.write_predictions({"file": ["a.png", "b.png"], "p(x)": rng.random(2)})
    for name in ("history", "mistakes"):
        with files.atomic_path(run.picture_path(name)) as partial:
            Image.fromarray(rng.integers(0, 256, (9, 9), "uint8")).save(partial)
    with files.atomic_path(run.path / "familiarity.npz") as partial:
        write_npz(partial, {"rows": rng.normal(size=(4, 2)).astype("float32")})
    run.write_data_page(f"# The pictures, {seed}\n")
    run.write_metrics({"accuracy": {"value": float(rng.random()), "low": 0.0, "high": 1.0}})
    return run


def contents(run):
    """What a run says, its dates apart; hidden files are no part of it."""
    found = {}
    for path in sorted(run.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            found[path.relative_to(run).as_posix()] = path.read_bytes()
    config = json.loads(found["config.json"])
    found["config.json"] = {key: value for key, value in config.items() if key != "created"}
    if "model.keras" in found:
        with zipfile.ZipFile(io.BytesIO(found["model.keras"])) as archive:
            found["model.keras"] = archive.read("model.weights.h5")
    return found


def hidden(root):
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob(".*")
        if path.name != ".lock" and not path.name.endswith(".lock")
    )


def test_a_run_is_whole_and_can_be_made_again_at_every_moment(tmp_path, moments, at, check_whole):
    expected = contents(write_run(tmp_path / "undisturbed", seed=2).path)
    older = tmp_path / "root" / "run"
    write_run(older, seed=1)
    write_report([older])
    write_model_card(older)
    with moments(tmp_path / "root") as seen:
        write_run(older, seed=2, overwrite=True)
    assert len(seen.states) > 25
    for state in seen.states:
        run = at(state) / "run"
        check_whole(run)
        assert len(list_runs(run.parent)) == 1
        if "run/metrics.json" in state:  # a finished run is all of the older or all of the newer
            seed = Run.open(run).config["seed"]
            assert (run / "README.md").exists() == {1: True, 2: False}[seed]
            assert (run / "model.keras").exists()
        # Nothing of the older run stays, its report and model card neither.
        assert contents(write_run(run, seed=2, overwrite=True).path) == expected
        assert hidden(run) == []


def test_a_first_run_can_be_made_without_overwrite_until_it_has_a_model(tmp_path, moments, at):
    (tmp_path / "root").mkdir()
    with moments(tmp_path / "root") as seen:
        write_run(tmp_path / "root" / "run")
    for state in seen.states:
        run = at(state) / "run"
        if "run/model.keras" in state:
            with pytest.raises(ValueError, match="--overwrite"):
                Run.check(run)
        else:
            Run.check(run)
        write_run(run, overwrite=True)


def test_a_report_and_its_card_are_the_older_or_the_newer(tmp_path, moments, at, check_whole):
    run = write_run(tmp_path / "root" / "run").path

    def report(run):
        write_report([run])
        write_model_card(run)
        return [(run / name).read_bytes() for name in ("report.html", "README.md")]

    older = report(run)
    Run(run).write_metrics({"accuracy": {"value": 0.25, "low": 0.0, "high": 1.0}})
    with moments(tmp_path / "root") as seen:
        newer = report(run)
    assert older[0] != newer[0]
    for state in seen.states:
        folder = at(state) / "run"
        check_whole(folder)
        assert state["run/report.html"] in (older[0], newer[0])
        assert state["run/README.md"] in (older[1], newer[1])
        assert report(folder) == newer


# --- folders as a whole


def fill(text):
    def write(folder):
        for name in ("mark.json", "a.txt", "b.txt"):
            (folder / name).write_text(f"{text} {name}")

    return write


def export(folder, text, *, overwrite):
    names = {"a.txt", "b.txt"}
    bundles.check_folder(folder, mark="mark.json", names=names, overwrite=overwrite)
    bundles.with_folder(folder, fill(text), mark="mark.json", names=names, overwrite=overwrite)


def texts(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_of_files_is_whole_at_every_moment(tmp_path, moments, at):
    root = tmp_path / "root"
    root.mkdir()
    older, newer = ({n: f"{t} {n}" for n in ("mark.json", "a.txt", "b.txt")} for t in "on")
    with moments(root) as seen:
        export(root / "page", "o", overwrite=False)
    num_first = len(seen.states)
    with seen:
        export(root / "page", "n", overwrite=True)
    assert num_first > 8
    assert len(seen.states) > num_first + 8
    for number, state in enumerate(seen.states):
        folder = at(state) / "page"
        if number >= num_first and not folder.exists():
            # Between two renames: whoever looks next, and may not replace it, finds the older one.
            with pytest.raises(ValueError, match="--overwrite"):
                export(folder, "x", overwrite=False)
            assert texts(folder) == older
        if folder.exists():
            assert texts(folder) in (older, newer)
        export(folder, "n", overwrite=True)
        assert texts(folder) == newer
        assert [path.name for path in folder.parent.iterdir()] == ["page"]


def test_what_another_export_is_writing_is_left_alone(tmp_path):
    """Its neighbour, too, whose name begins alike."""
    folder = tmp_path / "page"
    export(tmp_path / "page.old", "o", overwrite=False)

    def write(work):
        export(tmp_path / "page.old", "n", overwrite=True)
        fill("slow")(work)
        with pytest.raises(ValueError, match="there is no folder"):
            export(tmp_path / "no" / "page", "x", overwrite=True)
        with ThreadPoolExecutor(1) as pool:  # within a thread a folder may be held twice
            check = functools.partial(bundles.check_folder, folder, mark="mark.json", names=())
            pool.submit(check).result()
        assert work.is_dir()

    bundles.with_folder(folder, write, mark="mark.json", names=())
    assert texts(folder)["a.txt"] == "slow a.txt"


# --- assets


def packed(kind, source):
    """An asset of a kind and the archive that it comes in."""
    rng = np.random.default_rng(0)
    data = {name: rng.bytes(5_000) for name in ("one.bin", "two.bin")}
    if kind == "file":
        (source / "toy.bin.gz").write_bytes(gzip.compress(data["one.bin"]))
        return {"file": "toy.bin", "unpack": "gzip", "content": sha256(data["one.bin"])}
    with tarfile.open(source / "toy.tar", "w") as archive:
        for name, each in data.items():
            member = tarfile.TarInfo(f"toy/{name}")
            member.size = len(each)
            archive.addfile(member, io.BytesIO(each))
    lines = "".join(f"{hashlib.sha256(data[name]).hexdigest()}  {name}\n" for name in sorted(data))
    return {"file": "toy", "unpack": "tar", "prefix": "toy/", "content": sha256(lines.encode())}


def sha256(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def make_table(kind, folder):
    folder.mkdir()
    row = packed(kind, folder)
    (archive,) = folder.iterdir()
    file = RemoteFile(archive.name, sha256(archive.read_bytes()), 0, archive.as_uri())
    source = Source("url", (file,), unpack=row["unpack"], prefix=row.get("prefix", ""))
    size = 5_000 if kind == "file" else 10_000
    asset = Asset(
        "toy", "", "", "", "", kind, row["file"], size, row["content"], (source,)
    )  # fmt: skip
    return {"toy": asset}


def read_names(root):
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def spoil(path):
    """A byte that the disk has lost, and the stamp with it."""
    target = path if path.is_file() else path / "one.bin"
    target.write_bytes(b"?" + target.read_bytes()[1:])
    (assets.assets_dir() / "toy.stamp.json").unlink()


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_asset_is_whole_or_fetched_again_at_every_moment(
    tmp_path, monkeypatch, moments, at, kind, damaged
):
    table = make_table(kind, tmp_path / "source")
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("SAFELIGHT_HOME", str(home))
    if damaged:
        spoil(fetch("toy", table=table))
    with moments(home) as seen:
        fetch("toy", table=table)
    assert len(seen.states) > 8
    expected = set(seen.states[-1])
    for state in seen.states:
        monkeypatch.setenv("SAFELIGHT_HOME", str(at(state)))
        (status,) = assets.list_assets(table=table)
        if status.cached:  # what counts as here is right
            assets.verify("toy", table=table)
        fetch("toy", table=table)
        assets.verify("toy", table=table)
        found = read_names(assets.cache_dir())
        assert found == expected


def test_weights_are_read_only_if_every_array_is_right(tmp_path):
    """The check that stands between a kill and a network: one bit more, and it is refused."""
    from safelight.weight_files import check_arrays, read_npz

    weights = {"a/kernel": np.arange(4, dtype="float32")}
    write_npz(tmp_path / "w.npz", weights)
    known = {name: array_digest(array) for name, array in weights.items()}
    check_arrays(read_npz(tmp_path / "w.npz"), known)
    write_npz(tmp_path / "w.npz", {"a/kernel": np.nextafter(weights["a/kernel"], 9, dtype="f4")})
    with pytest.raises(ValueError, match="a/kernel"):
        check_arrays(read_npz(tmp_path / "w.npz"), known)


# --- activations


def rows_of(digests):
    return np.stack([np.full((2, 3), float(d), "float32") for d in digests])


def extract(root, digests, *, per_shard=3):
    """As an extraction: what is missing, shard by shard, under the entry's lock."""
    cache = FeatureCache(root, max_bytes=10**9)
    cache.make_room(1, [])
    entry = cache.entry({"name": "a"}, (2, 3), "float32")
    with cache.locked([entry]):
        missing = entry.missing(digests)
        for start in range(0, len(missing), per_shard):
            part = missing[start : start + per_shard]
            entry.append(part, rows_of(part))
    return entry.gather(digests)


def test_activations_are_right_or_missed_at_every_moment(tmp_path, moments, at):
    root, digests = tmp_path / "root", [str(number) for number in range(7)]
    root.mkdir()
    with moments(root) as seen:
        extract(root, digests[:4])
        extract(root, digests)
        FeatureCache(root).clear()
        extract(root, digests)
    assert len(seen.states) > 40
    for state in seen.states:
        folder = at(state)
        entry = FeatureCache(folder).entry({"name": "a"}, (2, 3), "float32")
        there = [digest for digest in digests if digest in entry]
        if there:
            np.testing.assert_array_equal(entry.gather(there), rows_of(there))
        np.testing.assert_array_equal(extract(folder, digests), rows_of(digests))
        assert set(FeatureCache(folder).verify().values()) == {0}
        left = [p for p in folder.rglob("*") if p.name.startswith(("tmp-shard", "doomed-"))]
        assert left == []


# --- a disk that is full


def fails_whenever(full_disk, write, before):
    """A call is made with a disk that fills up at its first change, its second, and so on."""
    for number in range(500):
        before()
        said, disk = "", full_disk(number)
        try:
            with disk:
                write()
        except (OSError, ValueError, RuntimeError) as error:
            said = str(error)
        if not disk.num_failed:
            return
        assert "No space left" in said  # and is never kept silent
        yield number
    raise AssertionError("never comes to its end")


def test_a_full_disk_leaves_runs_whole(tmp_path, full_disk, check_whole):
    expected = contents(write_run(tmp_path / "undisturbed", seed=2).path)
    path = tmp_path / "run"

    def write():
        write_run(path, seed=2, overwrite=True)

    def before():
        write_run(path, seed=1, overwrite=True)

    numbers = []
    for number in fails_whenever(full_disk, write, before):
        numbers.append(number)
        check_whole(path)
        assert hidden(path) == []
        write()
        assert contents(path) == expected
    assert len(numbers) > 25


def test_a_full_disk_leaves_reports_exports_and_checkpoints_as_they_were(tmp_path, full_disk):
    from safelight.generative.checkpoints import Checkpoint, load_checkpoint, save_checkpoint

    run = write_run(tmp_path / "run").path
    checkpoint = Checkpoint(2, {}, [], {}, {"w": np.ones(4)}, {"kl": np.zeros((2, 1))})

    def write(epochs, text):
        write_report([run], tmp_path / "a.html")
        export(tmp_path / "page", text, overwrite=True)
        save_checkpoint(tmp_path / "c.npz", dataclasses.replace(checkpoint, epochs=epochs), {})

    numbers = []
    for number in fails_whenever(full_disk, lambda: write(3, "n"), lambda: write(2, "o")):
        numbers.append(number)
        assert (tmp_path / "a.html").read_text().rstrip().endswith("</html>")
        assert texts(tmp_path / "page")["a.txt"] in ("o a.txt", "n a.txt")
        assert load_checkpoint(tmp_path / "c.npz", {}).epochs == 2
        assert hidden(tmp_path) == []
    assert len(numbers) > 8


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_full_disk_keeps_no_part_of_an_asset(tmp_path, monkeypatch, full_disk, kind):
    table = make_table(kind, tmp_path / "source")
    monkeypatch.setenv("SAFELIGHT_HOME", str(tmp_path / "home"))

    def before():
        assets.remove("toy", table=table)

    numbers = []
    for number in fails_whenever(full_disk, lambda: fetch("toy", table=table), before):
        numbers.append(number)
        (status,) = assets.list_assets(table=table)
        assert not status.cached
        assert not list(assets.assets_dir().glob(".*.part"))
    assert len(numbers) > 3
    assets.verify("toy", table=table)


def test_a_full_disk_loses_no_activations(tmp_path, full_disk):
    digests = [str(number) for number in range(7)]
    extract(tmp_path, digests[:4])

    def before():
        (entry,) = FeatureCache(tmp_path).entries()
        assert entry.num_rows in (4, 7)

    def write():
        extract(tmp_path, digests)

    numbers = []
    for number in fails_whenever(full_disk, write, before):
        numbers.append(number)
        entry = FeatureCache(tmp_path).entry({"name": "a"}, (2, 3), "float32")
        np.testing.assert_array_equal(entry.gather(digests[:4]), rows_of(digests[:4]))
    assert len(numbers) > 2
    np.testing.assert_array_equal(extract(tmp_path, digests), rows_of(digests))


def fill_up(path, *, but_for):
    with path.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        file.truncate(max(0, file.tell() - but_for))


def fails_for_want_of_space(write):
    try:
        write()
    except (OSError, ValueError) as error:
        if "No space left" not in str(error):
            raise
        return True
    return False


def test_a_disk_that_is_really_full(small_disk, check_whole):
    """With no room, with a page of it, with two, until a run has enough."""
    older, path, ballast = (small_disk / name for name in ("older", "run", "ballast"))
    expected = contents(write_run(older).path)
    for pages in range(100):
        fill_up(ballast, but_for=pages * 4096)
        failed = fails_for_want_of_space(lambda: write_run(path, overwrite=True))
        ballast.unlink()
        assert contents(older) == expected
        if not failed:
            break
        if path.exists():
            check_whole(path)
            assert hidden(path) == []
    assert pages > 2
    assert contents(path) == expected


def test_a_full_disk_is_one_sentence_that_says_what_to_do(tmp_path, call, full_disk, monkeypatch):
    run = write_run(tmp_path / "run").path
    with full_disk(0):
        code, out, err = call("report", run)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "report.html: cannot be written (No space left" in err

    def fill(*_):
        with full_disk(0):
            files.write_text(run / "notes.json", "{}")

    monkeypatch.setattr("safelight.report.write_report", fill)
    code, out, err = call("report", run)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{run / 'notes.json'}: No space left on device; make room" in err


# --- a folder that may not be written


def test_a_folder_without_rights_is_a_sentence_and_stays_as_it_is(open_folder, as_nobody):
    run = write_run(open_folder / "run").path
    export(open_folder / "page", "o", overwrite=False)
    state = {name: data for name, data in tree(open_folder).items() if ".lock" not in name}
    for path in (open_folder, run, run / "pictures", open_folder / "page"):
        path.chmod(0o555)
    try:
        with as_nobody():
            for write in (
                lambda: Run.create(run, overwrite=True),
                lambda: Run.create(open_folder / "new"),
                lambda: write_report([run]),
                lambda: write_model_card(run),
            ):
                with pytest.raises(ValueError, match="cannot be written"):
                    write()
            with pytest.raises((OSError, ValueError)):
                export(open_folder / "page", "n", overwrite=True)
            assert Run.open(run).metrics["accuracy"]["low"] == 0
            assert [row.problem for row in list_runs(open_folder)] == [""]
    finally:
        for path in (open_folder, run, run / "pictures", open_folder / "page"):
            path.chmod(0o755)
    assert {n: d for n, d in tree(open_folder).items() if ".lock" not in n} == state


def tree(root):
    return {str(path): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


# --- whole trainings


def names_of(state, folder):
    return {name.removeprefix(f"{folder}/") for name in state if name.startswith(f"{folder}/")}


def check_states(seen, at, check_whole, *, resumes):
    """Whole at every moment, and the same command goes on, with --overwrite where it says so."""
    assert len(seen.states) > 30
    for state in seen.states:
        run = at(state) / "run"
        check_whole(run)
        there = names_of(state, "run")
        if "metrics.json" in there:
            assert {"model.keras", "history.csv", "predictions.csv", "environment.json"} <= there
            continue
        if "model.keras" in there and not (resumes and "checkpoint.npz" in there):
            with pytest.raises(ValueError, match="--overwrite"):
                Run.check(run, resume=resumes)
        else:
            Run.check(run, resume=resumes)
        Run.check(run, overwrite=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Even though the:UserWarning")
def test_a_classifiers_training_is_whole_at_every_moment(
    tmp_path, tiny, pictures, moments, at, check_whole
):
    from safelight import datasets
    from safelight.transfer.config import TrainConfig
    from safelight.transfer.experiment import run_training

    config = TrainConfig(
        image_size=16, unfreeze_from="block3", head_layers=("block2/avg", "block3/max"),
        epochs=1, batch_size=8, precision="float32",
    )  # fmt: skip
    (tmp_path / "root").mkdir()
    with moments(tmp_path / "root") as seen:
        run_training(
            Run.create(tmp_path / "root" / "run"), datasets.split(pictures, seed=0), config,
            dataset=pictures, report=lambda *_: None, cache=FeatureCache(tmp_path / "features"),
        )  # fmt: skip
    check_states(seen, at, check_whole, resumes=False)


def train_vae(path, pictures, *, epochs=3):
    from safelight.generative import pictures as parts_of
    from safelight.vae import experiment
    from safelight.vae.config import TrainConfig

    parts = parts_of.load_parts(pictures, parts_of.split(pictures, seed=0))
    config = TrainConfig(latent_dim=2, hidden_units=(8,), epochs=epochs, batch_size=16)
    config = experiment.resolve(config, parts)
    run = experiment.open_run(path, parts, config)
    return experiment.run_training(
        run, parts, config, report=lambda *_: None, num_importance_samples=5, num_scored=4
    )


@pytest.fixture(scope="module")
def trained_vae(tmp_path_factory, pictures, moments):
    """The states of a training that keeps itself after every epoch."""
    from safelight.vae import training

    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch, moments(root) as seen:
        patch.setattr(training, "_CHECKPOINT_SECONDS", 0.0)
        train_vae(root / "run", pictures)
    return seen


@pytest.mark.slow
def test_an_autoencoders_training_is_whole_at_every_moment(trained_vae, at, check_whole):
    check_states(trained_vae, at, check_whole, resumes=True)


@pytest.mark.slow
def test_an_autoencoders_training_goes_on_to_the_same_bits_from_moments(trained_vae, at, pictures):
    """From every kept epoch, and from the moments in which results are written."""
    expected = bits(trained_vae.root / "run")
    kept = [state for state in trained_vae.states if "run/metrics.json" not in state]
    for state in kept[:: max(1, len(kept) // 3)]:
        folder = at(state)
        train_vae(folder / "run", pictures)
        assert bits(folder / "run") == expected
        assert hidden(folder) == []


def bits(run):
    """Weights, curves and answers, to the last bit."""
    import keras

    from safelight.vae import experiment

    model = experiment.load_vae(Run.open(run))
    weights = [keras.ops.convert_to_numpy(weight.value).tobytes() for weight in model.weights]
    tables = [(run / name).read_bytes() for name in ("history.csv", "predictions.csv")]
    return [*weights, *tables]
