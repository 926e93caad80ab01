"""Small folders of images and bundles for whole images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from berunda.assess.ood import FeatureDistance
from berunda.mapping.bundle import Bundle, current_versions, make_tensors
from berunda.mapping.manifest import BandScale, Calibration, ClassEntry, Manifest, NetSettings, Ood, Training
from berunda.methods import make_method
from berunda.models.build import build_net
from berunda.models.spec import NetSpec

CLASSES = ("bright", "dark", "striped")
COLORS = ("#1b9e77", "#d95f02", "#7570b3")


def toy_image(kind: str, seed: int, side: int = 16) -> np.ndarray:
    """Return (side, side, 3) uint8: a class is told by its brightness, or by stripes."""
    draw = np.random.default_rng(seed)
    base = {"bright": 200, "dark": 40, "striped": 120}[kind]
    image = np.full((side, side, 3), base) + draw.integers(-25, 25, (side, side, 3))
    if kind == "striped":
        image[::2] -= 90
    return image.clip(0, 255).astype(np.uint8)


def write_folder(
    root: Path, per_class: int = 10, *, side: int = 16, n_unlabelled: int = 0, classes: Sequence[str] = CLASSES
) -> Path:
    """Write PNGs, one folder a class and perhaps `unlabelled/`; return the folder."""
    for number, kind in enumerate(classes):
        (root / kind).mkdir(parents=True)
        for i in range(per_class):
            Image.fromarray(toy_image(kind, 100 * number + i, side)).save(root / kind / f"{kind}_{i}.png")
    for i in range(n_unlabelled):
        (root / "unlabelled").mkdir(exist_ok=True)
        kind = classes[i % len(classes)]
        Image.fromarray(toy_image(kind, 1000 + i, side)).save(root / "unlabelled" / f"u{i}.png")
    return root


def write_labelled_table(root: Path, n: int = 40) -> Path:
    """Write images that are bright or dark, and striped or not; the table has a column for bright and for striped."""
    root.mkdir()
    lines = ["file,bright,striped"]
    for i in range(n):
        bright, striped = i % 2, (i // 2) % 2
        pixels = toy_image("bright" if bright else "dark", i).astype(int)
        pixels[::2] -= 60 * striped
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{i}.png")
        unknown = i % 10 == 3
        lines.append(f"{i}.png,{bright},{'' if unknown else striped}")
    (root / "table.csv").write_text("\n".join(lines))
    return root / "table.csv"


def scene_bundle(
    *,
    task: Any = "scene",
    bands: Sequence[str] = ("red", "green", "blue"),
    window_px: int = 16,
    crop_px: int = 32,
    with_ood: bool = True,
    high: float = 255.0,
) -> Bundle:
    """Return a bundle for whole images of the house's net with random weights, encoder depth 2."""
    spec = NetSpec(task, len(bands), len(CLASSES), encoder_depth=2, pretrained=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = build_net(spec).train()
        for _ in range(3):
            net(torch.randn(4, len(bands), 32, 32))  # running statistics other than the initial ones
    net.eval()
    draw = np.random.default_rng(3)
    labels = draw.integers(0, len(CLASSES), 200)
    distance = FeatureDistance.fit(draw.normal(size=(200, net.feature_dim)) + labels[:, None], labels)
    arrays = distance.as_arrays() if with_ood else None
    manifest = Manifest(
        task=task,
        method="supervised",
        encoder=spec.encoder,
        net=NetSettings(encoder_depth=2, crop_px=crop_px),
        bands=tuple(BandScale(name=name, low=0.0, high=high) for name in bands),
        classes=tuple(ClassEntry(id=i + 1, name=CLASSES[i], color=COLORS[i]) for i in range(len(CLASSES))),
        window_px=window_px,
        margin_px=0,
        calibration=Calibration(temperature=1.5, is_fitted=True, n_pixels=60, n_groups=60),
        ood=Ood(kind="mahalanobis", threshold=9.5, threshold_energy=-0.5, n_pixels=60) if with_ood else None,
        training=Training(seed=0, steps=3),
        versions=current_versions(),
    )
    return Bundle(manifest, make_tensors(make_method("supervised", {}), net, torch.nn.Module(), arrays))


def mae_bundle(task: Any = "scene", crop_px: int = 16, window_px: int = 16, **options: Any) -> Bundle:
    """Return a bundle of ssl_mae with random weights and patches of 8 px, of images with bands red, green, blue."""
    spec = NetSpec(task, 3, len(CLASSES), "vit_mini_patch8", 1, pretrained=False, crop_px=crop_px)
    return method_bundle("ssl_mae", spec, window_px, **options)


def drawing_bundle(name: str, window_px: int = 16, **options: Any) -> Bundle:
    """Return a bundle of a method that draws images, with random weights, of images of 16 px like `mae_bundle`'s."""
    task: Any = "segmentation" if name in ("hvae", "segjem") else "scene"
    encoder = "efficientnet_lite0" if task == "segmentation" else "wide_resnet10_1_no_norm"
    spec = NetSpec(task, 3, len(CLASSES), encoder, 2, pretrained=False, crop_px=16, decoder="slim")
    small = {"vae": {"latent": 4, "width": 4}, "hvae": {"width": 8}}.get(name, {"variant": "sada", "replay": 8})
    return method_bundle(name, spec, window_px, **(small | options))


def method_bundle(name: str, spec: NetSpec, window_px: int = 16, **options: Any) -> Bundle:
    """Return a bundle of a method with random weights, of images with bands red, green, blue."""
    method = make_method(name, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = method.build(spec)
        extra = method.init(net, spec)
    changes = {
        "task": spec.task,
        "method": name,
        "method_options": options,
        "encoder": spec.encoder,
        "net": NetSettings(encoder_depth=spec.encoder_depth, crop_px=spec.crop_px, decoder=spec.decoder),
        "ood": None,
    }
    manifest = scene_bundle(with_ood=False, window_px=window_px).manifest.model_copy(update=changes)
    return Bundle(manifest, make_tensors(method, net, extra))
