"""The engines that VGG16's frozen trunk is timed on, and what is held equal for all of them.

NumPy and the standard library only: PyTorch's variants import this without Keras or Safelight.
"""

from __future__ import annotations

import dataclasses

from saving import Saved

CLAIM = "transfer_trunk_throughput"
REFERENCE = "keras-float32"  # whose features all others are compared with
YARDSTICK = "keras-bfloat16"  # "times TensorFlow's own bfloat16 forward"
OUTPUTS = tuple(f"block{block}_pool/{pooling}" for block in (3, 4, 5) for pooling in ("avg", "max"))
WIDTHS = (256, 256, 512, 512, 512, 512)  # features of each of these
SMALL_DIFFERENCE = 1e-3  # of the largest feature of a layer; above it accuracy is worth a look
MAX_FEATURES_MINUTES = 20  # who would need longer for the cells of `--accuracy` is left out of it


class Skipped(Exception):  # noqa: N818 - it is no error
    """This variant cannot run here; the message says why and stands in the result."""


@dataclasses.dataclass(frozen=True)
class Protocol(Saved):
    """What every variant gets alike.

    Attributes:
        image_size: Pixels a side.
        num_images: ELPV cells, from the test part, of one pass; the clock is read after each.
        repeats: Passes of one process, after one that warms up.
        rounds: Processes of each variant, all variants taking turns.
        max_seconds: After so many seconds a process starts no further pass; whose pass takes longer
            gets one process only.
        num_train, num_test: Cells that a head is fitted on and judged on (`--accuracy`).
        data_digest: SHA-256 of pixels and labels.
    """

    dataset: str = "elpv"
    image_size: int = 224
    num_images: int = 32
    repeats: int = 5
    rounds: int = 3
    max_seconds: float = 30.0
    num_train: int = 400
    num_test: int = 200
    data_digest: str = ""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: For files and `--only`.
        module: In this folder; its `build(assignment)` gives the function that is timed.
        packages: What does the work; a variant without one of them is left out by name.
        environment: Variables set before the first import.
        options: Of the module.
    """

    name: str
    title: str
    module: str
    packages: tuple[str, ...]
    backend: str = "tensorflow"
    precision: str = "float32"
    batch: int = 32
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    options: dict[str, object] = dataclasses.field(default_factory=dict)


def _keras(name: str, title: str, **fields: object) -> Variant:
    packages = ("safelight", "keras", "tensorflow")
    return Variant(f"keras-{name}", f"Keras, {title}", "keras_trunk", packages, **fields)


def _ncnn(name: str, title: str, **options: object) -> Variant:
    packages = ("safelight", "keras", "tensorflow", "ncnn")
    return Variant(f"ncnn-{name}", f"ncnn, {title}", "ncnn_trunk", packages, options=options)


def _openvino(name: str, title: str, *more: str, precision: str, **options: object) -> Variant:
    return Variant(
        f"openvino-{name}",
        f"OpenVINO, {title}",
        "openvino_trunk",
        ("safelight", "keras", "tensorflow", "openvino", *more),
        precision=precision,
        options=options,
    )


def _torch(name: str, title: str, **fields: object) -> Variant:
    title = f"plain PyTorch, {title}"
    return Variant(f"torch-{name}", title, "torch_trunk", ("torch",), backend="torch", **fields)


# Left alone, TensorFlow takes oneDNN only on processors with AVX512-VNNI or more.
_EIGEN, _ONEDNN = ({"TF_ENABLE_ONEDNN_OPTS": value} for value in "01")
_XLA: dict[str, object] = {"jit_compile": True}
_HALF = "bfloat16"
_THROUGHPUT = "THROUGHPUT hint"
VARIANTS = {
    variant.name: variant
    for variant in (
        _keras("float32", "float32"),
        _keras("float32-batch8", "float32, batches of 8", batch=8),
        _keras(
            "float32-processes",
            "float32, a process of one thread a core",
            options={"processes": True},
        ),
        _keras("float32-eigen", "float32, oneDNN off (Eigen)", environment=_EIGEN),
        _keras("float32-onednn", "float32, oneDNN on", environment=_ONEDNN),
        _keras("float32-xla", "float32, XLA", options=_XLA),
        _keras("bfloat16", "bfloat16", precision=_HALF),
        _keras("bfloat16-xla", "bfloat16, XLA", precision=_HALF, options=_XLA),
        _ncnn("float32", "float32, as Safelight calls it"),
        _ncnn("direct", "float32, Winograd off", use_winograd_convolution=False),
        _ncnn("bfloat16", "bfloat16 storage", use_bf16_storage=True),
        _openvino("float32", "float32", precision="float32"),
        _openvino(
            "float32-throughput", f"float32, {_THROUGHPUT}", precision="float32", streams=True
        ),
        _openvino("bfloat16", "bfloat16", precision=_HALF),
        _openvino("bfloat16-throughput", f"bfloat16, {_THROUGHPUT}", precision=_HALF, streams=True),
        _openvino("int8", "int8 by NNCF", "nncf", precision="int8"),
        _torch("float32", "float32"),
        _torch("bfloat16", "bfloat16 autocast", precision=_HALF),
    )
}


def chosen_variants(only: str) -> list[Variant]:
    """Turn "keras-float32,ncnn-float32" into variants; nothing means all.

    Raises:
        ValueError: If a name names no variant.
    """
    names = [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise ValueError(f"--only {only!r}: expected names among {', '.join(VARIANTS)}.")
    return [VARIANTS[name] for name in names or VARIANTS]
