"""Batch norms folded into the convolutions before them: the same function with fewer passes over memory."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = ["fold_batch_norms"]


@torch.no_grad()
def fold_batch_norms(module: nn.Module) -> None:
    """Fold every batch norm that directly follows a convolution into it, in place.

    Only where the order of a module's children is known to be that of its computation: in sequences and in timm's
    EfficientNet blocks. Other batch norms stay as they are. The result is for evaluation alone; it equals the
    original up to the order of sums.

    Args:
        module: in evaluation mode.
    """
    ordered = _is_ordered(module)
    before: nn.Module | None = None
    for name, child in list(module.named_children()):
        if ordered and isinstance(before, nn.Conv2d) and _follows(before, child):
            module.register_module(name, _absorb(before, child))
            before = None
            continue
        fold_batch_norms(child)
        before = child


def _is_ordered(module: nn.Module) -> bool:
    from timm.models._efficientnet_blocks import ConvBnAct, DepthwiseSeparableConv, InvertedResidual
    from timm.models.efficientnet import EfficientNetFeatures

    if isinstance(module, nn.Sequential):
        return type(module).forward is nn.Sequential.forward
    return type(module) in (ConvBnAct, DepthwiseSeparableConv, InvertedResidual, EfficientNetFeatures)


def _follows(conv: nn.Conv2d, child: nn.Module) -> bool:
    return isinstance(child, nn.BatchNorm2d) and child.num_features == conv.out_channels and not child.training


def _absorb(conv: nn.Conv2d, norm: nn.Module) -> nn.Module:
    """Change the convolution and return what is left of the norm: its activation, if it has one (timm's have)."""
    assert isinstance(norm, nn.BatchNorm2d)
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None  # evaluation rests on both
    assert variance is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, mean, variance, norm.eps, norm.weight, norm.bias
    )
    conv.requires_grad_(False)
    rest = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    kept = [part for part in rest if not isinstance(part, nn.Identity)]
    return kept[0] if len(kept) == 1 else nn.Sequential(*kept)
