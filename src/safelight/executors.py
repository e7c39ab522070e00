"""Where work is computed: in this process, or by the workers of a Ray cluster.

    with executors.using(executors.RayExecutor(workers=2)):
        extractor.extract(dataset, layers)

Where it is computed changes neither what is computed nor what it is called: a work is sent to each
worker once, tasks one by one, and whoever asked for the answers writes them. A worker that is
killed costs the tasks it had begun, which another does again.

Ray is an extra (`pip install 'safelight[scale]'`), loaded when a `RayExecutor` runs. It reports
nothing to anybody: its usage statistics are off, and a cluster on this machine listens to this
machine alone and obeys only the process that started it.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import importlib.util
import itertools
import os
import secrets
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Protocol

_WINDOW = 1024  # tasks that Ray is told of at once: a million are not to lie in its memory
_STORE_BYTES = 2 * 2**30  # of a cluster on this machine: answers on their way
# What numbers depend on, or how they are computed; a worker has them from whoever asks.
_PASSED_ON = ("KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL", "XLA_FLAGS")
_THREADS = ("SAFELIGHT_NUM_THREADS", "TF_NUM_INTEROP_THREADS")
# TensorFlow splits its sums by the size of this pool: the last bits of a convolution depend on it.
# A worker gets the size that is used here, whatever processors it has; ncnn takes none of it.
_POOL = "TF_NUM_INTRAOP_THREADS"


class Work(Protocol):
    """What is to be done with each task; it is sent to workers, so it can be pickled."""

    def begin(self) -> Callable[[Iterable[Any]], Iterator[Any]]:
        """Loads what it takes; gives a function from tasks to answers, in their order."""
        ...


class Executor(Protocol):
    """Who does it."""

    def run(self, work: Work, tasks: Iterable[Any]) -> Generator[Any]:
        """The answers, in the order that they are ready in."""
        ...


_CURRENT: contextvars.ContextVar[Executor | None] = contextvars.ContextVar("executor", default=None)


def current() -> Executor | None:
    """The executor of the innermost `using`; `None` is this process."""
    return _CURRENT.get()


@contextlib.contextmanager
def using(executor: Executor | None) -> Iterator[None]:
    """Inside, what can be computed elsewhere is given to an executor; `None` changes nothing."""
    token = _CURRENT.set(executor or _CURRENT.get())
    try:
        yield
    finally:
        _CURRENT.reset(token)


@dataclasses.dataclass(frozen=True)
class Span:
    """Who did a task, and when.

    Attributes:
        worker: The number of its process, and the machine that it runs on.
        began: Seconds since 1970.
        ended: Likewise.
    """

    worker: str
    began: float
    ended: float


class RayExecutor:
    """The workers of a Ray cluster: an actor pool of Ray Data.

    Connects when it first runs. `close` (or leaving its `with`) shuts a cluster down that it has
    started, and leaves any other as it was.

    Args:
        workers: How many; by default one for each processor that the cluster has.
        address: Of a cluster that is there (`"auto"`, `"host:6379"`, `"ray://host:10001"`); by
            default one is started on this machine.
        threads: Threads, and processors, of each worker.
        patience: Seconds to wait until all workers have begun; by default the first begins at once.

    Attributes:
        spans: Of the tasks that were done so far, in the order that they were ready in.

    Raises:
        ValueError: A number below 1, or Ray is not installed.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        address: str | None = None,
        threads: int = 1,
        patience: float = 0.0,
    ) -> None:
        for name, number in (("workers", workers), ("threads", threads)):
            if number is not None and number < 1:
                raise ValueError(f"{name}={number}: expected 1 or more.")
        if importlib.util.find_spec("ray") is None:
            raise ValueError(
                "Ray is not installed: expected `pip install 'safelight[scale]'`, here and on the "
                "cluster's machines; without it everything is computed here (executor `local`)."
            )
        self.workers, self.address, self.threads = workers, address, threads
        self.patience = patience
        self.spans: list[Span] = []
        self._started = False

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, work: Work, tasks: Iterable[Any]) -> Generator[Any]:
        """The answers, in the order that they are ready in.

        Args:
            work: Sent to each worker once.
            tasks: Anything that can be pickled; read a thousand at a time.

        Raises:
            Exception: What a task raised, as it would have here.
            ValueError: The cluster cannot be reached.
        """
        ray = self._connect()
        sent = ray.put(work)
        waiting = iter(tasks)
        while window := list(itertools.islice(waiting, _WINDOW)):
            for packed in self._map(ray, sent, window):
                answer, span = ray.cloudpickle.loads(packed)
                if isinstance(answer, _Failure):
                    raise answer.error
                self.spans.append(span)
                yield answer

    def close(self) -> None:
        """Leaves the cluster; ends it if it was started by `run`."""
        if self._started:
            import ray

            self._started = False
            ray.shutdown()

    def _connect(self) -> Any:
        # Before Ray is loaded, which reads them once.
        if self.address is None:
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on Linux, too: 127.0.0.1
            if "ray" not in sys.modules:
                # Other users of this machine reach its ports, too: they do not know this word.
                os.environ["RAY_AUTH_MODE"] = "token"
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        else:
            os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")  # a wrong one takes a minute
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its remarks are for its authors
        import ray

        if not ray.is_initialized():
            quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
            try:
                with _without_notes():
                    ray.init(**quiet, **self._place())
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise ValueError(
                    f"no Ray cluster at {self.address or 'this machine'} ({error}): expected the "
                    "address of one that runs, as `ray start --head` prints it."
                ) from error
            self._started = True
        _set_up_data()
        return ray

    def _place(self) -> dict[str, Any]:
        if self.address is not None:
            return {"address": self.address}
        cores = self.threads * (self.workers or _num_cores())
        return {
            "num_cpus": cores,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
            "object_store_memory": _STORE_BYTES,
        }

    def _map(self, ray: Any, sent: Any, tasks: list[Any]) -> Iterator[bytes]:
        """Packed answers to some tasks, each of which may go to any worker."""
        number = self.workers or max(1, int(ray.cluster_resources()["CPU"]) // self.threads)
        items = [{"task": ray.cloudpickle.dumps(task)} for task in tasks]
        passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        passed |= dict.fromkeys(_THREADS, str(self.threads))
        passed[_POOL] = os.environ.get(_POOL, "") or str(_num_cores())
        if "keras" in sys.modules:
            passed["KERAS_BACKEND"] = sys.modules["keras"].backend.backend()
        ray.data.DataContext.get_current().wait_for_min_actors_s = self.patience or -1
        answers = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Worker,
            fn_constructor_args=(sent, passed),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(number, len(tasks))),
            num_cpus=self.threads,
        )
        for batch in answers.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from batch["answer"].to_pylist()


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """What Ray's C++ parts write to standard error when they start goes nowhere."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _set_up_data() -> None:
    """Ray Data without bars and remarks: the command line has its own."""
    import logging

    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _num_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class _Failure:
    """What a task raised; as an answer, so that Ray neither retries nor wraps it."""

    error: Exception


class _Worker:
    """An actor: begins a work when it is made, then answers tasks."""

    def __init__(self, sent: Any, environment: dict[str, str]) -> None:
        os.environ.update(environment)
        import ray

        self._do: Callable[[Iterable[Any]], Iterator[Any]] | _Failure
        try:
            self._do = ray.get(sent).begin()
        except Exception as error:  # noqa: BLE001  it is told where the work was asked for
            self._do = _Failure(error)

    def __call__(self, batch: Any) -> Any:
        import pyarrow
        import ray

        packed = [ray.cloudpickle.dumps(self._answer(task)) for task in batch["task"].to_pylist()]
        return pyarrow.table({"answer": pyarrow.array(packed, pyarrow.large_binary())})

    def _answer(self, packed: bytes) -> tuple[Any, Span]:
        import ray

        began = time.time()
        try:
            if isinstance(self._do, _Failure):
                answer: Any = self._do
            else:
                answer = next(self._do([ray.cloudpickle.loads(packed)]))
        except Exception as error:  # noqa: BLE001  as above
            answer = _Failure(error)
        name = f"{os.getpid()} on {os.uname().nodename}"
        return answer, Span(name, began, time.time())
