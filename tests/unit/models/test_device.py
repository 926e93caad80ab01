"""One reading of the device, with an error that says what to do."""

from __future__ import annotations

import pytest
import torch

from berunda.errors import ConfigError
from berunda.models.device import resolve_device


def test_devices_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [resolve_device(d).type for d in ("auto", "cpu", torch.device("cpu"))] == ["cpu"] * 3
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ConfigError, match=f"device '{name}': this machine .* has none; use device 'auto' or 'cpu'"):
            resolve_device(name)
    with pytest.raises(ConfigError, match="device 'gpu': expected auto, cpu, cuda or cuda:N"):
        resolve_device("gpu")


def test_devices_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(resolve_device(d)) for d in ("auto", "cuda", "cuda:1")] == ["cuda", "cuda", "cuda:1"]
    with pytest.raises(ConfigError, match="cuda:0 to cuda:1"):
        resolve_device("cuda:2")


def test_training_and_mapping_read_it_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    from toy_mapping import toy_bundle

    from berunda.mapping.predictor import Predictor

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="use device 'auto' or 'cpu'"):
        Predictor(toy_bundle(), "cuda")
