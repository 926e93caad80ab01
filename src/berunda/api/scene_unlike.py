"""What is measured of a trained net beside its answers: how it tells unlike images, and what images it generates."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from berunda.api.drawn import Drawn
from berunda.api.generate_verb import generative_methods
from berunda.api.scene_fit import SceneFitted, classified
from berunda.api.scene_result import SceneResult
from berunda.assess.classify import N_NEIGHBOURS, Classified, named_ood, ood_figures
from berunda.assess.generation import describer, feature_distances
from berunda.data.images import TEST, TRAIN, ImageSet
from berunda.data.order import Randomness
from berunda.data.resampling import resample_images
from berunda.mapping.bundle import Bundle
from berunda.mapping.patches import ScenePredictor
from berunda.models.encoders import DEFAULT_ENCODER

__all__ = ["Beyond", "sample_figures", "unlike_figures"]


@dataclass(frozen=True)
class Beyond:
    """What a benchmark measures of every net beside agreement and calibration.

    Attributes:
        unlike: sets of images unlike the training ones, by name, as large as the training's.
        n_samples: images that a generative model draws, as many of each class as go; 0 for none.
        encoder: in whose features they are compared with real ones.
    """

    unlike: Mapping[str, ImageSet] = field(default_factory=dict)
    n_samples: int = 0
    encoder: str = DEFAULT_ENCODER

    def setting(self) -> dict[str, Any]:
        """Return what rows of a table must share, {} where nothing is measured."""
        found: dict[str, Any] = {name: images.fingerprint[:16] for name, images in self.unlike.items()}
        return found | ({"n_samples": self.n_samples} if self.n_samples else {})

    def told(self) -> str:
        """Return in words how it is measured, "" where nothing is."""
        told = []
        if self.unlike:
            told.append(
                f"unlike images: {', '.join(self.unlike)}, against test images; kNN: {N_NEIGHBOURS}th nearest of all "
                "training images, Mahalanobis: classes as predicted"
            )
        if self.n_samples:
            told.append(
                f"generated images: up to {self.n_samples} of the classes in turn, against as many test images in "
                f"features of {self.encoder}, and so are training images"
            )
        return "; ".join(told)

    def added_to(self, result: SceneResult, drawn: Drawn) -> SceneResult:
        """Return the result of a trained net with the further figures and their time; that of a floor as it is."""
        if result.fitted is None:
            return result
        start = time.perf_counter()
        figures = unlike_figures(result.fitted.predictor, drawn, result.test, self.unlike) if self.unlike else {}
        figures |= self._of_samples(result.fitted, drawn)
        took = time.perf_counter() - start + sum(images.opening_s for images in self.unlike.values())
        return replace(result, figures=result.figures | figures, wall_s=result.wall_s + took)

    def _of_samples(self, fitted: SceneFitted, drawn: Drawn) -> dict[str, Any]:
        if not self.n_samples or fitted.bundle.manifest.method not in generative_methods():
            return {}
        return sample_figures(fitted.bundle, fitted.predictor, drawn, self.n_samples, self.encoder)


def unlike_figures(
    predictor: ScenePredictor, drawn: Drawn, test: Classified, others: Mapping[str, ImageSet]
) -> dict[str, Any]:
    """Return how well each score tells the images of `others` from test images.

    kNN and Mahalanobis rest on all training images with the classes that the net itself gives them: no label is used
    but those it was trained with.

    Args:
        predictor: of the trained net.
        drawn: its images.
        test: what it makes of the test images.
        others: sets of unlike images, by name.

    Returns:
        "ood": by set and score the figures of `berunda.assess.classify.ood_figures`; and each of them by a name of its
        own, such as "auroc_energy_against_uc_merced".
    """
    seen = classified(predictor, drawn, drawn.unlabelled)
    train = replace(seen, labels=seen.logits.argmax(1))  # the true ones are not the classifier's to know
    found = {}
    for name, images in others.items():
        all_of = replace(drawn, images=images)
        found[name] = ood_figures(train, test, classified(predictor, all_of, np.arange(len(images))))
    return {"ood": found} | named_ood(found)


def sample_figures(
    bundle: Bundle, predictor: ScenePredictor, drawn: Drawn, n: int, encoder: str, seed: int = 0
) -> dict[str, Any]:
    """Return the distances of generated images to real ones, and those of training images as their scale.

    Args:
        bundle: of a method that generates.
        predictor: of the bundle.
        drawn: the images.
        n: images of each side, at least 2 (and at most as many as there are real ones); generated ones are of the
            classes in turn.
        encoder: in whose features.
        seed: of all draws.

    Returns:
        As `SampleDistances.as_metrics`, and with the ending "_of_training" the same of training images.

    Raises:
        DataError: there are fewer than 2 images of a side, or a generated one is not finite.
    """
    rng, model = Randomness(seed), bundle.build(predictor.device)
    sides = [_real(predictor, drawn, part, n, rng) for part in (TEST, TRAIN)]
    labels = torch.arange(min(n, len(sides[0])), device=predictor.device) % len(bundle.manifest.classes)
    generated = model.method.generate(model.net, model.extra, labels, rng).detach().cpu().numpy()
    describe = describer(encoder, generated.shape[1])
    features, real, training = (describe(images) for images in (generated, *sides))
    own, known = (feature_distances(some, real, encoder, seed) for some in (features, training))
    scale = {f"{name}_of_training": value for name, value in known.as_metrics().items() if name.endswith(encoder)}
    return {"samples_encoder": encoder, **own.as_metrics(), **scale}


def _real(predictor: ScenePredictor, drawn: Drawn, part: int, n: int, rng: Randomness) -> np.ndarray:
    """Return `n` images of a part at most, as the net sees them."""
    chosen = rng.numpy("real images", part).permutation(drawn.images.of(part))[:n]
    pixels = torch.from_numpy(drawn.images.scaled(np.sort(chosen), predictor.scaling))
    return resample_images(pixels, predictor.manifest.net.crop_px).numpy()
