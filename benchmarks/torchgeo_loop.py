"""How torchgeo maps a scene: the loop of its documentation, as the anchor of `benchmarks/mapping.py`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

__all__ = ["torchgeo_mpx_per_s", "torchgeo_version"]

WINDOW_PX, STRIDE_PX, BATCH = 256, 192, 8


def torchgeo_version() -> str | None:
    """Return the version of torchgeo, None where it is not installed."""
    try:
        import torchgeo.samplers
    except ImportError:
        return None
    import torchgeo

    return str(torchgeo.__version__)


@torch.inference_mode()
def torchgeo_mpx_per_s(path: Path, n_bands: int, n_classes: int, max_batches: int) -> float:
    """Return scene megapixels a second: windows of 256 px at stride 192, U-Net, bfloat16, argmax, nothing written.

    Args:
        path: the scene.
        n_bands: of the scene.
        n_classes: of the net, whose weights are random.
        max_batches: so many batches of 8 windows are timed, after two for warming up.
    """
    import segmentation_models_pytorch as smp
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    class Scene(RasterDataset):
        filename_glob = "*.tif"
        is_image = True

    scene = Scene(str(path))
    sampler = GridGeoSampler(scene, size=WINDOW_PX, stride=STRIDE_PX)
    loader: Any = DataLoader(scene, batch_size=BATCH, sampler=sampler, collate_fn=stack_samples)
    net = smp.Unet("tu-tf_efficientnet_lite0", encoder_weights=None, in_channels=n_bands, classes=n_classes)
    net = net.eval().to(dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    n_windows, start = 0, 0.0
    for number, batch in enumerate(loader):
        if number == 2:
            n_windows, start = 0, time.perf_counter()
        pixels = (batch["image"] / 3000.0).to(torch.bfloat16, memory_format=torch.channels_last)
        net(pixels).argmax(1).to(torch.uint8)
        n_windows += len(pixels)
        if number == max_batches + 1:
            break
    return n_windows * STRIDE_PX**2 / 1e6 / (time.perf_counter() - start)
