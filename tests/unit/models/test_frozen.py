"""Stages that keep their pretrained weights: which they are, and that training leaves them as they were."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from berunda.errors import ConfigError
from berunda.models.build import build_net
from berunda.models.frozen import freeze_stages, to_training
from berunda.models.spec import NetSpec


def frozen_names(net: nn.Module) -> set[str]:
    return {name for name, parameter in net.named_parameters() if not parameter.requires_grad}


def classifier(frozen_stages: int, pretrained: bool = True) -> nn.Module:
    return build_net(NetSpec("scene", 3, 4, encoder_depth=4, pretrained=pretrained, frozen_stages=frozen_stages))


def test_no_stage_is_frozen_unless_asked() -> None:
    assert not frozen_names(classifier(0))


@pytest.mark.parametrize("n_stages", [1, 2, 3])
def test_what_is_frozen_is_what_the_first_features_depend_on(n_stages: int) -> None:
    net = classifier(n_stages)
    early = frozen_names(net)
    assert "encoder.model.conv_stem.weight" in early
    assert not any(name.startswith("head") for name in early)
    features = net.eval().encode(torch.randn(2, 3, 32, 32))
    assert not features[n_stages].requires_grad
    assert features[n_stages + 1].requires_grad
    assert len(early) > len(frozen_names(classifier(n_stages - 1)))


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100"])
def test_other_encoders_freeze_alike(name: str) -> None:
    net = build_net(NetSpec("scene", 5, 4, encoder=name, encoder_depth=3, pretrained=False))
    freeze_stages(net.encoder, 5, 2)
    features = net.eval().encode(torch.randn(2, 5, 32, 32))
    assert not features[2].requires_grad
    assert features[3].requires_grad
    assert net.encoder.training is False


def test_training_leaves_frozen_weights_and_statistics_as_they_were() -> None:
    net = classifier(2)
    to_training(net)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.SGD([value for value in net.parameters() if value.requires_grad], lr=0.1)
    for _ in range(2):
        loss = nn.functional.cross_entropy(net(torch.randn(8, 3, 32, 32)), torch.arange(8) % 4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert not {name for name in changed if name.startswith(("encoder.model.conv_stem", "encoder.model.bn1"))}
    assert not {name for name in changed if name.startswith(("encoder.model.blocks.0", "encoder.model.blocks.1"))}
    assert "encoder.model.blocks.2.0.bn1.running_mean" in changed
    assert "encoder.model.blocks.2.0.conv_pw.weight" in changed
    assert "head.weight" in changed


def test_only_frozen_parts_stay_in_evaluation_mode() -> None:
    net = classifier(1)
    to_training(net)
    assert net.training
    assert net.head.training
    assert not net.encoder.model.bn1.training
    assert net.encoder.model.blocks[1].training


@pytest.mark.parametrize(
    ("stages", "pretrained", "told"),
    [(5, True, "expected 0 to 4"), (-1, True, "expected 0 to 4"), (1, False, "expected 0 without pretrained")],
)
def test_impossible_stages_are_refused(stages: int, pretrained: bool, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        classifier(stages, pretrained)
