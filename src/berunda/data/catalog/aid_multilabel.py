"""AID multi-label: 3,000 aerial images of AID with 17 labels.

The layout (`images_tr/<scene>/`, `images_test/<scene>/`, `multilabel.csv` with a first column `IMAGE\\LABEL`) is that
of the authors' download as published code reads it; the numbers of images are those of their page.
"""

from __future__ import annotations

from berunda.data.catalog._labels import TrainTestTable
from berunda.data.catalog.contract import Download

__all__ = ["AIDMultilabel"]


class AIDMultilabel(TrainTestTable):
    """AID multi-label: the authors' folder, unpacked.

    The split is theirs, 2,400 and 600 images; an eighth of the training images validates, stratified.
    """

    name = "aid_multilabel"
    title = "AID multi-label"
    folders = ("aid_multilabel", "AID_multilabel")
    about = "3,000 aerial images in colour, 0.5 to 8 m, 600x600 px, 17 labels"
    licence = (
        "no licence stated, images from Google Earth. Cite Hua et al. 2020, doi:10.1109/TGRS.2019.2963364, and Xia et "
        "al. 2017, doi:10.1109/TGRS.2017.2685945"
    )
    downloads = (Download("AID_multilabel", "https://github.com/Hua-YS/AID-Multilabel-Dataset"),)
