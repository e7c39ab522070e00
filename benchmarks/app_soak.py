"""Thousands of requests to `safelight serve`: does its memory stay, do its answers keep coming?

    python benchmarks/app_soak.py [--tasks 4500] [--clients 4] [--seed 0]

A small run (a network of three convolutions, a head on 80 pictures) is served by the real command,
of .venv-app, at 127.0.0.1; as many clients as said ask at once. Of a hundred tasks 50 are
predictions (upload, question, answer: three calls), 30 load the page, and 20 are bad: no picture,
half a picture, an empty file, a file of the machine as a picture, the same by its address. Memory
is what the system counts for the server's process; time is what a client waits. The picture goes
to docs/pictures/app_soak.png.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import http.client
import io
import json
import logging
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import tiny
from repeats import parse_options, write_result
from transfer_cached_vs_end_to_end import ROOT

CLAIM = "app_soak"
SHARES = {"prediction": 0.5, "page": 0.3, "bad": 0.2}
WAIT = 60  # seconds for an answer
SETTLED = 0.2  # of the tasks, after which memory is looked at
logger = logging.getLogger(__name__)


# --- what is served


def train(folder: Path) -> Path:
    """A small run, made by the real command in this process."""
    import sys

    from safelight import cli

    tiny.save_pictures(folder / "data", 80)
    tiny.use_network()
    os.environ["SAFELIGHT_HOME"] = str(folder / "home")
    (folder / "home").mkdir()
    from safelight import assets

    real = Path("~/.cache/safelight/assets").expanduser()
    assets.assets_dir().symlink_to(real, target_is_directory=True)
    before, sys.argv = sys.argv, [
        "safelight", "transfer", "train", str(folder / "data"), "--output", str(folder / "run"),
        *tiny.TRAIN_FLAGS,
    ]  # fmt: skip
    try:
        cli.main()
    except SystemExit as left:
        if left.code:
            raise
    finally:
        sys.argv = before
    return folder / "run"


def serve(run: Path, folder: Path) -> tuple[subprocess.Popen[str], int]:
    """Starts the program; gives its process and port."""
    python = ROOT / ".venv-app" / "bin" / "python"
    environment = {**os.environ, "TMPDIR": str(folder), "SAFELIGHT_OFFLINE": "1"}
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(
        [python, "-m", "safelight", "serve", run, "--port", "0", "--data", run.with_name("data")],
        stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], 300)[0]:
        process.kill()
        raise RuntimeError("the server says nothing")
    line = process.stdout.readline()
    if not line.startswith("page "):
        raise RuntimeError(f"no address: {line!r}")
    return process, int(line.split()[1].rpartition(":")[2])


# --- what is asked


def bodies(seed: int) -> dict[str, bytes]:
    """Pictures to upload, and what is none, by file name."""
    from PIL import Image

    rng, found = np.random.default_rng(seed), {}
    for number, side in enumerate((16, 24, 32, 48, 64, 120)):
        stream = io.BytesIO()
        pixels = rng.integers(0, 256, (side, side + 8, 3), "uint8")
        kind = ("PNG", "JPEG")[number % 2]
        Image.fromarray(pixels).save(stream, kind)
        found[f"picture {number}.{kind.lower()}"] = stream.getvalue()
    found["half.png"] = found["picture 4.png"][: len(found["picture 4.png"]) // 2]
    found["text.png"] = b"no picture at all\n" * 20
    found["empty.jpg"] = b""
    return found


class Client:
    """Asks as a browser or a program does.

    Attributes:
        calls: How many requests it has sent.
    """

    def __init__(self, port: int) -> None:
        self._port, self.calls = port, 0

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
        """A call and its answer."""
        self.calls += 1
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=WAIT)
        try:
            connection.request(method, path, body or None, {"Content-Type": kind} if kind else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def upload(self, name: str, data: bytes) -> str:
        """Where the server keeps a file."""
        border = "soak"
        head = (
            f'--{border}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        )
        body = head.encode() + data + f"\r\n--{border}--\r\n".encode()
        kind = f"multipart/form-data; boundary={border}"
        status, answer = self.ask("POST", "/gradio_api/upload", body, kind)
        if status != 200:
            raise RuntimeError(f"upload of {name}: {status}")
        return json.loads(answer)[0]

    def predict(self, path: str) -> tuple[str, Any]:
        """What is said of a kept file: the last event and its data."""
        files = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
        call, kind = "/gradio_api/call/predict", "application/json"
        status, answer = self.ask("POST", call, json.dumps({"data": [files]}).encode(), kind)
        if status != 200:
            raise RuntimeError(f"question: {status}")
        event = json.loads(answer)["event_id"]
        lines = self.ask("GET", f"{call}/{event}")[1].decode().splitlines()
        places = [number for number, line in enumerate(lines) if line.startswith("event: ")]
        last = places[-1]
        return lines[last][7:], json.loads(lines[last + 1].removeprefix("data: "))


def predict(client: Client, rng: np.random.Generator, files: dict[str, bytes]) -> None:
    """A picture is uploaded and answered with probabilities."""
    name = [name for name in files if name.startswith("picture")][rng.integers(6)]
    event, data = client.predict(client.upload(name, files[name]))
    (answer,) = data[0]
    if event != "complete" or abs(sum(answer["probabilities"].values()) - 1) > 1e-5:
        raise RuntimeError(f"{event}: {data}")


def load_page(client: Client, *_: Any) -> None:
    """The page, whole."""
    status, text = client.ask("GET", "/")
    if status != 200 or b"</html>" not in text:
        raise RuntimeError(f"page: {status}")


def ask_badly(client: Client, rng: np.random.Generator, files: dict[str, bytes]) -> None:
    """What cannot be answered is refused, and nothing breaks."""
    way = int(rng.integers(5))
    if way < 3:
        name = ("half.png", "text.png", "empty.jpg")[way]
        event, data = client.predict(client.upload(name, files[name]))
        if event != "complete" or "error" not in data[0][0]:
            raise RuntimeError(f"{name}: {event}, {data}")
    elif way == 3:
        event, data = client.predict("/etc/hostname")
        if event != "error":
            raise RuntimeError(f"a file of the machine: {event}, {data}")
    else:
        status, _ = client.ask("GET", "/gradio_api/file=/etc/hostname")
        if status not in (403, 404):
            raise RuntimeError(f"a file of the machine: {status}")


WAYS: dict[str, Callable[..., None]] = {"prediction": predict, "page": load_page, "bad": ask_badly}


# --- what is measured


@dataclass
class Record:
    """What came of the tasks, in the order in which they ended.

    Attributes:
        kinds: Of each task.
        seconds: That a client waited.
        memory: Rows (tasks done, resident MB, threads, open files) of the server's process.
        failures: What went wrong, in words.
        calls: Of the server; a prediction takes three.
    """

    kinds: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    memory: list[tuple[int, float, int, int]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    calls: int = 0


def look(process: int) -> tuple[float, int, int]:
    """Resident MB, threads and open files of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    files = len(list(Path(f"/proc/{process}/fd").iterdir()))
    return int(fields["VmRSS"].split()[0]) / 1024, int(fields["Threads"]), files


def soak(process: int, port: int, options: Any) -> tuple[Record, float]:
    """All tasks, by several clients; ends early if it takes too long."""
    record, lock = Record(), threading.Lock()
    rng = np.random.default_rng(options.seed)
    kinds = rng.choice(list(SHARES), options.tasks, p=list(SHARES.values()))
    files, begun = bodies(options.seed), time.perf_counter()
    every = max(1, options.tasks // 200)

    def one(number: int) -> None:
        if time.perf_counter() - begun > 60 * options.minutes:
            return
        started, failure, client = time.perf_counter(), "", Client(port)
        try:
            own = np.random.default_rng([options.seed, number])
            WAYS[kinds[number]](client, own, files)
        except Exception as error:  # noqa: BLE001  counted, not hidden
            failure = f"{kinds[number]}: {type(error).__name__}: {error}"[:300]
        with lock:
            record.kinds.append(str(kinds[number]))
            record.calls += client.calls
            record.seconds.append(time.perf_counter() - started)
            record.failures += [failure] if failure else []
            if len(record.kinds) % every == 0:
                record.memory.append((len(record.kinds), *look(process)))

    record.memory.append((0, *look(process)))
    with ThreadPoolExecutor(options.clients) as pool:
        list(pool.map(one, range(options.tasks)))
    return record, time.perf_counter() - begun


def summarise(record: Record, seconds: float) -> dict[str, Any]:
    """Numbers: rates, quantiles, and how memory went after it had settled."""
    waited, kinds = np.array(record.seconds), np.array(record.kinds)
    memory = np.array(record.memory, float)
    settled = memory[memory[:, 0] >= SETTLED * len(waited)]
    slope, _ = np.polyfit(settled[:, 0] / 1000, settled[:, 1], 1)
    part = len(waited) // 10
    ends = {"first": slice(0, part), "last": slice(len(waited) - part, None)}
    return {
        "num_requests": record.calls,
        "num_tasks": len(waited),
        "num_failures": len(record.failures),
        "failures": record.failures[:10],
        "seconds": seconds,
        "requests_per_second": record.calls / seconds,
        "milliseconds": {
            kind: quantiles(waited[kinds == kind]) for kind in SHARES if (kinds == kind).any()
        },
        "predictions_first_and_last_tenth": {
            name: quantiles(waited[where][kinds[where] == "prediction"])
            for name, where in ends.items()
        },
        "megabytes": {
            "start": memory[0, 1],
            "settled": float(np.median(settled[: len(settled) // 8 + 1, 1])),
            "end": float(np.median(settled[-(len(settled) // 8 + 1) :, 1])),
            "most": float(memory[:, 1].max()),
            "per_1000_tasks": float(slope),
        },
        "threads": [int(memory[0, 2]), int(memory[-1, 2])],
        "open_files": [int(memory[0, 3]), int(memory[-1, 3])],
        "memory": [list(row) for row in record.memory],
    }


def quantiles(seconds: np.ndarray) -> dict[str, float]:
    """Milliseconds."""
    named = {"median": 0.5, "p95": 0.95, "p99": 0.99, "most": 1.0}
    return {name: float(1000 * np.quantile(seconds, q)) for name, q in named.items()}


def draw(content: dict[str, Any], record: Record | None = None) -> None:
    """Memory, and what a client waits, request after request."""
    from safelight import plots
    from safelight.plots.style import new_figure

    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    rows = [(row[0] / 1000, row[1]) for row in content["memory"]]
    plots.plot_curves(
        {"resident memory of the server": rows[:: max(1, len(rows) // 40)]},
        xlabel="tasks, thousands", ylabel="MB", ax=left,
    )  # fmt: skip
    left.set_ylim(0, 1.25 * max(y for _, y in rows))
    if record is not None:
        plots.plot_curves(waiting(record), xlabel="tasks, thousands", ylabel="ms", ax=right)
        right.set_ylim(bottom=0)
    plots.save_figure(figure, ROOT / "docs" / "pictures" / "app_soak.png")


def waiting(record: Record) -> dict[str, list[tuple[float, float]]]:
    """Median and 95 % quantile of predictions, part by part."""
    waited, kinds = np.array(record.seconds), np.array(record.kinds)
    curves: dict[str, list[tuple[float, float]]] = {
        "prediction, 95 %": [],
        "prediction, median": [],
    }
    for rows in np.array_split(np.arange(len(waited)), 20):
        if not (kinds[rows] == "prediction").any():
            continue
        found = quantiles(waited[rows][kinds[rows] == "prediction"])
        middle = float(rows.mean() / 1000)
        curves["prediction, median"].append((middle, found["median"]))
        curves["prediction, 95 %"].append((middle, found["p95"]))
    return curves


def run_all(options: Any) -> None:
    """Train, serve, ask, write."""
    work = (options.work / CLAIM).absolute()
    run = work / "run"
    if not (run / "metrics.json").exists():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        run = train(work)
    process, port = serve(run, work)
    try:
        record, seconds = soak(process.pid, port, options)
        uploads = sum(1 for _ in work.glob("safelight-app-*/**/*.*"))
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
    content = {
        **summarise(record, seconds),
        "clients": options.clients,
        "seed": options.seed,
        "exit_code": code,
        "uploads_while_it_ran": uploads,
        "uploads_after_it_ended": sum(1 for _ in work.glob("safelight-app-*")),
        "protocol": " ".join((__doc__ or "").split()),
    }
    write_result(options, CLAIM, content, f"seed{options.seed}")
    draw(content, record)
    print(
        json.dumps({k: v for k, v in content.items() if k not in ("memory", "protocol")}, indent=1)
    )


if __name__ == "__main__":
    run_all(parse_options(__doc__ or "", tasks=4500, clients=4, seed=0, minutes=50))
