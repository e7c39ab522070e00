"""Tables of what backends and exported models are worth."""

from __future__ import annotations

from measuring import machine_name
from tables import table, versions_line

SPEED_CLAIM = "backends_speed"
EXPORT_CLAIM = "export_parity"
WORK = {
    "extract": "VGG16's frozen part by Keras, pictures/s",
    "block5": "training of block5 from kept activations, pictures/s",
    "explain": "Grad-CAM, pictures/s",
    "dense_vae": "training of the default autoencoder, pictures/s",
    "conv_vae": "training of one of convolutions, pictures/s",
    "likelihood": "importance samples of pictures, thousands/s",
}
COLUMNS = {
    "tensorflow": "TensorFlow",
    "jax": "JAX",
    "torch": "PyTorch",
    "plain-float32": "plain PyTorch",
    "tensorflow-bfloat16": "TensorFlow, bfloat16",
    "torch-bfloat16": "PyTorch, bfloat16",
    "plain-bfloat16": "plain PyTorch, bfloat16",
}
BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def render_speed(result: dict) -> list[str]:
    """A row for each kind of work, a column for each that does it."""
    columns = [who for who in COLUMNS if any(who in some for some in result["work"].values())]
    rows = []
    for work, some in result["work"].items():
        scale = 1000 if work == "likelihood" else 1
        cells = [_number(some[who]["median"] / scale) if who in some else "" for who in columns]
        rows.append([WORK[work], *cells])
    header = ("work, in float32 where nothing else is said", *(COLUMNS[who] for who in columns))
    return [
        f"Each a process of its own, backends taking turns, medians of {result['rounds']} rounds "
        f"of {result['seconds']} s after compilation; VGG16 at 224 px in batches of 16, "
        f"autoencoders in batches of 128; {machine_name(result['machine'])}.",
        "",
        *table(header, rows),
        "",
        *_render_answers(result["answers"]),
        f"Measured with {versions_line([result])}, jax {result['jax']}, torch {result['torch']}.",
        "",
    ]


def _render_answers(found: dict | None) -> list[str]:
    if found is None:
        return []
    said = [
        f"{BACKENDS[backend]} {largest:.1e} apart and {100 * found['agreement'][backend]:.0f} % "
        "the same class"
        for backend, largest in found["largest_difference"].items()
    ]
    return [
        f"One run's classifier, {found['num_pictures']} pictures of ELPV, against TensorFlow's "
        f"answers: {'; '.join(said)}.",
        "",
    ]


def render_exports(result: dict) -> list[str]:
    """A row for each format."""
    rows = []
    for name, found in result["rows"].items():
        parity, change = found["parity"], found["parity"]["accuracy_change"]
        low, value, high = (100 * change[end] for end in ("low", "value", "high"))
        rows.append(
            [
                f"`{name}`",
                BACKENDS[found["backend"]],
                f"{100 * parity['agreement']:.1f}",
                f"{parity['largest_difference']:.1e}",
                f"{value:+.1f} [{low:+.1f}, {high:+.1f}]",
                f"{found['bytes'] / 1e6:.0f}",
                *(f"{found['pictures_per_second'][n]:.1f}" for n in ("1", "16")),
            ]
        )
    header = (
        "format",
        "written by",
        "same class, %",
        "largest difference",
        "accuracy, points",
        "MB",
        "pictures/s, one at a time",
        "in batches of 16",
    )
    run = result["run"]
    return [
        f"A classifier of ELPV ({run['backbone']}, {run['image_size']} px, {run['test_views']} "
        f"views) in each format: {result['pictures']} pictures that it has not learned from, "
        f"against the original in float32; {machine_name(result['machine'])}.",
        "",
        *table(header, rows),
        "",
        f"Measured with {versions_line([result])}.",
        "",
    ]
