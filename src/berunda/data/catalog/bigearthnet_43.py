"""BigEarthNet with 12 bands of Sentinel-2, and 43 classes."""

from __future__ import annotations

from berunda.data.catalog._bigearthnet import CLASSES_43, BigEarthNetEntry, downloads_of

__all__ = ["BigEarthNet43"]


class BigEarthNet43(BigEarthNetEntry):
    """BigEarthNet, first version, unpacked: 12 bands of Sentinel-2; 43 classes.

    The split is the authors', in three lists of patches beside the folders.
    """

    name = "bigearthnet_43"
    title = "BigEarthNet, Sentinel-2, 43 classes"
    about = "590,326 patches with 12 bands of Sentinel-2, 10 m, 120x120 px, 43 labels"
    downloads = downloads_of("s2")
    sensors = ("s2",)
    classes = CLASSES_43
