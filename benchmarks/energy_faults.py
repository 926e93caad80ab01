"""Whether a JEM that goes wrong is found out and mended: EuroSAT, faults put in on purpose, what became of each run.

Usage: python benchmarks/energy_faults.py [--seeds 5] [--steps 300] [--faults "none,one weight NaN"]

For each seed a sound run, and one with each fault from a step on that the seed draws. All faults but one last until the
run went back; that one stays, so that the run has to end with an error. Whether a run that came to its end did well is
told by what it leaves, not by the watch over the training: its accuracy on validation images beside the sound run's,
and how far images lie from samples in energy. A run that did not, and ended all the same, is an undetected divergence.
Rows go to benchmarks/results/energy_faults.json; runs that are there are not made again.
"""

from __future__ import annotations

import argparse
import math
import re
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from berunda._version import __version__
from berunda.api.compare import hardware
from berunda.api.drawn import Drawn, draw_images
from berunda.api.scene_fit import Net, source_of
from berunda.bench.rows import RowFile, refuse_other_settings
from berunda.data.images import VALIDATION, ImageSet, open_images
from berunda.data.order import Randomness
from berunda.data.resampling import resample_images
from berunda.errors import BerundaError, DivergedError
from berunda.methods.contract import Batch, Loss, Step
from berunda.methods.jem import JEM
from berunda.train.config import TrainConfig
from berunda.train.loop import Trained, train

RESULTS = Path(__file__).resolve().parent / "results" / "energy_faults.json"
SUITE = "energy_faults"
SOUND = "none"
LEAST_SHARE, LARGEST_GAP = 0.5, 10.0
"""A run did badly when its accuracy is below this share of the sound run's, or when images and samples lie further
apart than this in energy: then chains draw nothing like the images."""
N_JUDGED = 1000
_LAST = 20


def _one_weight(value: float) -> Callable[[nn.Module, torch.Generator], None]:
    def put(net: nn.Module, generator: torch.Generator) -> None:
        del generator
        list(net.parameters())[-2].view(-1)[0] = value

    return put


def _far_step(net: nn.Module, generator: torch.Generator) -> None:
    """Move every weight by about 1, as Adam does at a learning rate of 1."""
    for parameter in net.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter))


def _decayed(net: nn.Module, generator: torch.Generator) -> None:
    """Set every weight to 0, as weight decay does at a learning rate of 1 over it."""
    del generator
    for parameter in net.parameters():
        parameter.zero_()


WEIGHTS = {
    "one weight NaN": _one_weight(math.nan),
    "one weight infinite": _one_weight(math.inf),
    "learning rate of 1 for a step": _far_step,
    "weights decayed to 0 in a step": _decayed,
}
"""What happens once, to the weights."""
CHAINS: dict[str, dict[str, Any]] = {
    "slow drift: chains stand still at noise": {"variant": "jem", "step_size": 1e-9, "restart": 1.0},
    "steps of chains 100 times too long": {"step_size": 100.0},
}
"""Settings of the chains that hold from the step on."""
STAYS = "NaN again and again"
FAULTS = (SOUND, *WEIGHTS, *CHAINS, STAYS)


@dataclass(frozen=True)
class Faulty(JEM):
    """JEM with a fault from step `at` on; all but one end when the run has gone back."""

    fault: str = SOUND
    at: int = 0

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Any) -> Loss:
        """Return the loss after the fault was done."""
        has_returned = float(extra.get_buffer("step_share")) < 1
        method = replace(self, fault=SOUND)
        if step.index < self.at or (has_returned and self.fault != STAYS):
            return JEM.loss(method, net, extra, batch, step, rng)
        if self.fault in CHAINS:
            return JEM.loss(replace(method, **CHAINS[self.fault]), net, extra, batch, step, rng)
        if self.fault in WEIGHTS and step.index == self.at:
            with torch.no_grad():
                WEIGHTS[self.fault](net, rng.torch("fault"))
        loss = JEM.loss(method, net, extra, batch, step, rng)
        return replace(loss, total=loss.total * math.nan) if self.fault == STAYS else loss


def main(arguments: list[str]) -> int:
    """Make the missing rows and print all of them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--faults", default=",".join(FAULTS), type=lambda text: text.split(","))
    parser.add_argument("--encoder", default="wide_resnet10_1_no_norm")
    parser.add_argument("--depth", type=int, default=3, help="stages of the encoder in use")
    parser.add_argument("--px", type=int, default=32)
    parser.add_argument("--labelled", type=int, default=12, help="labelled images a step, and as many without label")
    parser.add_argument("--gradients", type=int, default=5, help="gradients that a chain follows in a step")
    parser.add_argument("--labels", type=int, default=10, help="labels a class")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--data", type=Path, help="folder of EuroSAT")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    unknown = [fault for fault in options.faults if fault not in FAULTS]
    if unknown:
        parser.error(f"--faults: found {unknown[0]!r}, expected some of: {', '.join(FAULTS)}")
    try:
        make_rows(options, shlex.join(["python", "benchmarks/energy_faults.py", *arguments]))
    except BerundaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def make_rows(options: argparse.Namespace, command: str) -> None:
    """Do the runs that no row tells of yet; each seed begins with its sound run, which the others are judged by."""
    images, rows = open_images("eurosat", folder=options.data), RowFile(options.results)
    setting = setting_of(options, images)
    refuse_other_settings(rows, setting, images.name, options.encoder)
    for seed in range(options.seeds):
        for fault in dict.fromkeys((SOUND, *options.faults)):
            key = {"suite": SUITE, "dataset": images.name, "variant": fault, "encoder": options.encoder, "seed": seed}
            if not rows.has(**key):
                sound = next((row for row in rows.rows() if _agrees(row, {**key, "variant": SOUND})), None)
                row = row_of(fault, seed, images, options, sound)
                rows.add([row | {"setting": setting, "command": command}])
                print(told(row), flush=True)


def _agrees(row: dict[str, Any], key: dict[str, Any]) -> bool:
    return all(row[name] == value for name, value in key.items())


def setting_of(options: argparse.Namespace, images: ImageSet) -> dict[str, Any]:
    """Return what all runs of a table share, for the rows."""
    names = ("steps", "depth", "px", "labelled", "gradients", "labels", "rate")
    return {"fingerprint": images.fingerprint[:16], **{name: getattr(options, name) for name in names}}


def row_of(
    fault: str, seed: int, images: ImageSet, options: argparse.Namespace, sound: dict[str, Any] | None
) -> dict[str, Any]:
    """Make one run and return its row."""
    start = time.perf_counter()
    at = int(Randomness(seed).numpy(f"fault {fault}").integers(options.steps // 3, options.steps * 2 // 3))
    method = Faulty(variant="jem++", n_steps=options.gradients, replay=20 * options.labelled, fault=fault, at=at)
    drawn = draw_images(images, options.labels, "per_class", seed)
    trained, error = _trained(method, drawn, seed, options)
    found = list(trained.returned) if trained else []
    metrics = {"injected": None if fault == SOUND else at, **_times(found, error), "is_error": int(bool(error))}
    if None not in (metrics["injected"], metrics["detected"]):
        metrics["steps_to_find"] = metrics["detected"] - metrics["injected"]
    if trained is not None:
        metrics |= judged(trained, drawn, options.px, None if sound is None else sound["metrics"]["oa"])
    seconds, n_images = time.perf_counter() - start, 2 * options.labelled
    return {
        "suite": SUITE,
        "dataset": images.name,
        "task": "scene",
        "method": "jem",
        "variant": fault,
        "encoder": options.encoder,
        "labels": options.labels,
        "labels_unit": "per_class",
        "seed": seed,
        "metrics": metrics | {"is_undetected": int(bool(metrics.get("is_bad")))},
        "ended": "with an error" if error else "recovered" if found else "sound",
        "error": error,
        "returned": found,
        "protocol": _PROTOCOL.format(**{**vars(options), "images": n_images}),
        "wall_s": round(seconds, 2),
        "images_per_s": round(options.steps * n_images / seconds, 1),
        "hardware": f"{hardware()}, {torch.get_num_threads()} threads",
        "version": __version__,
    }


_PROTOCOL = (
    "{steps} steps of jem++ of {gradients} gradients a chain, {images} images of {px} px a step, half labelled; "
    f"{{labels}} labels a class, learning rate {{rate:g}}, checkpoints every 50 steps; accuracy of the averaged model "
    f"on {N_JUDGED} validation images; gap: median difference in energy of images and samples over the last {_LAST} "
    f"steps; undetected: a run that ended, with less than {LEAST_SHARE:.0%} of the sound run's accuracy or a gap above "
    f"{LARGEST_GAP:g}"
)


def _trained(method: Faulty, drawn: Drawn, seed: int, options: argparse.Namespace) -> tuple[Trained | None, str]:
    """Train, and return what came of it, or the error with which it ended."""
    net = Net(options.encoder, options.depth, pretrained=False, image_px=options.px)
    config = TrainConfig(
        steps=options.steps,
        n_labelled=options.labelled,
        learning_rate=options.rate,
        seed=seed,
        checkpoint_every=50,
        device="cpu",
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            source = source_of(drawn, options.px)
            return train(method, net.spec(drawn), source, config, folder=Path(folder)), ""
        except DivergedError as error:
            return None, str(error)


def _times(found: list[str], error: str) -> dict[str, Any]:
    """Return at which step the first divergence was found, to which step the run went back last, and how often."""
    steps = [int(step) for text in [*found, error] for step in re.findall(r"diverged at step (\d+) of", text)]
    back = [int(step) for text in found for step in re.findall(r"went back to step (\d+),", text)]
    times = re.search(r"it went back (\d+) times before", error)
    n = int(times[1]) if times else len(found)
    return {"detected": steps[0] if steps else None, "back_to": back[-1] if back else None, "returns": n}


@torch.no_grad()
def judged(trained: Trained, drawn: Drawn, px: int, sound: float | None) -> dict[str, Any]:
    """Return the figures of a run that came to its end, and whether it did badly.

    Args:
        trained: the run.
        drawn: its images.
        px: side at which they are shown.
        sound: accuracy of the sound run of the same seed; None for that run itself, which is held against chance.
    """
    images = drawn.images
    index = Randomness(0).numpy("judged images").permutation(images.of(VALIDATION))[:N_JUDGED]
    pixels = resample_images(torch.from_numpy(images.scaled(index)), px)
    model = trained.model
    said = torch.cat([trained.method.predict(model.net, model.extra, part) for part in pixels.split(250)])
    right = float(np.mean(said.argmax(1).numpy() == images.labels[index]))
    gap = statistics.median(abs(row["likelihood"]) for row in trained.log[-_LAST:])
    is_finite = all(
        _is_finite(value) for value in [*model.net.state_dict().values(), *trained.net.state_dict().values()]
    )
    least = 1.5 / len(images.classes) if sound is None else LEAST_SHARE * sound
    return {"oa": right, "energy_gap": gap, "is_bad": int(not is_finite or right < least or gap > LARGEST_GAP)}


def _is_finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())


def told(row: dict[str, Any]) -> str:
    """Return in a line what became of a run."""
    m = row["metrics"]
    found = "nothing found" if m["detected"] is None else f"found at step {m['detected']}, {m['returns']} returns"
    did = "" if "oa" not in m else f", accuracy {m['oa']:.3f}, gap {m['energy_gap']:.2f}"
    bad = ", UNDETECTED" if m["is_undetected"] else ""
    what = row["variant"] if m["injected"] is None else f"{row['variant']} from step {m['injected']}"
    return f"seed {row['seed']}, {what}: {found}, ended {row['ended']}{did}{bad}, {row['wall_s']:.0f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
