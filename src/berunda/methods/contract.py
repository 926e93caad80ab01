"""The contract between a method and everything else: a method is hyper-parameters and three functions.

A method file defines one frozen dataclass that derives from `Method`. It declares what it needs, builds
the parts it adds to the net, and turns a batch into a loss. The loop owns the optimizer, devices, the
teacher, checkpoints, logging and randomness, so that a method is arithmetic and nothing else.

Axis order is (sample, band or class, row, col) everywhere. A label of -1 is unlabelled and never enters a
loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from berunda.augment.geometry import Geometry
from berunda.data.order import Randomness
from berunda.errors import ConfigError
from berunda.methods._settings import fault_of, same_setting, setting
from berunda.models.spec import Decoder, NetSpec, Task

__all__ = [
    "IGNORE",
    "Batch",
    "BufferUpdate",
    "Images",
    "Loss",
    "Method",
    "Needs",
    "NetSpec",
    "SplitNet",
    "Stage",
    "Step",
    "Surveyed",
    "Task",
    "View",
    "same_setting",
    "setting",
    "zero_like",
]

IGNORE = -1
"""The label of a pixel or image that carries none."""


class SplitNet(Protocol):
    """The parts of the house's nets, `net(x) = restore(classify(decode(encode(x))), x)`; cast to it to use them."""

    feature_dim: int
    """Channels D of what `decode` returns."""
    decoded_stride: int
    """Pixels a side that one of the decoded features stands for."""
    pixel_dim: int
    """Channels of them, the last ones, that come of the pixels past encoder and decoder; 0 without a pixel path."""

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Return `pixels` (N, B, H, W), then their features, fine to coarse."""

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return decoded features (N, D, h, w), `decoded_stride` times coarser than pixels; (N, D) of whole images."""

    def classify(self, decoded: Tensor) -> Tensor:
        """Return logits of decoded features, at their resolution."""

    def restore(self, maps: Tensor, pixels: Tensor) -> Tensor:
        """Return `maps` of the decoded features' resolution at that of `pixels`, which they were made of."""

    def second_decoder(self, n_out: int) -> nn.Module:
        """Return a decoder with weights of its own, to `n_out` maps: it offers all but `encode`. Nets for maps only."""


@dataclass(frozen=True)
class View:
    """One way in which the images of a stream are shown to a method.

    Attributes:
        name: the key under which the batch carries it.
        recipe: a name in `berunda.augment.views.RECIPES`: "identity", "weak", "medium", "strong".
        like: name of an earlier view of the same stream whose geometry this view shares pixel by pixel; the
            recipe then adds only its photometric part. None draws a geometry of its own. Where labels are of whole
            images nothing has to agree by pixels, and every view draws its own.
        strength: factor on the recipe's photometric part, at least 0.
    """

    name: str
    recipe: str
    like: str | None = None
    strength: float = 1.0


@dataclass(frozen=True)
class Needs:
    """What a method asks the loop for.

    Attributes:
        tasks: the tasks it serves.
        labelled: views of the labelled images.
        unlabelled: views of the unlabelled images; empty when it uses none.
        unlabelled_ratio: unlabelled images for each labelled one (mu).
        teacher: whether the loop keeps an exponential moving average of net and extra and hands it to `loss`.
        encoder: "any", or the kind of encoder it cannot do without ("vit").
        labelled_passes: how many forward and backward image passes one labelled image costs, above 0; a forward-only
            pass of it counts a third, and one of a part of its patches about that part.
        forward_passes: how many forward-only image passes one unlabelled image costs (the teacher's views).
        trained_passes: how many forward and backward image passes one unlabelled image costs.
        parameter_groups: learning-rate factor by prefix of the parameter's name ("net.encoder": 0.1); the
            loop applies the first prefix that matches, 1 elsewhere.
        rate: factor on the learning rate of all parameters, above 0, over that of their group.
        clip_norm: largest norm of the gradient (of each player), unless the recipe's is smaller; 0 for the recipe's.
        decoder: the net's decoder for maps where the user names none.
        surveys: how often in a stage the averaged model is shown every image of both streams, for `Method.survey`; the
            first time before the first step, then at even distances.
        first_survey_px: side to which smaller images are enlarged the first time, where the net still is as its
            pretraining on larger images left it; 0 for as they are.
        sharpness_rho: radius of sharpness-aware minimisation, 0 for none.
        watched: terms of the loss that may not run away either, though their sum stays where it is; each with the
            factor on its first level (at least 1) by which it may move.
        bounds: terms of the loss that may not stay large, each with the limit of its magnitude over 20 steps.
        players: prefixes of parameters' names whose gradient is clipped apart from that of all others.
        returns: how often a run that diverged may go back to its last good checkpoint, with smaller steps.
    """

    tasks: tuple[Task, ...]
    labelled: tuple[View, ...] = (View("weak", "weak"),)
    unlabelled: tuple[View, ...] = ()
    unlabelled_ratio: float = 0.0
    teacher: bool = False
    encoder: str = "any"
    labelled_passes: float = 1.0
    forward_passes: float = 0.0
    trained_passes: float = 0.0
    parameter_groups: tuple[tuple[str, float], ...] = ()
    rate: float = 1.0
    clip_norm: float = 0.0
    decoder: Decoder = "slim"
    surveys: int = 0
    first_survey_px: int = 0
    sharpness_rho: float = 0.0
    watched: tuple[tuple[str, float], ...] = ()
    bounds: tuple[tuple[str, float], ...] = ()
    players: tuple[str, ...] = ()
    returns: int = 0


@dataclass(frozen=True)
class Images:
    """One view of one stream.

    Attributes:
        pixels: (N, B, H, W) float, standardised by the scaling of the data (about zero mean and unit range).
        valid: (N, H, W) bool, False where there is no data; such pixels enter no loss.
        labels: segmentation (N, H, W) int64, scene (N,) int64, multilabel (N, C) float with NaN for
            unknown; -1 is unlabelled; None for the unlabelled stream.
        geometry: how this view lies on the original image, with `apply` and `inverse`.
        index: (N,) int64 index of each sample in its stream.
    """

    pixels: Tensor
    valid: Tensor
    labels: Tensor | None
    geometry: Geometry
    index: Tensor


@dataclass(frozen=True)
class Batch:
    """The views that a method asked for, by name, for the labelled and the unlabelled stream."""

    labelled: Mapping[str, Images]
    unlabelled: Mapping[str, Images] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """Where in the training this batch stands.

    Attributes:
        index: step, from 0.
        total: number of steps of the stage.
        teacher: the averaged copy of net and extra (eval mode, no gradient), with attributes `net` and
            `extra`; None unless asked for.
        before: in the second pass of sharpness-aware minimisation, what the first one gave for this very batch; a
            method may take from its updates what does not have to be made anew. None in every other pass.
    """

    index: int
    total: int
    teacher: nn.Module | None = None
    before: Loss | None = None

    @property
    def progress(self) -> float:
        """Share of the stage that is done, 0 at the first step, below 1 at the last."""
        return self.index / max(1, self.total)


@dataclass(frozen=True)
class Surveyed:
    """What the averaged model makes of every image of a stream, in the stream's order, without any random view.

    Attributes:
        features: (N, D) float32, the means of the encoder's last stages (at most three), one after the other.
        logits: (N, C) float32; of a net that was not trained yet they say nothing.
        labels: (N,) int64, or (N, C) real with NaN for what is not known; None for the unlabelled stream.
        twins: of the labelled stream (N,) int64: where the image stands in the unlabelled stream, which may hold the
            labelled ones too; -1 where it does not. None for the unlabelled stream.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor | None
    twins: Tensor | None = None


@dataclass(frozen=True)
class BufferUpdate:
    """A new value for a buffer of `extra`, and how ranks agree on it.

    Attributes:
        value: the new value, from this rank's slice of the batch. What `berunda.losses` counts and averages is of the
            whole batch already.
        reduction: "mean" averages the values of the ranks; "sum" adds them up, so a value holds only what its own
            images contribute; "per_rank" leaves each rank its own (a replay buffer), which is checkpointed as a shard.
    """

    value: Tensor
    reduction: Literal["mean", "sum", "per_rank"] = "mean"


@dataclass(frozen=True)
class Loss:
    """What `Method.loss` returns.

    Attributes:
        total: scalar with gradient.
        terms: named scalars for the log, detached; each is finite or the run stops and names it.
        updates: new values of buffers of `extra` by name; written by the loop after the finite check and
            the step.
    """

    total: Tensor
    terms: Mapping[str, Tensor]
    updates: Mapping[str, BufferUpdate] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Attributes:
        name: shown in logs.
        share: share of the steps, all stages adding up to 1.
        labels: "given", or "predicted" (by the model that the stage before ended with).
        method: name of the method that supplies the loss of this stage; None for the method itself.
        options: hyper-parameters of that method that differ from its defaults.
    """

    name: str
    share: float
    labels: Literal["given", "predicted"] = "given"
    method: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method(ABC):
    """Base of all methods: derive a frozen dataclass whose fields are the hyper-parameters.

    A field is declared with `setting(...)`, which carries its documentation; the command line, the
    documentation page and the configuration schema are derived from it, and values outside its range are
    refused.

    Three functions make a method: `needs`, `init`, `loss`. `build` and `predict` have defaults that most
    methods keep.
    """

    name: ClassVar[str]
    """The name by which it is called, equal to its file's name."""

    def __post_init__(self) -> None:
        """Refuse values outside their ranges, all of them in one error.

        Raises:
            ConfigError: naming each option with what was found and expected.
        """
        faults = [fault for item in fields(self) if (fault := fault_of(item, getattr(self, item.name)))]
        if faults:
            raise ConfigError(f"method '{self.name}': " + "; ".join(faults))

    @abstractmethod
    def needs(self) -> Needs:
        """Return what the method asks the loop for."""

    @abstractmethod
    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return the extra parts (decoders, running thresholds); an empty `nn.Module()` for none."""

    @abstractmethod
    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return the loss of one batch; no optimizer, device, file, log or global random number.

        Of several ranks each calls it on an equal slice of the batch with the same `rng`, and the gradients are
        averaged. A loss of the means in `berunda.losses`, or of plain means over the slice, is then that of the whole
        batch. Which of those means are taken must not depend on the values of the images, or ranks wait for each other.
        """

    def build(self, spec: NetSpec) -> nn.Module:
        """Return the net to train; by default the house's net for the task."""
        from berunda.models.build import build_net

        return build_net(spec)

    def predict(self, net: nn.Module, extra: nn.Module, pixels: Tensor) -> Tensor:
        """Return logits for `pixels` (N, B, H, W); by default what the net says."""
        del extra
        return net(pixels)

    def classify(self, net: nn.Module, extra: nn.Module, pixels: Tensor, decoded: Tensor) -> Tensor:
        """Return what `predict` returns, from features that the net has decoded of `pixels` already.

        Mapping needs the features too, and asks here so that the net runs once. A method with a `predict` of its own
        that rests on the net's features overrides both. Whoever overrides it answers each pixel on its own: mapping
        shows it the inner part of a window alone.
        """
        if type(self).predict is not Method.predict:
            return self.predict(net, extra, pixels)
        parts = cast(SplitNet, net)
        return parts.restore(parts.classify(decoded), pixels)

    def generate(self, net: nn.Module, extra: nn.Module, labels: Tensor, rng: Randomness) -> Tensor:
        """Return an image (N, B, side, side) of each class of `labels` (N,) int64, scaled as those of the training.

        However many are asked for: a method makes some at a time. What is asked for at once has no repeats.

        Raises:
            ConfigError: the method generates none.
        """
        del net, extra, labels, rng
        raise ConfigError(f"method {self.name!r}: generates no images")

    def survey(self, extra: nn.Module, labelled: Surveyed, unlabelled: Surveyed, step: Step) -> Mapping[str, Tensor]:
        """Return new values of buffers of `extra` from what the averaged model makes of all images.

        Called as often as `Needs.surveys` says. It may take its time: it is not part of a step.
        """
        del extra, labelled, unlabelled, step
        return {}

    def calmed(self, extra: nn.Module) -> Mapping[str, Tensor]:
        """Return new values of buffers of `extra` (step sizes) with which a run that diverged goes on.

        Called each time it went back, see `Needs.returns`; the loop lowers the learning rate itself.
        """
        del extra
        return {}

    def has_density(self) -> bool:
        """Say whether training makes logsumexp of the logits, the negative energy, log p(x) up to a constant."""
        return False

    def can_fill(self) -> bool:
        """Say whether a bundle of this method can guess pixels from those around them, by `fill`."""
        return False

    def fill(self, net: nn.Module, extra: nn.Module, pixels: Tensor, known: Tensor, rng: Randomness) -> Tensor:
        """Return (N, B, H, W): `pixels` where they are `known`, guesses of them elsewhere.

        Args:
            net: the net.
            extra: the parts that the bundle keeps beside it.
            pixels: (N, B, H, W) scaled; values that are not known may be anything and are not looked at.
            known: (N, H, W) bool.
            rng: of the draws, where guesses are drawn.

        Returns:
            NaN in images of which too little is known to say anything.

        Raises:
            ConfigError: the method cannot.
        """
        del net, extra, pixels, known, rng
        raise ConfigError(f"method '{self.name}': cannot fill gaps; ask one whose can_fill() says so")

    def hidden_share(self) -> float:
        """Return the share of an image that training hides and has guessed; 0 of a method that hides nothing."""
        return 0.0

    def rebuild(self, net: nn.Module, extra: nn.Module, pixels: Tensor, known: Tensor, rng: Randomness) -> Tensor:
        """Return what `fill` returns, for pictures of what the model makes of hidden parts.

        Other than there all pixels hold data, and a method that guesses without brightness takes it from them.
        Asked of methods with a `hidden_share`.
        """
        return self.fill(net, extra, pixels, known, rng)

    def kept(self) -> tuple[str, ...]:
        """Names of the modules that a bundle keeps: "net", or "net" and "extra"."""
        return ("net",)

    def with_follower_options(self, follower: str, options: Mapping[str, Any]) -> Method:
        """Return the method with hyper-parameters of the one that goes on after it, given as `follower.name`.

        Raises:
            ConfigError: by default there is none.
        """
        found = ", ".join(f"{follower}.{name}" for name in options)
        raise ConfigError(f"method '{self.name}': option {found} is unknown; no other method goes on after it")

    def stages(self) -> tuple[Stage, ...]:
        """Parts of the training in order; by default one."""
        return (Stage(name=self.name, share=1.0),)


def zero_like(reference: Tensor) -> Tensor:
    """Return a scalar zero on the device and in the type of `reference`, for an absent stream."""
    return torch.zeros((), device=reference.device, dtype=reference.dtype)
