"""The recipe of training on images, by kind of encoder: the one place where it is tuned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from berunda.api.scene_fit import Net
from berunda.data.images import ImageSet
from berunda.models.build import check_spec
from berunda.models.encoders import DEIT_WEIGHTS
from berunda.models.spec import NetSpec
from berunda.models.transformer import TRANSFORMERS
from berunda.models.wide_resnet import WIDE_RESNETS
from berunda.options.bench import BenchOptions
from berunda.options.train import TrainOptions
from berunda.train.config import Optimizer, TrainConfig

__all__ = ["SceneRecipe", "check_frozen_stages", "recipe_of"]

_STEPS = {"quick": 300, "standard": 1000, "thorough": 4000}
"""About 2, 8 and 30 minutes with the packaged encoder at 64 px on two cores."""


@dataclass(frozen=True)
class SceneRecipe:
    """How a net is trained on images, whatever the method; a method brings its own ratio of unlabelled images.

    Attributes:
        optimizer: "adamw" or "sgd" (Nesterov, momentum .9).
        learning_rate: peak rate of the head.
        body_rate: factor on it for the encoder.
        weight_decay: decoupled for adamw, L2 for sgd.
        ema_decay: of the averaged model, which is the one that is kept.
        warmup_steps: steps of the linear rise.
        warmup_share: of a training, at most so much of it.
        betas: of adamw, see `TrainConfig`.
        clip_norm: largest norm of the gradient; 0 for no clipping.
        n_labelled: labelled images a step.
        encoder_depth: stages of the encoder in use, 1 to 5.
        frozen_stages: stages of it that keep their pretrained weights, where it has some, on images in colour: others
            have first filters that were never trained on their bands.
        largest_px: larger images are resampled to this side.
        has_weights: whether there are pretrained weights of the encoder at all.
        steps: training steps by effort.
    """

    optimizer: Optimizer = "adamw"
    learning_rate: float = 2e-3
    body_rate: float = 1.0
    weight_decay: float = 1e-4
    ema_decay: float = 0.99
    warmup_steps: int = 20
    warmup_share: float = 0.5
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0
    n_labelled: int = 16
    encoder_depth: int = 5
    frozen_stages: int = 2
    largest_px: int = 128
    has_weights: bool = True
    steps: Mapping[str, int] = field(default_factory=lambda: dict(_STEPS))

    def train_config(self, options: TrainOptions | BenchOptions, *, seed: int, run_key: str = "") -> TrainConfig:
        """Return the loop's settings of one run."""
        return TrainConfig(
            steps=options.steps or self.steps[options.effort],
            n_labelled=self.n_labelled,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup_steps=self.warmup_steps,
            warmup_share=self.warmup_share,
            betas=self.betas,
            ema_decay=self.ema_decay,
            clip_norm=self.clip_norm,
            seed=seed,
            device=options.device,
            optimizer=self.optimizer,
            run_key=run_key,
            rates=() if self.body_rate == 1.0 else (("net.encoder", self.body_rate),),
        )

    def net(self, options: TrainOptions | BenchOptions, images: ImageSet) -> Net:
        """Return the net for `images`."""
        pretrained = options.pretrained and self.has_weights
        frozen = self.frozen_stages if pretrained and len(images.bands) == 3 else 0
        return Net(
            encoder=options.encoder,
            depth=self.encoder_depth,
            pretrained=pretrained,
            image_px=options.image_px or min(max(images.size), self.largest_px),
            frozen_stages=frozen if options.frozen_stages is None else options.frozen_stages,
            symmetries=options.symmetries,
        )


_PRETRAINED = SceneRecipe()
_FROM_SCRATCH = SceneRecipe(
    optimizer="sgd",
    learning_rate=0.03,
    weight_decay=5e-4,
    ema_decay=0.999,
    clip_norm=0.0,
    encoder_depth=2,
    has_weights=False,
)
"""Source: Sohn et al. 2020 (FixMatch), table 4; Castillo-Navarro 2022, section 3.4."""

_TRANSFORMER = SceneRecipe(
    learning_rate=1e-3,
    weight_decay=0.05,
    warmup_steps=100,
    warmup_share=0.1,
    betas=(0.9, 0.95),
    ema_decay=0.995,
    encoder_depth=1,
    frozen_stages=0,
)
"""Source: He et al. 2022 (masked autoencoders), table 8 (pre-training), for decay and betas, which the authors of
SSL-MAE use too; the rate is the base rate of table 9 (fine-tuning), not scaled by the batch (table 8: 1.5e-4 for each
256 images). A warm-up of a tenth at most: runs are of some hundred steps here, not of hundreds of epochs."""


def recipe_of(options: TrainOptions | BenchOptions) -> SceneRecipe:
    """Return the recipe of the encoder, with what the options change of it."""
    base = _FROM_SCRATCH if options.encoder in WIDE_RESNETS else _PRETRAINED
    if options.encoder in TRANSFORMERS:
        base = replace(_TRANSFORMER, has_weights=options.encoder in DEIT_WEIGHTS)
    return replace(
        base,
        n_labelled=options.n_labelled or base.n_labelled,
        learning_rate=options.learning_rate or base.learning_rate,
    )


def check_frozen_stages(options: TrainOptions | BenchOptions) -> None:
    """Refuse stages to freeze that the encoder does not have, or without pretrained weights; no image is needed.

    Raises:
        ConfigError: saying how many there may be.
    """
    recipe = recipe_of(options)
    spec = NetSpec(
        task="scene",
        n_bands=3,
        n_classes=2,
        encoder=options.encoder,
        encoder_depth=recipe.encoder_depth,
        pretrained=options.pretrained and recipe.has_weights,
        frozen_stages=options.frozen_stages or 0,
    )
    check_spec(spec)
