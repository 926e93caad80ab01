"""Pure tensor functions shared by two or more methods: masked losses, pseudo-labels, alignment, thresholds, energies.

Classes are always dimension 1 and everything else is positions, so that one function serves whole images,
(N, C), and maps, (N, C, H, W). A mask says which positions count; positions it leaves out influence
neither value nor gradient, and where nothing counts a loss is 0 with gradients of 0. Losses are computed
in float32 or better, whatever comes in.
"""

from berunda.losses.consistency import positions_of, squared_error_masked
from berunda.losses.energy import energy, langevin_step, likelihood_gap, restarted
from berunda.losses.latent import bernoulli_log, gaussian_log, kl_to_normal, per_pixel
from berunda.losses.masked import (
    balanced_cross_entropy_masked,
    balancing_weights,
    binary_cross_entropy_masked,
    cross_entropy_masked,
    is_labelled,
    kl_divergence_masked,
    masked_mean,
    ramp_up,
    real,
    smooth_masked,
    soft_cross_entropy_masked,
    supervised_loss,
)
from berunda.losses.patches import normalised_patches, patch_l1, with_contrast_of
from berunda.losses.pseudo import (
    align_distribution,
    class_counts,
    class_means,
    class_shares,
    fixmatch_loss,
    flexible_thresholds,
    join_views,
    probabilities_of,
    pseudo_labels,
    running_distribution,
    sharpen,
    used_shares,
)
from berunda.losses.puzzle import inpainting, jigsaw
from berunda.losses.rebuild import l1, l2, mumford_shah, relaxed_kmeans
from berunda.losses.several import (
    N_LOGIT_BINS,
    believed_presence,
    class_priors,
    has_several,
    logit_shares,
    presence_counts,
    presence_loss,
    prior_thresholds,
)

__all__ = [
    "N_LOGIT_BINS",
    "align_distribution",
    "balanced_cross_entropy_masked",
    "balancing_weights",
    "believed_presence",
    "bernoulli_log",
    "binary_cross_entropy_masked",
    "class_counts",
    "class_means",
    "class_priors",
    "class_shares",
    "cross_entropy_masked",
    "energy",
    "fixmatch_loss",
    "flexible_thresholds",
    "gaussian_log",
    "has_several",
    "inpainting",
    "is_labelled",
    "jigsaw",
    "join_views",
    "kl_divergence_masked",
    "kl_to_normal",
    "l1",
    "l2",
    "langevin_step",
    "likelihood_gap",
    "logit_shares",
    "masked_mean",
    "mumford_shah",
    "normalised_patches",
    "patch_l1",
    "per_pixel",
    "positions_of",
    "presence_counts",
    "presence_loss",
    "prior_thresholds",
    "probabilities_of",
    "pseudo_labels",
    "ramp_up",
    "real",
    "relaxed_kmeans",
    "restarted",
    "running_distribution",
    "sharpen",
    "smooth_masked",
    "soft_cross_entropy_masked",
    "squared_error_masked",
    "supervised_loss",
    "used_shares",
    "with_contrast_of",
]
