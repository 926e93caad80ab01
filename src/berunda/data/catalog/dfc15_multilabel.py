"""DFC15 multi-label: 3,342 aerial images at 5 cm with 8 labels, cut from the data of the 2015 fusion contest.

The layout (`images_tr/`, `images_test/`, `multilabel.csv` with a first column `IMAGE\\LABEL`) is that of the authors'
download as published code reads it; the numbers of images are those of their page.
"""

from __future__ import annotations

from berunda.data.catalog._labels import TrainTestTable
from berunda.data.catalog.contract import Download

__all__ = ["DFC15Multilabel"]


class DFC15Multilabel(TrainTestTable):
    """DFC15 multi-label: the authors' folder, unpacked.

    The split is theirs, 2,673 and 669 images; an eighth of the training images validates, stratified.
    """

    name = "dfc15_multilabel"
    title = "DFC15 multi-label"
    folders = ("dfc15_multilabel", "DFC15_multilabel")
    about = "3,342 aerial images in colour, 0.05 m, 600x600 px, 8 labels"
    licence = (
        "terms of the IEEE GRSS data fusion contest 2015 (research). Cite Hua et al. 2019, "
        "doi:10.1016/j.isprsjprs.2019.01.015"
    )
    downloads = (Download("DFC15_multilabel.zip", "https://github.com/Hua-YS/DFC15-Multilabel-Dataset"),)
