"""The command line that the scripts for a lent GPU share."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from berunda.bench.experiment import Experiment
from berunda.bench.parts import split_files
from berunda.bench.pieces import Call, Pieces
from berunda.bench.suite import Arm, refuse_idle_options
from berunda.errors import BerundaError, ConfigError, DataError
from berunda.models.encoders import DEFAULT_ENCODER, packaged_weights
from berunda.train.config import TrainConfig

__all__ = [
    "add_options",
    "call_of",
    "chosen_arms",
    "data_file",
    "data_parts",
    "loop_of",
    "named_arms",
    "run_script",
    "several",
]

DATA_PART_BYTES = 40_000_000


def several(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Return what reads values between commas."""
    return lambda text: [kind(part) for part in text.split(",")]


def data_file(*names: str) -> Path:
    """Return where a file of a data set usually lies: below the folder that `BERUNDA_DATA` names."""
    return Path(os.environ.get("BERUNDA_DATA", "."), *names)


def add_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Add what all these scripts understand.

    Args:
        parser: of the script.
        defaults: archive and out, encoder, labels, steps and labelled; and what else differs from the usual.
    """
    parser.add_argument("--pack", type=Path, metavar="DIR", help="write data (and weights) in small parts, and end")
    parser.add_argument("--archive", type=Path, help="for --pack: its table lies beside it")
    parser.add_argument("--parts", type=several(Path), default=[], metavar="DIR,...", help="folders with the parts")
    parser.add_argument("--state", type=Path, default=Path("gpu-state"), help="joined data and runs under way")
    parser.add_argument("--before", type=Path, metavar="DIR", help="what an earlier call left in its --out")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call")
    parser.add_argument("--encoder")
    parser.add_argument("--option", action="append", default=[], metavar="METHOD.NAME=VALUE")
    parser.add_argument("--labels", type=several(_number))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of FixMatch with its defaults; others as many image passes")
    parser.add_argument("--labelled", type=int, help="labelled images a step")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")
    parser.set_defaults(**defaults)


def _number(text: str) -> int | float:
    return int(text) if text.isdigit() else float(text)


def loop_of(options: argparse.Namespace, recipe: Mapping[str, Any]) -> TrainConfig:
    """Return the loop's settings of the reference method with its defaults, `--steps` steps.

    Args:
        options: of the command line.
        recipe: optimizer, rate and so on; the rate is that of the options where they name one.
    """
    own: dict[str, Any] = {
        "steps": options.steps,
        "n_labelled": options.labelled,
        "warmup_steps": min(200, options.steps // 10),
        "checkpoint_every": 0,
        "keep": 1,
        "device": options.device,
        "workers": options.workers,
        "compile": options.compile,
        "ranks": "alone",
    }
    rate = {"learning_rate": options.learning_rate} if options.learning_rate else {}
    return TrainConfig(**own | dict(recipe) | rate)


def call_of(options: argparse.Namespace, command: str) -> Call:
    """Return the call that the options describe."""
    return Call(options.out, options.state, options.minutes, options.before, command)


def named_arms(names: Iterable[str], known: Mapping[str, Sequence[Arm]]) -> list[Arm]:
    """Return the arms that stand under the names.

    Raises:
        ConfigError: there is no such name.
    """
    for name in names:
        if name not in known:
            raise ConfigError(f"--arms: found {name!r}, expected of {', '.join(known)}")
    return [arm for name in names for arm in known[name]]


def chosen_arms(arms: Iterable[Arm], given: Sequence[str]) -> tuple[Arm, ...]:
    """Return the arms with the hyper-parameters given as "method.name=value", equal ones once.

    Raises:
        ConfigError: an option is of no method that is compared.
    """
    found = list(arms)
    refuse_idle_options((text.partition("=")[0] for text in given), [arm.method for arm in found])
    own: dict[str, dict[str, str]] = {}
    for text in given:
        name, _, value = text.partition("=")
        method, _, key = name.partition(".")
        own.setdefault(method, {})[key] = value
    made = [replace(arm, options={**arm.options, **own.get(arm.method, {})}) for arm in found]
    return tuple({(arm.method, arm.variant): arm for arm in made}.values())


def data_parts(folder: Path, files: Mapping[str, Path], *, encoder: str = "", weights: Path | None = None) -> None:
    """Write files in parts, and the weights of an encoder as `weights/<encoder>.safetensors` with them.

    Args:
        folder: where to.
        files: by the names under which they come back.
        encoder: whose weights; those of the packaged encoder are taken from the package that carries them.
        weights: safetensors file of other encoders; None for none.

    Raises:
        DataError: a file is missing.
    """
    from safetensors.torch import save_file

    for path in files.values():
        if not path.is_file():
            raise DataError(
                f"{path}: not found; expected the archive of the data set, named by --archive, and its table"
            )
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{encoder}.safetensors"
    if weights is None and encoder == DEFAULT_ENCODER:
        save_file({name: tensor.contiguous() for name, tensor in packaged_weights().items()}, made)
        weights = made
    also = {} if weights is None else {f"weights/{encoder}.safetensors": weights}
    written = split_files({**files, **also}, folder, DATA_PART_BYTES)
    made.unlink(missing_ok=True)
    print("\n".join(f"{path} {path.stat().st_size / 1e6:.1f} MB" for path in written))


def run_script(
    command: Sequence[str],
    options: argparse.Namespace,
    pack: Callable[[argparse.Namespace], None],
    experiment: Callable[[argparse.Namespace], Experiment],
) -> int:
    """Pack, or train what is missing; return the exit code.

    Args:
        command: the words of the call, for the rows.
        options: what they mean.
        pack: writes the data in parts.
        experiment: says what is compared.
    """
    try:
        if options.pack is not None:
            pack(options)
            return 0
        if options.device != "cpu" and not torch.cuda.is_available():
            print("no GPU here, nothing done; --device cpu trains on the processor")
            return 0
        torch.backends.cudnn.benchmark = True
        found = Pieces(experiment(options), call_of(options, shlex.join(command)))
        done = found.run()
        found.rows.path.with_suffix(".lock").unlink(missing_ok=True)
        print("all runs are done" if done else "more is left: call again with --before")
        if failed := found.failed():
            print(f"error: diverged: {', '.join(failed)}; lower --learning-rate", file=sys.stderr)
            return 1
    except BerundaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
