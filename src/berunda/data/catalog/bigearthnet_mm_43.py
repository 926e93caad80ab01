"""BigEarthNet with 2 bands of Sentinel-1 and 12 of Sentinel-2, and 43 classes."""

from __future__ import annotations

from berunda.data.catalog._bigearthnet import CLASSES_43, BigEarthNetEntry, downloads_of

__all__ = ["BigEarthNetMM43"]


class BigEarthNetMM43(BigEarthNetEntry):
    """BigEarthNet, first version, unpacked: 2 bands of Sentinel-1 and 12 of Sentinel-2; 43 classes.

    The split is the authors', in three lists of patches beside the folders.
    """

    name = "bigearthnet_mm_43"
    title = "BigEarthNet, Sentinel-1 and 2, 43 classes"
    about = "590,326 patches with 2 bands of Sentinel-1 and 12 of Sentinel-2, 10 m, 120x120 px, 43 labels"
    downloads = downloads_of("s1", "s2")
    sensors = ("s1", "s2")
    classes = CLASSES_43
