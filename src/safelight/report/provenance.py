"""Where a run comes from: its protocol, its machine, and the command that makes it again."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence

from markupsafe import Markup

from safelight.credits import tell_licences
from safelight.gan.config import TrainConfig as GANConfig
from safelight.report import words
from safelight.report.blocks import Block, Command, Facts, Text, Words
from safelight.report.reading import Reading, dig, mapping, number
from safelight.transfer.config import TrainConfig as TransferConfig
from safelight.vae.config import TrainConfig as VAEConfig

_CONFIGS: dict[str, type] = {
    "transfer": TransferConfig,
    "transfer-sweep": TransferConfig,
    "vae": VAEConfig,
    "gan": GANConfig,
}
COMMANDS = {
    "transfer": "transfer train",
    "transfer-sweep": "transfer sweep",
    "vae": "vae train",
    "gan": "gan train",
}
"""The command that makes a run of a kind."""

_DRAW = ("vae", "gan")
_FRACTIONS = {"test": 0.25, "validation": 0.1}
_LABELS = {
    "cut": "last frozen layer",
    "dataset": "data set",
    "dataset_fingerprint": "fingerprint of pictures and labels",
    "elbo": "ELBO",
    "features": "judged by",
    "head_strength": "inverse strength of the head",
    "image_shape": "height, width and channels of pictures",
    "image_size": "side of pictures, pixels",
    "interrupted": "stopped early",
    "log_likelihood": "log p(x)",
    "num_train": "training pictures",
    "num_validation": "validation pictures",
    "stopped_splits": "splits wanted, stopped after the first",
    "test_views": "views that an answer is averaged over",
    "weights": "kept weights",
}
_DEALT_ABOUT = 0.02
"""Whole pictures, copies and groups move a share that was asked for by so much."""


def train_command(reading: Reading, *more: str) -> str:
    """The command that trains what a run holds: every setting that is not the default.

    Args:
        reading: The run.
        more: Further arguments; the new run is then another one, and is called so.

    Returns:
        A line for a shell. The data set stands in it by its name, as a run does not keep where a
        folder lies.
    """
    another = more and more != ("--overwrite",)
    output = argument(reading.name) + ("-2" if another else "")
    flags = [*_setting_flags(reading), *_split_flags(reading)]
    known = [
        words.printable(each) for pair in flags if not _is_replaced(pair[0], more) for each in pair
    ]
    verb = COMMANDS[reading.kind].split()
    data = argument(reading.dataset)
    return shlex.join(["safelight", *verb, data, "--output", output, *known, *more])


def argument(name: str) -> str:
    """A name of a file or folder as an argument, which is never taken for an option."""
    plain = words.printable(name)
    return f"./{plain}" if plain.startswith("-") else plain


def tell_protocol(reading: Reading) -> Sequence[Block]:
    """What a reader needs to know to trust or repeat the numbers."""
    found = mapping(reading.metrics.get("protocol"))
    if not found:
        return [Text("metrics.json has no protocol; training writes it.", tone="warning")]
    pairs = [
        (_LABELS.get(key, words.printable(key).replace("_", " ")), _shown(value))
        for key, value in found.items()
        if value not in (None, "")
    ]
    if reading.num_test is not None:
        pairs.append(("test pictures", words.count(reading.num_test)))
    difference = number(dig(reading.metrics, "saved_model", "max_difference"))
    if difference is not None:
        shown = Markup('<data value="{}">{}</data>').format(difference, f"{difference:.1e}")
        pairs.append(("saved model: answers off by at most", shown))
    pairs += [("licence of what was fetched", each) for each in licences(reading)]
    return [Facts(sorted(pairs, key=lambda pair: str(pair[0]).lower()))]


def licences(reading: Reading) -> list[str]:
    """What the pictures and weights are under that Safelight fetches, a sentence for each."""
    settings = reading.settings
    return tell_licences(
        reading.dataset,
        str(settings.get("backbone")),
        pretrained=bool(settings.get("pretrained")),
    )


def tell_command(reading: Reading) -> Sequence[Block]:
    """The command, the seed, and what is to be known about them."""
    environment = reading.environment
    commit = environment.get("commit")
    made = f"Safelight {environment.get('safelight', 'of unknown version')}"
    if commit:
        made += f", commit {commit}"
    made, seed = words.printable(made), words.printable(reading.settings.get("seed"))
    told = (
        f"Made with {made}; seed {seed}. The same command on the same data, machine and versions "
        "gives the same numbers. A folder of pictures stands here by its name alone, as where it "
        "lies is not kept; settings that are not named have their defaults."
    )
    if reading.dataset == "elpv" and reading.kind not in _DRAW:
        told += " If another --threshold than 0.5 was given, add it: a run does not keep it."
    return [Command(train_command(reading)), Text(told)]


def tell_environment(reading: Reading) -> Sequence[Block]:
    """Versions and machine."""
    environment = reading.environment
    if not environment:
        return [Text("There is no environment.json; training writes it.")]
    packages = mapping(environment.get("packages"))
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    fast = [name for name, there in mapping(environment.get("bfloat16")).items() if there]
    facts = {
        "Safelight": environment.get("safelight"),
        "commit": environment.get("commit"),
        "Python": environment.get("python"),
        "packages": versions,
        "Keras' backend": environment.get("backend"),
        "system": f"{environment.get('system')}, {environment.get('machine')}",
        "processor": environment.get("processor"),
        "cores": environment.get("cores"),
        "bfloat16 instructions": ", ".join(fast) or "none",
        "accelerator": environment.get("accelerator"),
        "made (UTC)": str(reading.config.get("created") or "").replace("T", " ")[:16],
    }
    return [Facts([(name, words.printable(x)) for name, x in facts.items() if x not in (None, "")])]


def seconds_fact(reading: Reading) -> str:
    """How long each stage took, in a line."""
    found = {name: number(x) for name, x in mapping(reading.metrics.get("seconds")).items()}
    shown = [
        f"{words.printable(name).replace('_', ' ')} {x:.1f} s"
        for name, x in found.items()
        if x is not None and x >= 0.05
    ]
    return ", ".join(shown)


def _setting_flags(reading: Reading) -> list[tuple[str, ...]]:
    defaults = {field.name: field.default for field in dataclasses.fields(_CONFIGS[reading.kind])}
    flags: list[tuple[str, ...]] = []
    for name, value in sorted(reading.settings.items()):
        value = tuple(value) if isinstance(value, list) else value
        if name == "seed" or name not in defaults or value == defaults[name]:
            continue
        flags += _flag(name, value)
    # The seed is named even where it is the default: it is what a reader looks for.
    return [*flags, ("--seed", str(reading.settings.get("seed", 0)))]


def _flag(name: str, value: object) -> list[tuple[str, ...]]:
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [(option if value else f"--no-{option[2:]}",)]
    if name == "image_size" and isinstance(value, tuple):
        return [(option, "x".join(str(side) for side in value))]
    if isinstance(value, tuple):
        return [(option, str(each)) for each in value]
    return [(option, "none" if value is None else str(value))]


def _split_flags(reading: Reading) -> list[tuple[str, ...]]:
    """How the pictures were dealt out, as far as the run tells."""
    split, metrics = mapping(reading.config.get("split")), reading.metrics
    cuts, only = reading.config.get("cuts"), dig(reading.config, "dataset", "only")
    flags: list[tuple[str, ...]] = [
        ("--cut", str(cut)) for cut in (cuts if isinstance(cuts, list) else ()) if cut
    ]
    if isinstance(only, str) and only:
        flags.append(("--only", words.printable(only)))
    if split.get("strategy") == "grouped" and reading.kind not in _DRAW:
        flags.append(("--split", "grouped"))
    folds, splits = dig(metrics, "splits", "num_folds"), dig(metrics, "splits", "num_splits")
    splits = splits or dig(metrics, "sweep", "num_splits")
    # Nobody is left with one of many because the others were stopped.
    if stopped := dig(metrics, "protocol", "stopped_splits"):
        folds, splits = (stopped, None) if dig(metrics, "protocol", "fold") else (None, stopped)
    if folds:
        return [*flags, ("--folds", str(folds))]
    if splits:
        flags.append(("--splits", str(splits)))
    return flags + _fraction_flags(reading)


def _fraction_flags(reading: Reading) -> list[tuple[str, ...]]:
    parts = {
        name: len(each) for name, each in mapping(dig(reading.config, "split", "digests")).items()
    }
    total = sum(parts.values())
    if not total or dig(reading.config, "split", "strategy") == "given":
        return []
    wanted = ("test",) if reading.kind in _DRAW else ("test", "validation")
    # Of few pictures each class gives a whole one more or less.
    about = max(_DEALT_ABOUT, len(reading.class_names) / total)
    shares = {name: parts.get(name, 0) / total for name in wanted}
    return [
        (f"--{name}-fraction", f"{share:.2g}")
        for name, share in shares.items()
        if abs(share - _FRACTIONS[name]) > about
    ]


def _is_replaced(option: str, more: Sequence[str]) -> bool:
    """Whether a new argument takes the place of an old one; folds take that of fractions."""
    if "--folds" in more and option in ("--splits", "--test-fraction"):
        return True
    return option in more


def _shown(value: object) -> Words:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return words.number(value, 0 if float(value).is_integer() else 4)
    if isinstance(value, list):
        return ", ".join(words.printable(each) for each in value)
    return words.printable(value)
