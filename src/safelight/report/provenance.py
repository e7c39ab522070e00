"""Where a run comes from: its protocol, its machine, and the command that makes it again."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence

from markupsafe import Markup

from safelight.credits import tell_licences
from safelight.gan.config import TrainConfig as GANConfig
from safelight.groupings import is_table
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
    "grouped_by": "what tells groups",
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
    verb, data = COMMANDS[reading.kind].split(), argument(reading.dataset)
    known = known_flags(reading, *more)
    return shlex.join(["safelight", *verb, data, "--output", output, *known, *more])


def known_flags(reading: Reading, *more: str) -> list[str]:
    """The arguments that say how a run was trained: every setting that is not the default.

    Args:
        reading: The run.
        more: New arguments; options that these take the place of are left out.
    """
    flags = [*_setting_flags(reading), *_split_flags(reading)]
    return [
        words.printable(each) for pair in flags if not _is_replaced(pair[0], more) for each in pair
    ]


def tell_forgotten(reading: Reading) -> str:
    """What has to be added to a command, if it was given, as the run does not keep it."""
    told = []
    if reading.kind == "transfer-sweep" and not _keeps_fractions(reading):
        told.append("If fractions were given, add them: this sweep, an older one, keeps none.")
    if reading.dataset == "elpv" and reading.kind not in _DRAW:
        told.append("If another --threshold than 0.5 was given, add it: a run does not keep it.")
    rule = dig(reading.config, "dataset", "grouped_by")
    if isinstance(rule, str) and is_table(rule):
        told.append("The table of groups stands by its name alone, too.")
    grouped = "grouped" in str(dig(reading.config, "split", "strategy"))
    if grouped and not rule and reading.dataset != "elpv":
        told.append("Groups were told in Python: name them by --groups instead of --split.")
    return " ".join(told)


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
    more = tell_forgotten(reading)
    return [Command(train_command(reading)), Text(f"{told} {more}".rstrip())]


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
    split, only = mapping(reading.config.get("split")), dig(reading.config, "dataset", "only")
    cuts = reading.config.get("cuts")
    flags: list[tuple[str, ...]] = [
        ("--cut", str(cut)) for cut in (cuts if isinstance(cuts, list) else ()) if cut
    ]
    if isinstance(only, str) and only:
        flags.append(("--only", words.printable(only)))
    rule = dig(reading.config, "dataset", "grouped_by")
    if isinstance(rule, str) and rule:
        flags.append(("--groups", words.printable(rule)))
        if "grouped" not in str(split.get("strategy")):  # the flag alone keeps groups together
            flags.append(("--split", "stratified"))
    elif split.get("strategy") == "grouped" and reading.kind not in _DRAW:
        flags.append(("--split", "grouped"))
    return flags + (_asked_flags(reading) if _keeps_fractions(reading) else _guess_flags(reading))


def _keeps_fractions(reading: Reading) -> bool:
    """Older runs do not tell what was asked for, but what came of it."""
    return number(dig(reading.config, "split", "asked", "validation_fraction")) is not None


def _asked_flags(reading: Reading) -> list[tuple[str, ...]]:
    """Folds, splits and fractions as they were asked for, where these are not the default."""
    asked = mapping(dig(reading.config, "split", "asked"))
    counts = {name: number(asked.get(name)) for name in ("folds", "splits")}
    fractions = {name: number(asked.get(f"{name}_fraction")) for name in _fractions_of(reading)}
    return [
        *((f"--{name}", f"{found:.0f}") for name, found in counts.items() if found and found > 1),
        *(
            (f"--{name}-fraction", str(found))
            for name, found in fractions.items()
            if found not in (None, _FRACTIONS[name])
        ),
    ]


def _fractions_of(reading: Reading) -> Sequence[str]:
    """The parts whose share a command of this kind takes."""
    return ("test",) if reading.kind in _DRAW else ("test", "validation")


def _guess_flags(reading: Reading) -> list[tuple[str, ...]]:
    """Folds, splits and fractions of an older run, from its numbers and the sizes of its parts."""
    metrics, fold = reading.metrics, dig(reading.config, "split", "fold")
    folds, splits = dig(metrics, "splits", "num_folds"), dig(metrics, "splits", "num_splits")
    splits = splits or dig(metrics, "sweep", "num_splits")
    # Nobody is left with one of many because the others were stopped, or all were killed.
    if stopped := dig(metrics, "protocol", "stopped_splits"):
        folds, splits = (stopped, None) if dig(metrics, "protocol", "fold") else (None, stopped)
    if not folds and isinstance(fold, list) and len(fold) == 2:
        folds = fold[1]
    if folds:
        return [("--folds", str(folds))]
    return [*([("--splits", str(splits))] if splits else []), *_guess_fractions(reading)]


def _guess_fractions(reading: Reading) -> list[tuple[str, ...]]:
    parts = {
        name: len(each) for name, each in mapping(dig(reading.config, "split", "digests")).items()
    }
    total = sum(parts.values())
    if not total or str(dig(reading.config, "split", "strategy")).startswith("given"):
        return []
    # Of few pictures each class gives a whole one more or less.
    about = max(_DEALT_ABOUT, len(reading.class_names) / total)
    shares = {name: parts.get(name, 0) / total for name in _fractions_of(reading)}
    return [
        (f"--{name}-fraction", f"{share:.2g}")
        for name, share in shares.items()
        if abs(share - _FRACTIONS[name]) > about
    ]


def _is_replaced(option: str, more: Sequence[str]) -> bool:
    """Whether a new argument takes the place of an old one; folds take that of fractions."""
    if "--folds" in more and option in ("--splits", "--test-fraction"):
        return True
    return option in more or ("--splits" in more and option == "--folds")


def _shown(value: object) -> Words:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return words.number(value, 0 if float(value).is_integer() else 4)
    if isinstance(value, list):
        return ", ".join(words.printable(each) for each in value)
    return words.printable(value)
