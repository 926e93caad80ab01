"""BigEarthNet with 12 bands of Sentinel-2, and 19 classes."""

from __future__ import annotations

from berunda.data.catalog._bigearthnet import CLASSES_19, BigEarthNetEntry, downloads_of

__all__ = ["BigEarthNet"]


class BigEarthNet(BigEarthNetEntry):
    """BigEarthNet, first version, unpacked: 12 bands of Sentinel-2; 19 classes.

    The split is the authors', in three lists of patches beside the folders.
    """

    name = "bigearthnet"
    title = "BigEarthNet, Sentinel-2, 19 classes"
    about = "590,326 patches with 12 bands of Sentinel-2, 10 m, 120x120 px, 19 labels"
    downloads = downloads_of("s2")
    sensors = ("s2",)
    classes = CLASSES_19
