"""Figures that others published, each with its protocol and source, to stand beside what is measured here.

They are never mixed into measured columns: encoders, splits, epochs and the choice of the reported model differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PUBLISHED", "Published", "published_for"]


@dataclass(frozen=True)
class Published:
    """The figures of one method in one source.

    Attributes:
        dataset: catalogue name of the data set, in lower case.
        method: as the source calls it.
        metric: "oa" or "ece" (before any scaling); of several labels "macro_auprc" or "macro_f1" (at 0.5).
        values: fraction of 1 by number of labels per class, or by share of the images that are labelled ("0.05"); "all"
            for all of them.
        protocol: encoder, input and what else decides how the figures compare.
        source: where they are printed.
    """

    dataset: str
    method: str
    metric: str
    values: Mapping[str, float]
    protocol: str
    source: str

    @property
    def is_of_shares(self) -> bool:
        """Whether labels are told as a share of the images, and not as a number per class."""
        return any(labels != "all" and float(labels) < 1 for labels in self.values)


_THESIS = "J. Castillo-Navarro, PhD thesis, 2022"
_THESIS_EUROSAT = "RGB, 64 px, the thesis's own split and training"
_THESIS_LCZ = "RGB, the thesis's own training"
_USB = "Wang et al., USB, NeurIPS 2022"
_USB_EUROSAT = "RGB, ViT-S pretrained, 32 px, best test checkpoint (optimistic)"
_SSL_MAE = "Stoimchev et al., SSL-MAE, IEEE JSTARS 2025, results stored in the authors' repository"
_SSL_MAE_UCMERCED = "17 labels an image, ViT, the authors' own split and training"
_MSMATCH = "Gomez, Meoni, MSMatch, IEEE JSTARS 2021"
_MSMATCH_EUROSAT = "EfficientNet, the paper's own split and training"

_PERCENT: tuple[tuple[str, str, str, str, dict[str, dict[str, float]]], ...] = (
    (
        *("eurosat", "oa", _THESIS_EUROSAT, _THESIS),
        {
            "supervised (Wide-ResNet)": {"1": 28.02, "5": 43.83, "10": 52.33, "20": 62.93, "100": 86.36, "all": 97.56},
            "BerundaNet": {"1": 32.77, "5": 39.80, "10": 46.84, "20": 54.25, "100": 74.78, "all": 96.90},
            "FixMatch (Wide-ResNet)": {"1": 67.46, "5": 94.45, "10": 94.95, "20": 95.78, "100": 97.83, "all": 98.81},
            "JEM (Wide-ResNet)": {"1": 36.86, "5": 54.79, "10": 61.60, "20": 69.11, "100": 86.23, "all": 97.42},
            "FixMatch then JEM (Wide-ResNet)": {"1": 56.78, "5": 82.46, "10": 84.89, "20": 84.96, "100": 85.94},
        },
    ),
    (
        *("eurosat", "oa", _MSMATCH_EUROSAT, _MSMATCH),
        {"MSMatch, RGB": {"5": 94.53}, "MSMatch, 13 bands": {"5": 95.86}},
    ),
    (
        *("eurosat", "oa", _USB_EUROSAT, _USB),
        {
            "supervised": {"2": 73.51, "4": 83.88, "all": 99.06},
            "MixMatch": {"2": 75.15, "4": 82.72},
            "FixMatch": {"2": 86.56, "4": 94.09},
            "best (2: ReMixMatch, 4: DeFixMatch)": {"2": 94.95, "4": 96.28},
        },
    ),
    (
        *("eurosat", "ece", _THESIS_EUROSAT, _THESIS),
        {
            "supervised (Wide-ResNet)": {"10": 43.73, "100": 11.26},
            "FixMatch (Wide-ResNet)": {"10": 49.24, "100": 50.24},
            "JEM (Wide-ResNet)": {"10": 10.22, "100": 6.00},
        },
    ),
    (
        *("ucmerced", "macro_auprc", _SSL_MAE_UCMERCED, _SSL_MAE),
        {
            "SSL-MAE": {"0.01": 39.2, "0.05": 76.4, "0.1": 87.7, "0.25": 93.0},
            "classification only": {"0.01": 37.0, "0.05": 76.7, "0.1": 86.8, "0.25": 92.7},
        },
    ),
    (
        *("ucmerced", "macro_f1", _SSL_MAE_UCMERCED, _SSL_MAE),
        {
            "SSL-MAE": {"0.01": 29.8, "0.05": 60.5, "0.1": 80.6, "0.25": 85.4},
            "classification only": {"0.01": 27.2, "0.05": 33.8, "0.1": 58.6, "0.25": 76.4},
        },
    ),
    (
        *("so2sat", "oa", _THESIS_LCZ, _THESIS),
        {
            "supervised (Wide-ResNet)": {"100": 30.90, "200": 35.45, "1000": 44.17, "all": 50.93},
            "FixMatch (Wide-ResNet)": {"100": 56.51, "200": 60.41, "1000": 61.68, "all": 63.00},
            "JEM (Wide-ResNet)": {"100": 38.71, "200": 42.43, "1000": 48.59, "all": 54.60},
        },
    ),
)
"""As printed: data set, metric, protocol, source; percent by method and labels, see `Published.values`."""

PUBLISHED: tuple[Published, ...] = tuple(
    Published(dataset, method, metric, {n: round(value / 100, 6) for n, value in values.items()}, protocol, source)
    for dataset, metric, protocol, source, methods in _PERCENT
    for method, values in methods.items()
)


def published_for(dataset: str, metric: str) -> tuple[Published, ...]:
    """Return what is known for a data set, by the beginning of its name: "EuroSAT RGB" is "eurosat" too.

    Example:
        >>> [found.method for found in published_for("EuroSAT RGB", "ece")][:2]
        ['supervised (Wide-ResNet)', 'FixMatch (Wide-ResNet)']
    """
    name = _plain(dataset)
    return tuple(p for p in PUBLISHED if p.metric == metric and name.startswith(_plain(p.dataset)))


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
