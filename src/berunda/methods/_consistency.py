"""What the consistency methods have in common: their views, one forward pass, who labels, and what is logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.errors import ConfigError
from berunda.methods.contract import Batch, BufferUpdate, Images, Method, Needs, Step, Task, View
from berunda.models.device import computes_bf16

__all__ = [
    "answers",
    "carried",
    "needs_of_strong",
    "running",
    "taught",
    "terms_of",
    "unlabelled_views",
    "updates_of",
    "used_terms",
]


def needs_of_strong(
    mu: float, q_from: str, strength: float, *, tasks: tuple[Task, ...] = ("scene",), like: str | None = None
) -> Needs:
    """Return the needs of a method that labels a weak view and trains on a strong one.

    Args:
        mu: unlabelled images for each labelled one.
        q_from: "teacher" or "student".
        strength: factor on the photometric changes of the strong view.
        tasks: the tasks it serves.
        like: the view whose geometry the strong one shares; None for one of its own.
    """
    is_taught = q_from == "teacher"
    return Needs(
        tasks=tasks,
        unlabelled=(View("weak", "weak"), View("strong", "strong", like=like, strength=strength)),
        unlabelled_ratio=mu,
        teacher=is_taught,
        forward_passes=1.0 if is_taught else 0.0,
        trained_passes=1.0 if is_taught else 2.0,
    )


def unlabelled_views(batch: Batch, *names: str) -> list[Images]:
    """Return the unlabelled views of these names, views of no images where there is no such stream."""
    labelled = next(iter(batch.labelled.values()))
    nothing = Images(
        labelled.pixels[:0], labelled.valid[:0], None, labelled.geometry.select(_none(labelled)), labelled.index[:0]
    )
    return [batch.unlabelled.get(name, nothing) for name in names]


def answers(
    method: Method,
    nets: tuple[nn.Module, nn.Module],
    step: Step,
    shown: Sequence[Tensor],
    weak: Tensor,
    *,
    regressed: bool = False,
) -> tuple[list[Tensor], Tensor]:
    """Return the net's logits of all that is `shown`, in one forward pass, and the logits that label `weak`.

    Args:
        method: with a teacher among its needs, the teacher labels; else the net itself, in the same pass.
        nets: net and extra.
        step: holds the teacher.
        shown: images (N_i, B, H, W) to train on.
        weak: images (M, B, H, W) to label.
        regressed: the labels are numbers to come close to, not a choice: a teacher computes them in the precision
            of the training, and not in bfloat16, which takes half the time where the processor does it itself.

    Returns:
        Logits of each of `shown`; logits of `weak` without gradient.
    """
    parts = list(shown)
    is_taught = method.needs().teacher and weak.shape[0] > 0
    if not is_taught:
        parts.append(weak)
    logits = list(method.predict(*nets, torch.cat(parts)).split([x.shape[0] for x in parts]))
    if not is_taught:
        guess = logits.pop().detach()
    elif regressed or not computes_bf16(weak.device):
        guess = taught(method, step, weak)
    else:
        with torch.autocast(weak.device.type, torch.bfloat16):
            guess = taught(method, step, weak).to(weak.dtype)
    return logits, guess


@torch.no_grad()
def taught(method: Method, step: Step, pixels: Tensor) -> Tensor:
    """Return the teacher's logits.

    Raises:
        ConfigError: there is no teacher.
    """
    if step.teacher is None:
        raise ConfigError(f"method '{method.name}': found no teacher, expected one with q_from=teacher")
    teacher: Any = step.teacher
    return method.predict(teacher.net, teacher.extra, pixels)


def carried(maps: Tensor, start: Images, end: Images) -> tuple[Tensor, Tensor]:
    """Carry what was said of the view `start` to the view `end` of the same images.

    Args:
        maps: (N, C, H, W) real, which turn and shift with the pixels, or (N, C), which do not.
        start: the view that `maps` describe.
        end: the view that they shall describe.

    Returns:
        The maps, and the positions (N, H, W) or (N,) that lie on data in both views.
    """
    if maps.ndim == 2:
        return maps, losses.positions_of(start.valid, maps) & losses.positions_of(end.valid, maps)
    original, shown = start.geometry.inverse(maps), start.geometry.inverse(start.valid)
    return end.geometry.apply(original), end.geometry.apply(shown) & end.valid


def running(extra: nn.Module, name: str, new: Tensor, step: Step, decay: float) -> Tensor:
    """Return the running mean in the buffer `name` of `extra`, moved towards what this batch shows."""
    return losses.running_distribution(extra.get_buffer(name), new, step.index, decay)


def terms_of(**terms: Tensor) -> dict[str, Tensor]:
    """Return the terms for the log."""
    return {name: term.detach() for name, term in terms.items()}


def used_terms(labels: Tensor, sure: Tensor, seen: Tensor, n_classes: int) -> dict[str, Tensor]:
    """Return which share of the positions `seen` is pseudo-labelled: a high threshold starves some classes.

    Returns:
        "used", the share of the positions that are sure; "used_c", that share among the positions predicted to be of
        class c; "pseudo_c", the share of all positions that carry c as a pseudo-label.
    """
    used, by_class, of_all = losses.used_shares(labels, sure, seen, n_classes)
    named = {"used": by_class, "pseudo": of_all}
    shares = {f"{name}_{c}": share for name, values in named.items() for c, share in enumerate(values.unbind())}
    return terms_of(used=used, **shares)


def updates_of(**values: Tensor) -> dict[str, BufferUpdate]:
    """Return new values of buffers that are of the whole batch already."""
    return {name: BufferUpdate(value) for name, value in values.items()}


def _none(images: Images) -> Tensor:
    return torch.zeros(0, dtype=torch.int64, device=images.pixels.device)
