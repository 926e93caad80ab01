"""EuroSAT on one GPU: Wide-ResNet-28-2 from scratch or a pretrained encoder, at 1 to 100 labels a class, in pieces.

Usage:
  python benchmarks/gpu_eurosat.py --pack DIR [--encoder NAME --weights FILE]    data (and weights) in parts below 60 MB
  PYTHONPATH=src python benchmarks/gpu_eurosat.py --parts DIR,... --minutes 9 --before OUT1 --out OUT2

The second line needs torch, timm, numpy and pillow with what they bring along, scipy, scikit-learn (for the graphs of
`propagate`), and this checkout. It does what is missing in `OUT2/eurosat_gpu.json`, and stops after --minutes: a run
under way is left as parts below 16 MB in `OUT2/resume`, from which the next call, with --before OUT2, goes on and ends
with the same weights. A run that diverges is noted in `OUT2/eurosat_gpu_diverged.json`; it is not tried again with the
same settings. Without --parts the data set is looked for where the package looks for it. Without a GPU nothing is done,
unless --device cpu asks for it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from berunda._version import __version__
from berunda.assess.classify import classifier_figures
from berunda.bench.bound import measure_bound
from berunda.bench.diverged import DivergedRuns
from berunda.bench.parts import INDEX, join_parts, split_files
from berunda.bench.resident import ResidentSource, classified
from berunda.bench.rows import RowFile, refuse_other_settings, variant_of
from berunda.bench.suite import REFERENCE, refuse_idle_options
from berunda.bench.timm_net import with_weights
from berunda.data.images import TEST, TRAIN, open_images
from berunda.data.subsets import label_subset, validation_subset
from berunda.errors import BerundaError, ConfigError, DataError, DivergedError
from berunda.methods import make_method
from berunda.methods.contract import Method, NetSpec
from berunda.models.device import resolve_device
from berunda.models.encoders import DEFAULT_ENCODER, packaged_weights
from berunda.train.config import TrainConfig
from berunda.train.loop import Trained, train
from berunda.train.passes import AllImages, equal_settings, image_passes, passes_per_step
from berunda.train.signals import alarm

SUITE = "eurosat_gpu"
DIVERGED = f"{SUITE}_diverged.json"
DATA_PART_BYTES, RESUME_PART_BYTES = 40_000_000, 15_000_000
MARGIN_S = 20.0
"""Kept of the time for the checkpoint and for leaving."""
SCRATCH: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.03, "weight_decay": 5e-4, "clip_norm": 0.0}
"""How a net from scratch is trained. Source: Sohn et al. 2020 (FixMatch), table 4."""
PRETRAINED: dict[str, Any] = {"optimizer": "adamw", "learning_rate": 5e-4, "weight_decay": 1e-2, "clip_norm": 1.0}


@dataclass(frozen=True)
class Job:
    """One run: a method with so many labels a class and a seed; the variant names options that differ from defaults."""

    method: str
    labels: int
    seed: int
    variant: str = ""

    def name(self, encoder: str) -> str:
        """Return the name of its folder."""
        words = (encoder, self.method, self.variant, self.labels, self.seed)
        return re.sub(r"[^\w.=-]", "_", "-".join(str(word) for word in words if word != ""))


class Bench:
    """The runs of one call.

    Args:
        options: of the command line.
        command: as it was typed.

    Raises:
        ConfigError: an option is of no method that is compared.
    """

    def __init__(self, options: argparse.Namespace, command: str) -> None:
        refuse_idle_options((text.partition("=")[0] for text in options.option), options.methods)
        self.options, self.command = options, command
        self.start = time.monotonic()
        self.rows = RowFile(options.out / f"{SUITE}.json")
        self.runs = options.state / "runs"
        self.diverged = DivergedRuns(options.out / DIVERGED)
        if options.parts:
            folder = options.state / "data"
            if not folder.is_dir():
                join_parts(options.parts, folder)
            self.weights = folder / "weights" / f"{options.encoder}.safetensors"
            self.images = open_images("eurosat", folder=folder, cache=options.state / "cache")
        else:
            self.weights = options.weights or Path()
            self.images = open_images("eurosat")
        self.weights_key = hashlib.sha256(self.weights.read_bytes()).hexdigest()[:16] if self.is_pretrained else ""
        if options.before is not None:
            self._take_over(options.before)
        shutil.rmtree(options.out / "resume", ignore_errors=True)

    def _take_over(self, before: Path) -> None:
        """Bring in the rows and the run under way of an earlier call."""
        self.rows.add(RowFile(before / f"{SUITE}.json").rows())
        self.diverged.take_over(DivergedRuns(before / DIVERGED))
        if (before / "resume" / INDEX).is_file() and not self.runs.is_dir():
            join_parts([before / "resume"], self.runs)

    @property
    def left_s(self) -> float:
        """Seconds until this call should come to its end."""
        return 60 * float(self.options.minutes) - MARGIN_S - (time.monotonic() - self.start)

    def jobs(self) -> Iterator[Job]:
        """Yield the runs that no row tells of yet, but for those that diverged."""
        failed = self.diverged.names(self.setting())
        for labels in self.options.labels:
            for seed in range(self.options.seeds):
                for method in self.options.methods:
                    job = Job(method, labels, seed, variant_of(self.options.method_options.get(method, {})))
                    is_there = self.rows.has(suite=SUITE, encoder=self.options.encoder, **asdict(job))
                    if not is_there and job.name(self.options.encoder) not in failed:
                        yield job

    def run(self) -> bool:
        """Do what there is time for; return whether all is done.

        Raises:
            ConfigError: the rows there were trained otherwise, or a run cannot have as many image passes as the others.
        """
        refuse_other_settings(self.rows, self.setting(), "eurosat", self.options.encoder)
        missing = list(self.jobs())
        for job in missing:
            self.config(job)
        for job in missing:
            if self.left_s <= 0 or not self._finished(job):
                self._leave()
                return False
        return True

    def _finished(self, job: Job) -> bool:
        """Do a run, and return whether it came to its end; one that diverges did, is noted, and the others go on."""
        try:
            return self._run(job)
        except DivergedError as error:
            name = job.name(self.options.encoder)
            self.diverged.add(name, error, self.setting())
            shutil.rmtree(self.runs / name, ignore_errors=True)
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            return True

    def _run(self, job: Job) -> bool:
        images, folder = self.images, self.runs / job.name(self.options.encoder)
        method, spec, config = self.method(job.method), self.spec(job), self.config(job)
        bound = measure_bound(method, spec, config)
        start = time.perf_counter()  # the bound is no part of the run
        train_index = label_subset(images, job.labels, "per_class", job.seed)
        source = ResidentSource(images, train_index, resolve_device(config.device))
        training = time.perf_counter()
        with alarm(self.left_s) as fired:
            try:
                trained = train(method, spec, source, config, folder=folder)
            except SystemExit:
                if not fired.is_set():
                    raise
                return False
        earlier_s = max(0.0, trained.seconds - (time.perf_counter() - training))
        parts = (validation_subset(images, len(train_index), job.seed), images.of(TEST))
        validation, test = (classified(trained, images, index, config) for index in parts)
        figures = classifier_figures(validation, test, class_names=images.classes)
        step_s = trained.seconds / config.steps
        figures |= {"step_s": step_s, "bare_step_s": bound.step_s, "bare_trained_s": bound.trained_s}
        figures |= {"share_of_bare": bound.step_s / step_s, "share_of_bare_trained": bound.trained_s / step_s}
        wall_s = images.opening_s + time.perf_counter() - start + earlier_s
        row = self.row(job, config, figures, trained) | {"wall_s": round(wall_s, 2)}
        self.rows.add([row])
        shutil.rmtree(folder)
        said = f"{100 * figures['oa']:.2f}%, {wall_s:.0f} s, {row['images_per_s']:.0f} images/s"
        print(f"{job.name(self.options.encoder)}: {said}, {figures['share_of_bare']:.0%} of bare", flush=True)
        return True

    def _leave(self) -> None:
        """Put the checkpoint of the run under way into parts."""
        files = sorted(path for path in self.runs.rglob("*") if path.is_file() and path.suffix != ".lock")
        named = {path.relative_to(self.runs).as_posix(): path for path in files}
        if named:
            written = split_files(named, self.options.out / "resume", RESUME_PART_BYTES)
            print(f"time is up: {files[0].relative_to(self.runs).parts[0]} goes on from {len(written) - 1} parts")

    def method(self, name: str) -> Method:
        """Return the method with its options, and with pretrained weights where the encoder has some."""
        method = make_method(name, self.options.method_options.get(name, {}))
        return with_weights(method, self.weights, self.options.encoder) if self.is_pretrained else method

    @property
    def is_pretrained(self) -> bool:
        """Whether the encoder starts from weights in a file."""
        return self.weights.is_file()

    def all_images(self, job: Job) -> AllImages:
        """Return what a method that looks at all images looks at."""
        n_labelled = job.labels * len(self.images.classes)
        return AllImages(n_labelled + len(self.images.of(TRAIN)), self.images.size[0], self.is_pretrained)

    def spec(self, job: Job) -> NetSpec:
        """Return the net."""
        images, options = self.images, self.options
        n_labelled, n_unlabelled = job.labels * len(images.classes), len(images.of(TRAIN))
        return NetSpec(
            "scene",
            len(images.bands),
            len(images.classes),
            encoder=options.encoder,
            encoder_depth=options.depth,
            pretrained=self.is_pretrained,
            crop_px=images.size[0],
            n_labelled=n_labelled,
            n_unlabelled=n_unlabelled,
        )

    def base(self, job: Job) -> TrainConfig:
        """Return the loop's settings of the reference method with its defaults, `--steps` steps."""
        options, recipe = self.options, PRETRAINED if self.is_pretrained else SCRATCH
        recipe = recipe | ({"learning_rate": options.learning_rate} if options.learning_rate else {})
        return TrainConfig(
            steps=options.steps,
            n_labelled=options.labelled,
            ema_decay=0.999,
            warmup_steps=min(200, options.steps // 10),
            seed=job.seed,
            checkpoint_every=0,
            keep=1,
            device=options.device,
            workers=options.workers,
            compile=options.compile,
            ranks="alone",
            run_key=f"{self.images.fingerprint[:16]}-{job.labels}-{self.weights_key}",
            **recipe,
        )

    def config(self, job: Job) -> TrainConfig:
        """Return the loop's settings of a run: as many image passes as any other, see `equal_settings`."""
        try:
            return equal_settings(self.method(job.method), self.base(job), self.budget, self.all_images(job))
        except ConfigError as error:
            raise ConfigError(f"{job.name(self.options.encoder)}: {error}") from error

    @property
    def budget(self) -> float:
        """Image passes of a run: those of the reference method."""
        return float(self.options.steps * passes_per_step(make_method(REFERENCE), self.options.labelled))

    def setting(self) -> dict[str, Any]:
        """Return what all runs of an encoder share, for the rows."""
        base = self.base(Job(REFERENCE, 0, 0))
        return {
            "fingerprint": self.images.fingerprint[:16],
            "image_passes": round(self.budget),
            "image_px": self.images.size[0],
            "encoder_depth": self.options.depth,
            "weights": self.weights_key,
            "learning_rate": base.learning_rate,
            "n_labelled": base.n_labelled,
        }

    def row(self, job: Job, config: TrainConfig, figures: dict[str, Any], trained: Trained) -> dict[str, Any]:
        """Return the row of a finished run, but for its wall time."""
        passes = image_passes(self.method(job.method), config, self.all_images(job))
        kind = "pretrained" if self.is_pretrained else "from scratch"
        return {
            "suite": SUITE,
            "dataset": "eurosat",
            "task": "scene",
            "method": job.method,
            "variant": job.variant,
            "encoder": self.options.encoder,
            "labels": job.labels,
            "labels_unit": "per_class",
            "seed": job.seed,
            "metrics": figures,
            "training_s": round(trained.seconds, 2),
            "images_per_s": round(passes / trained.seconds, 1),
            "image_passes": round(passes),
            "protocol": f"RGB, {self.images.size[0]} px, {kind}; split of index.csv; labels drawn by seed, all "
            f"training images unlabelled; {self.budget:,.0f} image passes a run (forward alone counts a third), equal "
            "for all methods; averaged model of the last step",
            "hardware": hardware(config.device),
            "config": config.numerics(),
            "setting": self.setting(),
            "options": self.options.method_options.get(job.method, {}),
            "command": self.command,
            "version": __version__,
        }


def hardware(device: str) -> str:
    """Return the GPU (or that there is none) and the cores."""
    name = torch.cuda.get_device_name(0) if device != "cpu" and torch.cuda.is_available() else "CPU only"
    return f"{name}, {os.cpu_count()} cores"


def pack(folder: Path, archive: Path, encoder: str, weights: Path | None) -> None:
    """Write the data set's archive with its split, and pretrained weights, in parts."""
    from safetensors.torch import save_file

    if not archive.is_file() or not (archive.parent / "index.csv").is_file():
        raise DataError(f"{archive}: not found with its index.csv beside it; name the archive with --archive")
    files = {archive.name: archive, "index.csv": archive.parent / "index.csv"}
    made = folder / f"{encoder}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    if weights is None and encoder == DEFAULT_ENCODER:
        save_file({name: tensor.contiguous() for name, tensor in packaged_weights().items()}, made)
        weights = made
    if weights is not None:
        files[f"weights/{encoder}.safetensors"] = weights
    written = split_files(files, folder, DATA_PART_BYTES)
    made.unlink(missing_ok=True)
    print("\n".join(f"{path} {path.stat().st_size / 1e6:.1f} MB" for path in written))


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Return the options, lists taken apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = Path(os.environ.get("BERUNDA_DATA", ".")) / "eurosat_rgb" / "EuroSAT_RGB.zip"
    parser.add_argument("--pack", type=Path, metavar="DIR", help="write data and weights in parts, and end")
    parser.add_argument("--archive", type=Path, default=data, help="for --pack: index.csv lies beside it")
    parser.add_argument("--parts", type=_several(Path), default=[], metavar="DIR,...", help="folders with the parts")
    parser.add_argument("--state", type=Path, default=Path("gpu-state"), help="joined data and runs under way")
    parser.add_argument("--before", type=Path, metavar="DIR", help="what an earlier call left in its --out")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call")
    parser.add_argument("--encoder", default="wide_resnet28_2")
    parser.add_argument("--depth", type=int, default=2, help="stages of a net from scratch")
    parser.add_argument("--weights", type=Path, help="safetensors file of a timm encoder")
    parser.add_argument("--methods", type=_several(str), default=["fixmatch"])
    parser.add_argument("--option", action="append", default=[], metavar="METHOD.NAME=VALUE")
    parser.add_argument("--labels", type=_several(int), default=[5, 1, 10, 20, 100])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8000, help="of FixMatch with its defaults; others as many passes")
    parser.add_argument("--labelled", type=int, default=64, help="labelled images a step")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args(arguments)
    options.method_options = {}
    for text in options.option:
        name, _, value = text.partition("=")
        method, _, key = name.partition(".")
        options.method_options.setdefault(method, {})[key] = value
    return options


def _several(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [kind(part) for part in text.split(",")]


def main(arguments: list[str]) -> int:
    """Pack, or train what is missing; return the exit code."""
    options = parsed(arguments)
    try:
        if options.pack is not None:
            pack(options.pack, options.archive, options.encoder, options.weights)
            return 0
        if options.device != "cpu" and not torch.cuda.is_available():
            print("no GPU here, nothing done; --device cpu trains on the processor")
            return 0
        torch.backends.cudnn.benchmark = True
        bench = Bench(options, shlex.join(["python", "benchmarks/gpu_eurosat.py", *arguments]))
        done = bench.run()
        bench.rows.path.with_suffix(".lock").unlink(missing_ok=True)
        print("all runs are done" if done else "more is left: call again with --before")
        if failed := bench.diverged.names(bench.setting()):
            print(f"error: diverged: {', '.join(failed)}; lower --learning-rate", file=sys.stderr)
            return 1
    except BerundaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
