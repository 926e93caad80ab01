"""From raw pixels of one window to class, confidence, feature distance and energy of its interior."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from berunda.data.scaling import Scaling, scale_pixels
from berunda.errors import CheckpointError, DataError
from berunda.mapping.bundle import Bundle
from berunda.methods.contract import Method
from berunda.models.device import resolve_device
from berunda.models.fold import fold_batch_norms

__all__ = ["PLANES", "Planes", "Precision", "Predictor", "resolve_precision"]

Precision = Literal["auto", "fp32", "bf16"]
PLANES = (("classes", "u1"), ("confidence", "<f4"), ("distance", "<f4"), ("energy", "<f4"))
"""Names and numpy types of what is predicted for a pixel, in the order in which tiles store them."""


BATCH = 1
BATCH_CUDA = 16
CHUNK_ROWS = 4096


@dataclass(frozen=True)
class Planes:
    """What is predicted for a rectangle of pixels, or for several: each array is (..., rows, cols).

    Attributes:
        classes: uint8, 1..C, 0 where there is no data.
        confidence: float32, calibrated probability of the class shown; NaN where there is no data.
        distance: float32, feature distance to the labelled training data, higher = less alike; NaN likewise.
        energy: float32, -logsumexp of the logits, higher = less alike; NaN likewise.
    """

    classes: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float32]
    distance: npt.NDArray[np.float32]
    energy: npt.NDArray[np.float32]

    @classmethod
    def empty(cls, *shape: int) -> Planes:
        """Return planes of `shape` without data."""
        nan = [np.full(shape, np.nan, np.float32) for _ in range(3)]
        return cls(np.zeros(shape, np.uint8), *nan)

    @classmethod
    def of(cls, arrays: Iterable[npt.NDArray[Any]]) -> Planes:
        """Return planes of arrays in the order of `PLANES`."""
        return cls(*arrays)

    def arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        """Return the arrays in the order of `PLANES`."""
        return self.classes, self.confidence, self.distance, self.energy


class Predictor:
    """Applies a bundle to windows.

    It is a pure function of its input: the same batch of windows gives the same bits. Callers keep batches
    the same whatever the tiling (see `berunda.mapping.plan`): in another batch libraries may add in another
    order.

    Attributes:
        manifest: of the bundle.
        device: where it computes.
        batch: windows that go through the net at once.
        precision: "fp32", or "bf16": net and classifiers in bfloat16, all that follows in float32.
        scaling: low and high of the bands.
    """

    def __init__(self, bundle: Bundle, device: str | torch.device = "cpu", *, precision: Precision = "auto") -> None:
        self.manifest = bundle.manifest
        if self.manifest.task != "segmentation":
            raise DataError(
                f"the bundle's task is {self.manifest.task!r}, expected 'segmentation': only such models draw maps"
            )
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        model = bundle.build(self.device)
        layout = torch.channels_last
        fold_batch_norms(model.net)
        fold_batch_norms(model.extra)
        self._net: Any = model.net.to(dtype=self.dtype).to(memory_format=layout)
        self._extra = model.extra.to(dtype=self.dtype).to(memory_format=layout)
        self._method = model.method
        self.batch = BATCH if self.device.type == "cpu" else BATCH_CUDA
        self._distance = _Distance.of(bundle, self.device)
        self.scaling = Scaling(
            np.array([b.low for b in self.manifest.bands]), np.array([b.high for b in self.manifest.bands])
        )

    def scale(self, values: npt.NDArray[np.floating], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Return raw pixels (B, h, w) as the net sees them, 0 where `valid` (h, w) is False."""
        return scale_pixels(values, valid, *self.scaling)

    @torch.inference_mode()
    def features_and_logits(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, D, h, w) and logits (N, C, h, w), float32, of scaled `pixels` (N, B, h, w).

        Calibration and thresholds are fitted on what this returns, so that they hold for the map.
        """
        decoded, logits = self._answers(pixels, slice(None))
        return decoded.float(), logits

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> Tensor:
        """Return what the method predicts, logits (N, C, h, w), and nothing else: the bare forward pass."""
        given = pixels.to(self.device, self.dtype, memory_format=torch.channels_last)
        return self._method.predict(self._net, self._extra, given)

    @torch.inference_mode()
    def predict(self, pixels: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> Planes:
        """Predict the interiors of a batch of windows.

        Args:
            pixels: (N, B, window_px, window_px) scaled pixels, 0 where invalid.
            valid: (N, window_px, window_px) bool.

        Returns:
            Planes of (N, stride_px, stride_px): the windows without their margins.
        """
        margin = self.manifest.margin_px
        inner = slice(margin, margin + self.manifest.stride_px)
        features, logits = self._answers(torch.from_numpy(pixels), inner)
        top, index = logits.max(1)
        below = logits - top[:, None]
        confidence = 1.0 / (below / self.manifest.calibration.temperature).exp().sum(1)
        energy = -(top + below.exp().sum(1).log())
        distance = self._distance(features) if self._distance else torch.full_like(energy, torch.nan)
        seen = torch.from_numpy(np.ascontiguousarray(valid[:, inner, inner])).to(self.device)
        classes = torch.where(seen, index + 1, 0).to(torch.uint8)
        nan = torch.tensor(torch.nan, device=self.device)
        reals = [torch.where(seen, plane, nan).cpu().numpy() for plane in (confidence, distance, energy)]
        return Planes(classes.cpu().numpy(), *reals)

    def _answers(self, pixels: Tensor, inner: slice) -> tuple[Tensor, Tensor]:
        """Return features, in the net's precision, and float32 logits of the rows and columns `inner`.

        Classifiers that look at single pixels are asked about those alone. Logits lie class by class, where sums
        over classes are fast.
        """
        with _deterministic() if self.device.type == "cuda" else nullcontext():
            given = pixels.to(self.device, self.dtype, memory_format=torch.channels_last)
            decoded = self._net.decode(self._net.encode(given))
            features = _cut(decoded, inner)
            if _is_pixelwise(self._method):
                logits = self._method.classify(self._net, self._extra, _cut(given, inner), features)
            else:
                logits = self._method.classify(self._net, self._extra, given, decoded)[..., inner, inner]
            return features, logits.to(torch.float32, memory_format=torch.contiguous_format)

    def predict_window(self, values: npt.NDArray[np.floating], valid: npt.NDArray[np.bool_]) -> Planes:
        """Predict the interior of one window of raw pixels (B, window_px, window_px) with its `valid`.

        Raises:
            DataError: another number of bands or another size.
        """
        side = self.manifest.window_px
        if valid.shape != (side, side):
            raise DataError(f"a window of {valid.shape} px found, expected ({side}, {side})")
        planes = self.predict(self.scale(values, valid)[None], valid[None])
        return Planes(planes.classes[0], planes.confidence[0], planes.distance[0], planes.energy[0])


class _Distance:
    """The feature distance of `berunda.assess.ood.FeatureDistance`, evaluated in torch over maps of features.

    Whitening moves the middle of the targets to the origin: differences of large squares would otherwise lose
    digits in float32. On the CPU pixels go through in chunks that fit its cache.
    """

    def __init__(self, whitening: Tensor, targets: Tensor, k: int) -> None:
        middle = targets.mean(0)
        self.whitening = whitening.float().contiguous()
        self.bias = -middle.float()
        centred = targets - middle
        self.targets = (-2.0 * centred).float().contiguous()
        self.squares = (centred**2).sum(1).float()[:, None]
        self.k = k

    @classmethod
    def of(cls, bundle: Bundle, device: torch.device) -> _Distance | None:
        """Return the distance layer of `bundle`, or None when it has none."""
        tensors, ood = bundle.part("ood"), bundle.manifest.ood
        if ood is None:
            return None
        whitening, targets = tensors.get("whitening"), tensors.get("targets")
        if whitening is None or targets is None:
            raise CheckpointError("the bundle's manifest has 'ood' but its tensors lack ood.whitening or ood.targets")
        fits = whitening.ndim == targets.ndim == 2 and whitening.shape == (targets.shape[-1],) * 2
        if not fits or not 1 <= ood.k <= len(targets):
            raise CheckpointError(
                f"ood.whitening {tuple(whitening.shape)}, ood.targets {tuple(targets.shape)} and k "
                f"{ood.k} found, expected (D, D), (K, D) and 1 <= k <= K; train the model again"
            )
        return cls(whitening.double().to(device), targets.double().to(device), ood.k)

    def __call__(self, features: Tensor) -> Tensor:
        """Return distances (N, h, w) of `features` (N, D, h, w)."""
        if features.shape[1] != len(self.bias):
            raise CheckpointError(
                f"the net has {features.shape[1]} features, the bundle's distance layer was fitted on {len(self.bias)}"
            )
        rows_ND = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
        n_rows = CHUNK_ROWS if rows_ND.device.type == "cpu" else len(rows_ND)
        parts = [self._of_rows(part.float()) for part in rows_ND.split(n_rows)]
        return torch.cat(parts).view(features.shape[0], *features.shape[2:])

    def _of_rows(self, rows_ND: Tensor) -> Tensor:
        white_ND = torch.addmm(self.bias, rows_ND, self.whitening)
        to_targets_KN = torch.addmm(self.squares, self.targets, white_ND.T)
        nearest = to_targets_KN.amin(0) if self.k == 1 else to_targets_KN.kthvalue(self.k, dim=0).values
        return (nearest + white_ND.square_().sum(1)).clamp_min_(0.0).sqrt_()


def _cut(maps: Tensor, inner: slice) -> Tensor:
    """Return the rows and columns `inner` of (N, C, h, w), densely stored, channels last."""
    return maps[..., inner, inner].contiguous(memory_format=torch.channels_last)


def _is_pixelwise(method: Method) -> bool:
    """Say whether the method classifies decoded features, pixel by pixel, and does not predict from whole windows."""
    kind = type(method)
    return kind.predict is Method.predict or kind.classify is not Method.classify


def resolve_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """Return "fp32" or "bf16"; "auto" takes bfloat16 where the processor computes in it."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() and _has_bf16_unit() else "fp32"


def _has_bf16_unit() -> bool:
    """Say whether the processor multiplies bfloat16 itself; an emulation is slower than float32."""
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return ask is not None and bool(ask())


@contextmanager
def _deterministic() -> Iterator[None]:
    """Let CUDA choose its algorithms without trials and only among deterministic ones, within the block."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
