"""BigEarthNet with 2 bands of Sentinel-1, and 19 classes."""

from __future__ import annotations

from berunda.data.catalog._bigearthnet import CLASSES_19, BigEarthNetEntry, downloads_of

__all__ = ["BigEarthNetS1"]


class BigEarthNetS1(BigEarthNetEntry):
    """BigEarthNet, first version, unpacked: 2 bands of Sentinel-1; 19 classes.

    The split is the authors', in three lists of patches beside the folders.
    """

    name = "bigearthnet_s1"
    title = "BigEarthNet, Sentinel-1, 19 classes"
    about = "590,326 patches with 2 bands of Sentinel-1, 10 m, 120x120 px, 19 labels"
    downloads = downloads_of("s1")
    sensors = ("s1",)
    classes = CLASSES_19
