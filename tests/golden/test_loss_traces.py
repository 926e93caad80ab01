"""Ten steps of every method in float64 give the losses that they gave before.

A trace that changes is a change of numerics: say why under "Numerics" in CHANGELOG.md, then write the file
anew with

    python tests/golden/test_loss_traces.py
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from berunda.augment.geometry import Geometry
from berunda.data.order import Randomness
from berunda.methods import make_method, method_names
from berunda.methods.contract import Batch, Images, Method, NetSpec, Step, Surveyed, Task
from berunda.models.pooled import PooledNet
from berunda.models.resolution import FullResolution
from berunda.models.transformer import VisionTransformer

FILE = Path(__file__).with_name("loss_traces.json")
N_STEPS, N_BANDS, N_CLASSES, SIDE_PX = 10, 4, 3, 12

USED = {"threshold": 0.5}
CONSISTENCY: dict[str, dict[str, Any]] = {
    "adamatch": {"ramp": 0.0},
    "defixmatch": USED,
    "fixmatch": USED,
    "fixmatch_jem": {"share": 0.3, **USED},
    "flexmatch": USED,
    "mean_teacher": {"ramp": 0.0, "lambda_u": 5.0},
    "mixmatch": {"ramp": 0.0, "lambda_u": 5.0},
    "pi_model": {"ramp": 0.0, "lambda_u": 1.0},
    "propagate": {"lambda_u": 0.1},
    "pseudo_label": USED,
}
"""Options with which ten steps see the unlabelled part of the loss at work."""


RATES = {"hvae": 1e-4, "vae": 1e-3}
"""Rates of plain descent: densities of pixels are steep, and nothing clips the gradient here."""
SEVERAL = (9, 0.5)
"""Labelled images a step and rate for several labels: three images say too little of labels that may each be there."""


def options_of(name: str, task: Task) -> dict[str, Any]:
    """Return the options of a trace."""
    if task == "multilabel" and name == "fixmatch":
        return {"ramp": 0.0}
    if name == "hvae":
        return {"ramp": 0.0}
    return CONSISTENCY.get(name, {}) if task != "segmentation" or name in ("mean_teacher", "mixmatch") else {}


TASKS: tuple[tuple[Task, str], ...] = (("segmentation", ""), ("scene", " scene"), ("multilabel", " multilabel"))
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"{name}{suffix}": (name, options_of(name, task))
        for name in method_names()
        for task, suffix in TASKS
        if task in make_method(name).needs().tasks
    },
    "berunda l1": ("berunda", {"aux": "l1"}),
    "berunda mumford_shah": ("berunda", {"aux": "mumford_shah"}),
    "berunda inpainting": ("berunda", {"aux": "inpainting", "lambda_u": 5.0}),
    "berunda jigsaw": ("berunda", {"aux": "jigsaw", "n_permutations": 30}),
    "berunda early l2": ("berunda", {"split": "early", "aux": "l2"}),
    "berunda early inpainting": ("berunda", {"split": "early", "aux": "inpainting"}),
    "berunda uncertainty": ("berunda", {"weighting": "uncertainty"}),
    "ssl_mae raw normalise scene": ("ssl_mae", {"weighting": "raw", "normalise": True}),
    "ssl_mae raw multilabel": ("ssl_mae", {"weighting": "raw"}),
    "ssl_mae normalised multilabel": ("ssl_mae", {"weighting": "normalised"}),
    "ssl_mae uncertainty multilabel": ("ssl_mae", {"weighting": "uncertainty"}),
    "fixmatch all believed multilabel": ("fixmatch", {"prior_share": 1.0, "ramp": 0.0}),
    "jem jem++ scene": ("jem", {"variant": "jem++"}),
    "jem sada scene": ("jem", {"variant": "sada"}),
    "fixmatch_jem pipeline scene": ("fixmatch_jem", {"form": "pipeline"}),
    "hvae gaussian": ("hvae", {"latent": "gaussian", "ramp": 0.0}),
    "wnet l1": ("wnet", {"aux": "l1"}),
    "unimatch sure": ("unimatch", {"threshold": 0.4}),
    "unimatch student": ("unimatch", {"threshold": 0.4, "q_from": "student"}),
    "fixmatch uncertainty": ("fixmatch", {"threshold": 0.4, "weighting": "uncertainty"}),
    "fixmatch sure": ("fixmatch", {"threshold": 0.4}),
    "fixmatch student aligned adaptive": (
        "fixmatch",
        {"threshold": 0.5, "q_from": "student", "align": "labelled", "adaptive": True},
    ),
}


class ConvNet(FullResolution, nn.Module):
    """A small net with batch norm; its weights come from numpy, so that no version of torch changes them."""

    feature_dim = 8

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.is_pooled = task != "segmentation"
        self.body = nn.Sequential(nn.Conv2d(N_BANDS, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.tail = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, N_CLASSES) if self.is_pooled else nn.Conv2d(8, N_CLASSES, 1)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        return [self.body(pixels)]

    def decode(self, features: list[Tensor]) -> Tensor:
        decoded = self.tail(features[-1])
        return decoded.mean((2, 3)) if self.is_pooled else decoded

    def classify(self, decoded: Tensor) -> Tensor:
        return self.head(decoded)

    def second_decoder(self, n_out: int) -> nn.Module:
        second = ConvNet("segmentation")
        second.body, second.head = nn.Identity(), nn.Conv2d(8, n_out, 1)
        return second

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classify(self.decode(self.encode(pixels)))


def net_of(method: Method, task: Task) -> nn.Module:
    """A small net of the kind that the method asks for."""
    if method.needs().encoder == "vit":
        return PooledNet(VisionTransformer(N_BANDS, SIDE_PX, (SIDE_PX // 3, 16, 1, 2)), N_CLASSES, stride=1)
    return ConvNet(task)


def fill(module: nn.Module, seed: int) -> nn.Module:
    """Draw all parameters from numpy."""
    source = np.random.Generator(np.random.Philox(seed))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.copy_(torch.from_numpy(source.normal(0, fan_in**-0.5, parameter.shape)))
            else:
                is_norm = name.endswith(("1.weight", "norm2.weight", "norm.weight"))
                is_norm = is_norm or (name.startswith("second.") and name.endswith("weight"))
                parameter.fill_(1.0 if is_norm else 0.0)
    return module.double()


def task_of(case: str) -> Task:
    """Return the task of a trace: the last word of its name says it."""
    return next((task for task, suffix in TASKS if suffix and case.endswith(suffix)), "segmentation")


def images(n: int, seed: int, noise: float, *, with_labels: bool, task: Task) -> Images:
    """The same scene for the same seed, seen through `noise`, with holes.

    Of several labels an image shows one class on its left and one on its right; some are unknown.
    """
    source = np.random.Generator(np.random.Philox(seed))
    labels = source.integers(0, N_CLASSES, (n, 3, 3)).repeat(SIDE_PX // 3, 1).repeat(SIDE_PX // 3, 2)
    if task == "scene":
        labels = np.broadcast_to(labels[:, :1, :1], labels.shape)
    if task == "multilabel":
        labels = labels[:, :1, [0, -1]].repeat(SIDE_PX, 1).repeat(SIDE_PX // 2, 2)
    pixels = 2 * np.eye(N_CLASSES, N_BANDS)[labels].transpose(0, 3, 1, 2)
    valid = source.random(labels.shape) > 0.1
    known = source.random(labels.shape) > 0.5
    pixels = (pixels + noise * source.normal(size=pixels.shape)) * valid[:, None]
    given = labels[:, 0, 0] if task == "scene" else np.where(known, labels, -1)
    if task == "multilabel":
        given = np.where(valid[:, 0, :N_CLASSES], np.eye(N_CLASSES)[labels].max((1, 2)), np.nan)
    return Images(
        pixels=torch.from_numpy(pixels),
        valid=torch.from_numpy(valid),
        labels=torch.from_numpy(given.copy()) if with_labels else None,
        geometry=Geometry.identity(n),
        index=torch.arange(n),
    )


def surveyed(n: int, seed: int, task: Task) -> Surveyed:
    """Features that tell the classes, and logits; labels for the first stream, of several labels all but one known."""
    source = np.random.Generator(np.random.Philox(seed))
    labels = np.arange(n) % N_CLASSES
    features = np.eye(N_CLASSES, 6)[labels] + 0.1 * source.normal(size=(n, 6))
    logits = torch.from_numpy(source.normal(size=(n, N_CLASSES)))
    if seed != 7:
        return Surveyed(torch.from_numpy(features), logits, None, None)
    several = np.where(np.arange(n * N_CLASSES).reshape(n, -1) == 1, np.nan, np.eye(N_CLASSES)[labels])
    given = several if task == "multilabel" else labels
    return Surveyed(torch.from_numpy(features), logits, torch.from_numpy(given), torch.full((n,), -1))


def trace(case: str) -> list[float]:
    """Return the losses of ten steps of plain gradient descent, with a teacher where one is asked for."""
    method, task = make_method(*CASES[case]), task_of(case)
    net = fill(net_of(method, task), 1)
    extra = fill(method.init(net, NetSpec(task, N_BANDS, N_CLASSES, crop_px=SIDE_PX, n_labelled=3, n_unlabelled=4)), 2)
    pair = nn.ModuleDict({"net": net, "extra": extra})
    teacher = copy.deepcopy(pair).eval().requires_grad_(False) if method.needs().teacher else None
    n_labelled, rate = SEVERAL if task == "multilabel" else (3, RATES.get(method.name, 0.1))
    optimizer = torch.optim.SGD(pair.parameters(), lr=rate)
    losses = []
    for step in range(N_STEPS):
        labelled = {
            view.name: images(n_labelled, 10 + step, 0.3, with_labels=True, task=task)
            for view in method.needs().labelled
        }
        unlabelled = {
            view.name: images(4, 50 + step, 1.0 if later else 0.3, with_labels=False, task=task)
            for later, view in enumerate(method.needs().unlabelled)
        }
        where = Step(step, N_STEPS, teacher)
        if method.needs().surveys and step in (0, N_STEPS // 2):
            for buffer, value in method.survey(extra, surveyed(3, 7, task), surveyed(4, 8, task), where).items():
                extra.get_buffer(buffer).copy_(value)
        loss = method.loss(net, extra, Batch(labelled, unlabelled), where, Randomness(3).at(step))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        for buffer, update in loss.updates.items():
            extra.get_buffer(buffer).copy_(update.value)
        if teacher is not None:
            for old, new in zip(teacher.state_dict().values(), pair.state_dict().values(), strict=True):
                old.copy_(torch.lerp(new, old, 0.7) if old.is_floating_point() else new)
        losses.append(loss.total.item())
    return losses


@pytest.mark.parametrize("case", CASES)
def test_trace_is_as_before(case):
    expected = json.loads(FILE.read_text())
    assert case in expected, f"no trace of '{case}' yet: python {Path(__file__).name}"
    np.testing.assert_allclose(trace(case), expected[case], rtol=1e-6, atol=1e-9)


def test_no_trace_is_left_over():
    assert set(json.loads(FILE.read_text())) == set(CASES)


def test_traces_differ_and_fall():
    expected = json.loads(FILE.read_text())
    assert len({tuple(losses) for losses in expected.values()}) == len(expected)
    assert all(losses[-1] < losses[0] for losses in expected.values())


if __name__ == "__main__":
    traces = {case: trace(case) for case in sorted(CASES)}
    FILE.write_text(json.dumps(traces, indent=1) + "\n")
    print(f"wrote {FILE}")
