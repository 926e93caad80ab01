"""From raw pixels of one window to class, confidence, feature distance and energy of its interior."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
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
from berunda.models.device import computes_bf16, deterministic, resolve_device
from berunda.models.fold import fold_batch_norms, fuse_activations

__all__ = [
    "LABEL_PLANE",
    "PLANES",
    "DistanceLayer",
    "Planes",
    "Precision",
    "Predictor",
    "resolve_precision",
]

Precision = Literal["auto", "fp32", "bf16"]
PLANES = (("classes", "u1"), ("confidence", "<f4"), ("distance", "<f4"), ("energy", "<f4"))
"""Names and numpy types of what is predicted for a pixel, in the order in which tiles store them."""
LABEL_PLANE = "<f4"
"""Type of the further planes of a map of several labels, one a label."""

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
        probabilities: where a pixel can have several labels, one plane a label: float32, calibrated; NaN likewise. Of
            such maps `classes` is the most probable label, and `confidence` is that of all labels together.
    """

    classes: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float32]
    distance: npt.NDArray[np.float32]
    energy: npt.NDArray[np.float32]
    probabilities: tuple[npt.NDArray[np.float32], ...] = ()

    @classmethod
    def empty(cls, *shape: int, n_labels: int = 0) -> Planes:
        """Return planes of `shape` without data, with `n_labels` planes of probabilities."""
        return cls.of([np.zeros(shape, np.uint8), *(np.full(shape, np.nan, np.float32) for _ in range(3 + n_labels))])

    @classmethod
    def of(cls, arrays: Iterable[npt.NDArray[Any]]) -> Planes:
        """Return planes of arrays in the order of `PLANES`, the probabilities after them."""
        classes, confidence, distance, energy, *probabilities = arrays
        return cls(classes, confidence, distance, energy, tuple(probabilities))

    def arrays(self) -> tuple[npt.NDArray[np.generic], ...]:
        """Return the arrays in the order of `PLANES`, the probabilities after them."""
        return self.classes, self.confidence, self.distance, self.energy, *self.probabilities


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
        for module in (model.net, model.extra):
            fold_batch_norms(module)
            if self.device.type == "cpu":
                fuse_activations(module)
        self._net: Any = model.net.to(dtype=self.dtype).to(memory_format=layout)
        self._extra = model.extra.to(dtype=self.dtype).to(memory_format=layout)
        self._method = model.method
        self.batch = BATCH if self.device.type == "cpu" else BATCH_CUDA
        self._distance = DistanceLayer.of(bundle, self.device)
        self.scaling = Scaling(
            np.array([b.low for b in self.manifest.bands]), np.array([b.high for b in self.manifest.bands])
        )

    def scale(self, values: npt.NDArray[np.floating], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Return raw pixels (B, h, w) as the net sees them, 0 where `valid` (h, w) is False."""
        return scale_pixels(values, valid, *self.scaling)

    @torch.inference_mode()
    def features_and_logits(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, D, h, w) and logits (N, C, h, w), float32, of scaled `pixels` (N, B, h, w).

        Calibration and thresholds are fitted on what this returns, so that they hold for the map. Where features are
        coarser than pixels, each pixel has the features of the cell that it lies in.
        """
        given, decoded = self._decoded(pixels)
        rows, cols = (slice(0, side) for side in pixels.shape[-2:])
        wide = _repeat(decoded.float(), self._net.decoded_stride)
        return wide[..., rows, cols], self._logits(given, decoded, rows, cols)

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
        margin, side = self.manifest.margin_px, self.manifest.stride_px
        inner = slice(margin, margin + side)
        given, decoded = self._decoded(torch.from_numpy(pixels))
        logits = self._logits(given, decoded, inner, inner)
        top, index = logits.max(1)
        below = logits - top[:, None]
        confidence = 1.0 / (below / self.manifest.calibration.temperature).exp().sum(1)
        energy = -(top + below.exp().sum(1).log())
        distance = torch.full_like(energy, torch.nan) if self._distance is None else self._distances(decoded, inner)
        seen = torch.from_numpy(np.ascontiguousarray(valid[:, inner, inner])).to(self.device)
        classes = torch.where(seen, index + 1, 0).to(torch.uint8)
        nan = torch.tensor(torch.nan, device=self.device)
        reals = [torch.where(seen, plane, nan).cpu().numpy() for plane in (confidence, distance, energy)]
        return Planes.of([classes.cpu().numpy(), *reals])

    def _decoded(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the windows as the net takes them and their decoded features."""
        with deterministic() if self.device.type == "cuda" else nullcontext():
            given = pixels.to(self.device, self.dtype, memory_format=torch.channels_last)
            return given, self._net.decode(self._net.encode(given))

    def _logits(self, given: Tensor, decoded: Tensor, rows: slice, cols: slice) -> Tensor:
        """Return float32 logits (N, C, rows, cols) of a part of the windows.

        Classifiers that look at single pixels are asked about that part alone, with the rim that coarser features are
        interpolated from. Logits lie class by class, where sums over classes are fast.
        """
        scale = self._net.decoded_stride
        asked = [slice(0, side) for side in given.shape[-2:]]
        if _is_pixelwise(self._method):
            asked = [_with_rim(part, side, scale) for part, side in zip((rows, cols), given.shape[-2:], strict=True)]
        cells = [slice(part.start // scale, -(-part.stop // scale)) for part in asked]
        with deterministic() if self.device.type == "cuda" else nullcontext():
            logits = self._method.classify(self._net, self._extra, _cut(given, *asked), _cut(decoded, *cells))
        inner = [_relative(part, around.start) for part, around in zip((rows, cols), asked, strict=True)]
        return logits[..., inner[0], inner[1]].to(torch.float32, memory_format=torch.contiguous_format)

    def _distances(self, decoded: Tensor, inner: slice) -> Tensor:
        """Return the feature distance (N, rows, cols) of the cells in which the pixels of `inner` lie."""
        assert self._distance is not None
        scale = self._net.decoded_stride
        cells = slice(inner.start // scale, -(-inner.stop // scale))
        wide = _repeat(self._distance(_cut(decoded, cells, cells))[:, None], scale)[:, 0]
        inside = _relative(inner, cells.start * scale)
        return wide[:, inside, inside]

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


class DistanceLayer:
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
    def of(cls, bundle: Bundle, device: torch.device) -> DistanceLayer | None:
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


def _repeat(maps: Tensor, times: int) -> Tensor:
    """Return (N, C, h, w) with every value `times` in each direction."""
    return maps if times == 1 else maps.repeat_interleave(times, -2).repeat_interleave(times, -1)


def _with_rim(part: slice, side: int, scale: int) -> slice:
    """Return `part` grown to whole cells and, where features are coarser than pixels, by one more on each end."""
    rim = scale if scale > 1 else 0
    return slice(max(0, part.start // scale * scale - rim), min(side, -(-part.stop // scale) * scale + rim))


def _relative(part: slice, start: int) -> slice:
    return slice(part.start - start, part.stop - start)


def _cut(maps: Tensor, rows: slice, cols: slice) -> Tensor:
    """Return some rows and columns of (N, C, h, w), densely stored, channels last."""
    return maps[..., rows, cols].contiguous(memory_format=torch.channels_last)


def _is_pixelwise(method: Method) -> bool:
    """Say whether the method classifies decoded features, pixel by pixel, and does not predict from whole windows."""
    kind = type(method)
    return kind.predict is Method.predict or kind.classify is not Method.classify


def resolve_precision(precision: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """Return "fp32" or "bf16"; "auto" takes bfloat16 where the processor computes in it."""
    if precision != "auto":
        return precision
    return "bf16" if computes_bf16(device) else "fp32"
