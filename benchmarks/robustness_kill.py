"""`kill -9` at a hundred moments of real commands: run again, they leave what they always leave.

    python benchmarks/robustness_kill.py [--trials 100] [--seed 0] [--only transfer,vae]

Each trial starts a command of `safelight` in a folder of its own and kills its process group: in
half of the trials after a random part of the time that it takes, in the others at a random change
of the folder (a name that appears or goes), which is where files are written. Then every file with
a final name is opened and read to its end; the same command is given again, with --overwrite if it
says that this is needed; and what it leaves is compared with an undisturbed run: weights, answers,
curves, pixels and pages to the last bit, times and dates apart.

Where the name of a job does not begin with "fresh", the command runs in a fork of a process that
has imported everything and computed nothing (TensorFlow has no threads yet), with a network of
three convolutions in the place of VGG16, without TensorFlow's graphs, with pictures of few dots and
none of explanations, and with a checkpoint after every epoch instead of every 20 seconds. "fresh"
ones are `python -m safelight` as a user types it, with the real VGG16. Of a VAE the numbers of the
validation part are left out: how often it is looked at depends on the clock, and nothing depends on
it.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import contextlib
import csv
import functools
import hashlib
import io
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import tiny
from repeats import parse_options, write_result

CLAIM = "robustness_kill"
NUM_PICTURES = 40
LIMIT = 300.0  # seconds that a command may take
POLL = 0.0005
NEVER = 10**9
TOY_FILES, TOY_BYTES = 6, 4_000_000
logger = logging.getLogger(__name__)

# Keys of JSON files that tell of time, or of what the cache had already.
_OF_TIME = {"seconds", "created", "images_per_second", "source"}
_ADDRESSES = re.compile(rb'"shared_object_id": \d+')
_DATES = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?")


@dataclass(frozen=True)
class Job:
    """A command to kill.

    Attributes:
        name: In tables.
        arguments: Of `safelight`, relative to the trial's folder.
        share: Of the trials, in hundredths.
        needs: Parts of earlier jobs' results that lie there before, by their names there.
        fresh: Whether it is a command line of its own.
    """

    name: str
    arguments: tuple[str, ...]
    share: int
    needs: dict[str, str] = field(default_factory=dict)
    fresh: bool = False


FRESH = "transfer train data --output run --image-size 32 --unfreeze-from auto --epochs 1"
VAE = "vae train data --output run --epochs 4 --latent-dim 3 --hidden-units 16 --batch-size 16"
GAN = (
    "gan train data --output run --test-fraction 0.5 --epochs 3 --latent-dim 3 --filters 4 "
    "--batch-size 16"
)
JOBS = (
    Job("fetch", ("assets", "fetch", "toy"), 30),
    Job("transfer", ("transfer", "train", "data", "--output", "run", *tiny.TRAIN_FLAGS), 12),
    Job("vae", tuple(VAE.split()), 12),
    Job("gan", tuple(GAN.split()), 8),
    Job("report", ("report", "run"), 24, {"run": "transfer/run"}),
    Job("export", ("export", "run", "--web", "page"), 4, {"run": "vae/run"}),
    Job("fresh transfer", tuple(FRESH.split()), 1, fresh=True),
    Job("fresh vae", tuple(VAE.split()), 2, fresh=True),
    Job("fresh report", ("report", "run"), 7, {"run": "transfer/run"}, fresh=True),
)  # fmt: skip


# --- what an outcome is


def outcome(place: Path) -> dict[str, str]:
    """A digest of everything that a command leaves, by name; hidden files are no part of it."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.is_file() and not hidden and name.parts[0] != "data" and _counts(name, place):
            found[name.as_posix()] = hashlib.sha256(_content(path)).hexdigest()[:16]
    return found


def _counts(name: Path, place: Path) -> bool:
    """What depends on the machine or the clock, and the cache, which may be filled earlier."""
    in_home = name.parts[0] == "home" and name.parts[1:2] != ("assets",)
    autoencoder = (place / "run" / "history_kl.npy").exists()
    skipped = {"environment.json", "checkpoint.npz", *(["history.png"] if autoencoder else [])}
    return not in_home and name.name not in skipped


def _content(path: Path) -> bytes:
    """What a file says, without the time at which it was written; reading it checks it."""
    return _READERS.get(path.suffix, Path.read_bytes)(path)


def _data(path: Path) -> bytes:
    return json.dumps(_timeless(json.loads(path.read_text("utf-8"))), sort_keys=True).encode()


def _page(path: Path) -> bytes:
    text = path.read_text("utf-8")
    if path.suffix == ".html" and not text.rstrip().endswith("</html>"):
        raise ValueError(f"{path.name} has no end")
    return _DATES.sub("", text).encode()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in _OF_TIME}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def _arrays(path: Path) -> bytes:
    with path.open("rb") as file:
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found.tobytes()
        return b"".join(name.encode() + found[name].tobytes() for name in sorted(found.files))


def _model(path: Path) -> bytes:
    """Every weight by its name, and how they are wired; the date of saving is left out."""
    import h5py

    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise ValueError(f"{path.name} is damaged")
        parts = [_ADDRESSES.sub(b"", archive.read("config.json"))]
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights) as file:
        file.visititems(functools.partial(_add_weights, parts))
    return b"".join(parts)


def _add_weights(parts: list[bytes], name: str, found: Any) -> None:
    """But for the states of random generators, which go on with every look at the validation."""
    import h5py

    if isinstance(found, h5py.Dataset) and "seed_generator" not in name:
        parts.append(name.encode() + found[()].tobytes())


def _pixels(path: Path) -> bytes:
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture).tobytes()


def _rows(path: Path) -> bytes:
    """Of a VAE's curves without what is looked at as often as the time allows."""
    text = path.read_text("utf-8")
    rows = list(csv.reader(io.StringIO(text)))
    widths = set(map(len, rows))
    if not text.endswith("\n") or len(widths) != 1:
        raise ValueError(f"{path.name} has rows of widths {widths}, or no end")
    timed = [name.startswith("val_") or name == "active_units" for name in rows[0]]
    skip = "elbo" in rows[0] and path.name == "history.csv"
    kept = [[c for c, t in zip(row, timed, strict=True) if not (skip and t)] for row in rows]
    return json.dumps(kept).encode()


_READERS: dict[str, Callable[[Path], bytes]] = {
    ".json": _data, ".npz": _arrays, ".npy": _arrays, ".keras": _model, ".png": _pixels,
    ".csv": _rows, ".html": _page, ".md": _page,
}  # fmt: skip


def damage(place: Path) -> list[str]:
    """Files under their final names that cannot be read to their end."""
    try:
        outcome(place)
        _check_assets(place)
    except Exception as error:  # noqa: BLE001  whatever it is, it is what the trial looks for
        return [f"{type(error).__name__}: {error}"]
    return []


def _check_assets(place: Path) -> None:
    """What counts as fetched has its digest."""
    folder = place / "home" / "assets"
    stamp = folder / "toy.stamp.json"
    if not stamp.is_file():
        return
    for name, (size, digest) in json.loads(stamp.read_text("utf-8"))["files"].items():
        data = (folder / "toy" / name).read_bytes()
        if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
            raise ValueError(f"{name} is stamped and damaged")


def leftovers(place: Path) -> list[str]:
    """Temporary names that are still there."""
    marks = (".partial", ".part", "tmp-", "doomed-", ".tmp")
    names = (path.relative_to(place).as_posix() for path in place.rglob("*"))
    return sorted(name for name in names if any(mark in Path(name).name for mark in marks))


# --- a trial's folder


def prepare(job: Job, place: Path, results: Path) -> None:
    """A fresh folder with pictures, earlier results, and a cache that has the real assets."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "home").mkdir(parents=True)
    shutil.copytree(results / "data", place / "data")
    for name, source in job.needs.items():
        shutil.copytree(results / source, place / name)
    if job.name != "fetch":
        from safelight import assets

        (place / "home" / "assets").symlink_to(assets.assets_dir(), target_is_directory=True)


def make_toy(results: Path) -> dict[str, Any]:
    """An asset of several files in a tarball on this disk, as a table of one row."""
    from safelight.asset_sources import RemoteFile, Source
    from safelight.assets import Asset

    rng, lines = np.random.default_rng(0), []
    archive = results / "toy.tar"
    with tarfile.open(archive, "w") as tar:
        for number in range(TOY_FILES):
            data, member = rng.bytes(TOY_BYTES), tarfile.TarInfo(f"toy/{number}.bin")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            lines.append(f"{hashlib.sha256(data).hexdigest()}  {number}.bin\n")
    digest = f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    file = RemoteFile(archive.name, digest, archive.stat().st_size, archive.as_uri())
    content = f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
    source = Source("url", (file,), unpack="tar", prefix="toy/")
    row = ("toy", "", "", "", "", "folder", "toy", TOY_FILES * TOY_BYTES, content, (source,))
    return {"toy": Asset(*row)}


# --- processes


def start(job: Job, arguments: tuple[str, ...], place: Path, toy: dict[str, Any]) -> int:
    """A command in a process group of its own; gives its number."""
    log = place.with_name("log")
    stage = place.with_name("stage")
    stage.write_bytes(b"loading")
    if job.fresh:
        environment = {**os.environ, "SAFELIGHT_HOME": str(place / "home")}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "safelight", *arguments],
                cwd=place, env=environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        process.returncode = 0  # it is waited for here, not by its object
        return process.pid
    child = os.fork()
    if child == 0:
        _be_command(arguments, place, toy)
    with contextlib.suppress(OSError):
        os.setpgid(child, child)
    return child


def _be_command(arguments: tuple[str, ...], place: Path, toy: dict[str, Any]) -> None:
    """The child's side of a fork; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        os.chdir(place)
        output = os.open(place.with_name("log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1), os.dup2(output, 2)
        os.environ["SAFELIGHT_HOME"] = str(place / "home")
        _shrink(place.with_name("stage"), toy)
        sys.argv = ["safelight", *arguments]
        from safelight import cli

        cli.main()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
    except BaseException:  # noqa: BLE001  a child must not come back into the parent's loop
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _shrink(stage: Path, toy: dict[str, Any]) -> None:
    """The tiny network, the toy asset, checkpoints after every epoch; stages are told to a file."""
    from safelight import assets
    from safelight.cli import console
    from safelight.gan import training as gan_training
    from safelight.plots import style
    from safelight.transfer import album
    from safelight.vae import training as vae_training

    tiny.use_network()
    for training in (vae_training, gan_training):
        training._CHECKPOINT_SECONDS = 0.0
    # What a GAN draws is looked at as often as the time allows; here after every epoch.
    gan_training._WATCH_SHARE = 1.0
    style.save_figure.__kwdefaults__["dpi"] = 40
    style.ConstrainedLayoutEngine = lambda **_: None
    album._explain = lambda *_: None
    file = os.open(stage, os.O_WRONLY)

    def tell(name: str, *_: object) -> None:
        os.pwrite(file, name.encode().ljust(40), 0)

    console._silent = tell
    for function in (assets.fetch, assets.list_assets, assets.verify):
        function.__kwdefaults__["table"] = {**assets.ASSETS, **toy}


@dataclass
class Moment:
    """When a process is killed: after so many seconds, or at a change of its folder."""

    seconds: float = LIMIT
    changes: int = NEVER


def names_below(place: Path) -> set[str]:
    """All names there but the pictures', quickly."""
    found: set[str] = set()
    waiting = [place]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                found.add(entry.path)
                if entry.name != "data" and entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
    return found


def attend(child: int, place: Path, moment: Moment, *, counting: bool = False) -> dict[str, Any]:
    """Waits for a process, and kills its group at the moment; says how it went.

    Args:
        child: The process.
        place: The folder whose changes are counted.
        moment: When to kill.
        counting: Whether changes are counted even if nobody waits for one: looking takes time.
    """
    begun, seen, changes = time.perf_counter(), names_below(place), 0
    watching = counting or moment.changes < NEVER
    while True:
        now = time.perf_counter() - begun
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return {"killed": False, "code": code, "seconds": now, "changes": changes}
        if watching:
            names = names_below(place)
            changes += names != seen
            seen = names
        if now >= moment.seconds or changes >= moment.changes:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"killed": True, "code": -9, "seconds": now, "changes": changes}
        time.sleep(POLL if watching else 20 * POLL)


def run(
    job: Job,
    place: Path,
    toy: dict[str, Any],
    more: tuple[str, ...] = (),
    *,
    counting: bool = False,
) -> dict[str, Any]:
    """A command to its end."""
    child = start(job, (*job.arguments, *more), place, toy)
    return attend(child, place, Moment(), counting=counting)


def again(job: Job, place: Path, toy: dict[str, Any]) -> str:
    """The same command, as a user gives it after a kill; says what it took."""
    finished = (place / "run" / "metrics.json").is_file()
    ended = run(job, place, toy)
    said = place.with_name("log").read_text("utf-8", errors="replace")
    if ended["code"] == 0:
        return "same command"
    if ended["code"] == 2 and "holds a finished run" in said and finished:
        return "had ended"
    if ended["code"] == 2 and "--overwrite" in said and "Traceback" not in said:
        ended = run(job, place, toy, ("--overwrite",))
        said = place.with_name("log").read_text("utf-8", errors="replace")
        if ended["code"] == 0:
            return "with --overwrite"
    raise RuntimeError(f"exit code {ended['code']}: {said[-400:]}")


# --- trials


@dataclass
class Trial:
    """What one kill did.

    Attributes:
        job: Its job's name.
        at: "time" or "change".
        part: Of the time or of the changes that an undisturbed run has.
        stage: What the command was at when it was killed.
        writing: Temporary names at that moment.
        damaged: Files under final names that could not be read.
        route: What it took to get the result.
        differs: Names whose content is not that of the undisturbed run.
        left: Temporary names that are still there in the end.
    """

    job: str
    at: str
    part: float
    stage: str = ""
    writing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    route: str = ""
    differs: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing was half there and nothing was lost."""
        return not (self.damaged or self.differs or self.route.startswith("failed"))


def try_once(
    job: Job, place: Path, results: Path, known: dict[str, Any], rng: np.random.Generator, by: str
) -> Trial:
    """Kills, looks, runs again, compares; draws anew if the command was quicker than the kill."""
    for attempt in range(10):
        # Sooner and sooner: other jobs may have slowed the run that the times are from.
        part = float(rng.uniform(0, 0.99 * 0.8**attempt))
        prepare(job, place, results)
        moment = (
            Moment(seconds=part * known["seconds"])
            if by == "time"
            else Moment(changes=1 + int(part * known["changes"]))
        )
        child = start(job, job.arguments, place, known["toy"])
        if attend(child, place, moment)["killed"]:
            break
    else:
        raise RuntimeError(f"{job.name}: always quicker than the kill")
    stage = place.with_name("stage").read_text("utf-8").strip() if not job.fresh else ""
    trial = Trial(job.name, by, round(part, 3), stage, leftovers(place), damage(place))
    try:
        trial.route = again(job, place, known["toy"])
        found = outcome(place)
        both = {**found, **known["outcome"]}
        trial.differs = sorted(n for n in both if found.get(n) != known["outcome"].get(n))
    except Exception as error:  # noqa: BLE001  a trial that fails is a result
        trial.route = f"failed: {error}"
    trial.left = leftovers(place)
    return trial


def undisturbed(job: Job, place: Path, results: Path, toy: dict[str, Any]) -> dict[str, Any]:
    """What a job gives if nobody kills it; twice where that might differ from time to time."""
    found = []
    for _ in range(2 if job.name in ("transfer", "vae") else 1):
        prepare(job, place, results)
        ended = run(job, place, toy, counting=True)
        if ended["code"] != 0:
            raise RuntimeError(f"{job.name}: {place.with_name('log').read_text('utf-8')[-2000:]}")
        found.append(outcome(place))
    if found[0] != found[-1]:
        differ = [name for name in found[0] if found[0][name] != found[-1].get(name)]
        raise RuntimeError(f"{job.name}: two undisturbed runs differ in {differ}")
    if (place / "run").is_dir():
        shutil.copytree(place / "run", results / job.name / "run", dirs_exist_ok=True)
    return {**ended, "outcome": found[-1], "toy": toy}


def import_everything() -> None:
    """What commands import, so that a fork has it; nothing is computed."""
    import keras  # noqa: F401
    import matplotlib.backends.backend_agg  # noqa: F401
    import onnx  # noqa: F401
    import sklearn.linear_model
    import sklearn.mixture
    import sklearn.model_selection
    import sklearn.neighbors  # noqa: F401
    import tensorflow  # noqa: F401

    import safelight.cli
    import safelight.explorer.export
    import safelight.report.page
    import safelight.transfer.experiment
    import safelight.vae.experiment  # noqa: F401

    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    if threads != 1:
        raise RuntimeError(f"{threads} threads: a fork would not have them")


def deal(jobs: list[Job], trials: int, rng: np.random.Generator) -> Iterator[tuple[Job, str]]:
    """Which jobs are killed, and by what, in random order."""
    total = sum(job.share for job in jobs)
    counts = [round(job.share * trials / total) for job in jobs]
    dealt = [
        (job, "time" if number % 2 else "change")
        for job, count in zip(jobs, counts, strict=True)
        for number in range(count)
    ]
    for place in rng.permutation(len(dealt)):
        yield dealt[place]


def measure(options: Any) -> dict[str, Any]:
    """All trials."""
    import_everything()
    work = (options.work / CLAIM).absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    tiny_pictures(work)
    toy, rng = make_toy(work), np.random.default_rng(options.seed)
    wanted = options.only.split(",")
    jobs = [job for job in JOBS if job.name in wanted]
    place, known, trials = work / "trial" / "place", {}, []
    for job in jobs:
        known[job.name] = undisturbed(job, place, work, toy)
        logger.info("%s: %.1f s, %d changes", job.name, *_pair(known[job.name]))
    begun = time.monotonic()
    for job, by in deal(jobs, options.trials, rng):
        if time.monotonic() - begun > 60 * options.minutes:
            logger.warning("stopped after %d minutes", options.minutes)
            break
        trials.append(try_once(job, place, work, known[job.name], rng, by))
        logger.info("%3d %s", len(trials), json.dumps(asdict(trials[-1])))
    return summarise(trials, known, options)


def _pair(known: dict[str, Any]) -> tuple[float, int]:
    return known["seconds"], known["changes"]


def tiny_pictures(work: Path) -> None:
    """Made in a process of its own: reading them here would start threads."""
    code = (
        "import sys, tiny, pathlib; tiny.save_pictures(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(work / "data"), str(NUM_PICTURES)]
    subprocess.run(command, cwd=Path(__file__).parent, check=True)


def summarise(trials: list[Trial], known: dict[str, Any], options: Any) -> dict[str, Any]:
    """Counts, and every trial."""

    def count(key: Callable[[Trial], str]) -> dict[str, int]:
        return dict(sorted(Counter(map(key, trials)).items()))

    return {
        "seed": options.seed,
        "num_trials": len(trials),
        "num_passed": sum(trial.passed for trial in trials),
        "num_while_writing": sum(bool(trial.writing) for trial in trials),
        "num_with_leftovers": sum(bool(trial.left) for trial in trials),
        "per_job": {
            name: {
                "trials": sum(trial.job == name for trial in trials),
                "passed": sum(trial.job == name and trial.passed for trial in trials),
                "seconds": each["seconds"],
                "changes": each["changes"],
                "files_compared": len(each["outcome"]),
            }
            for name, each in known.items()
        },
        "routes": count(lambda trial: trial.route.split(":")[0]),
        "stages": count(lambda trial: trial.stage or "not told"),
        "trials": [asdict(trial) for trial in trials],
        "protocol": " ".join((__doc__ or "").split()),
    }


def run_all(options: Any) -> None:
    """Try, write the result, say how many passed."""
    content = measure(options)
    write_result(options, CLAIM, content, f"seed{options.seed}")
    print(f"{content['num_passed']} of {content['num_trials']}")
    print(json.dumps({k: content[k] for k in ("per_job", "routes", "stages")}, indent=1))


if __name__ == "__main__":
    run_all(
        parse_options(
            __doc__ or "", only=[job.name for job in JOBS], trials=100, minutes=120, seed=0
        )
    )
