"""Architectures: where the auxiliary task leaves the net, how many nets there are, and which decoder they have."""

from __future__ import annotations

from berunda.bench.suite import Arm, Suite

__all__ = ["SUITE"]

_NETS = (("unet", ""), ("slim", ""), ("segnet", "vgg16_bn"))
"""Decoders, each with its encoder where it has one of its own. Weights for that are fetched; where they cannot be had,
or with --no-pretrained, those nets start from random ones, and their rows say so."""

SUITE = Suite(
    name="architectures",
    about="early, late and W-Net forms of berunda, U-Net, slim decoder and SegNet (tables 3.2 and 3.3), by --data",
    dataset="",
    methods=(),
    labels=(),
    task="segmentation",
    arms=(
        *(Arm("supervised", decoder=decoder, encoder=encoder) for decoder, encoder in _NETS),
        *(
            Arm("berunda", {"aux": aux, "split": form}, decoder=decoder, encoder=encoder)
            for decoder, encoder in _NETS[::2]
            for form in ("early", "late")
            for aux in ("l1", "kmeans")
        ),
        *(
            Arm("wnet", {"aux": aux}, decoder=decoder, encoder=encoder)
            for decoder, encoder in _NETS[::2]
            for aux in ("l1", "kmeans")
        ),
    ),
    mask_labels=("4",),
)
"""Source: Castillo-Navarro 2022, section 3.2, tables 3.2 and 3.3."""
