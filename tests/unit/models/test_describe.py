"""Encoders that describe: one digest for equal weights, and deterministic algorithms on CUDA."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from berunda.models import describe
from berunda.models.describe import Describer
from berunda.models.device import deterministic


def test_the_digest_follows_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (Describer("efficientnet_lite0", 3, device="cpu") for _ in range(2))
    assert first.digest == second.digest
    assert first.digest != Describer("efficientnet_lite0", 3, pretrained=False, device="cpu").digest
    whole = describe.build_net

    def nudged(*given: object) -> torch.nn.Module:
        net = whole(*given)  # type: ignore[arg-type]
        with torch.no_grad():
            next(net.encoder.parameters()).view(-1)[0] += 1e-3
        return net

    monkeypatch.setattr(describe, "build_net", nudged)
    assert Describer("efficientnet_lite0", 3, device="cpu").digest != first.digest


def test_other_weights_are_another_key_of_the_cache(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toy_sites import write_sites

    from berunda.api.site_pipeline import Stages, cutting_of, describe_sites
    from berunda.data.site_layouts import find_sites
    from berunda.options.analyze import AnalyzeOptions
    from berunda.progress import Silent

    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))
    options = AnalyzeOptions.make({"inputs": [str(write_sites(tmp_path / "d", 3))], "image_px": 32})
    found = []
    for digest in ("a", "a", "b"):
        monkeypatch.setattr(describe, "_digest", lambda net, digest=digest: digest)
        sites = find_sites(options.inputs, cutting_of(options))
        found.append(describe_sites(sites, options, Stages(), Silent()).found.from_cache)
    assert found == [False, True, False]


def test_algorithms_are_deterministic_within_and_free_outside() -> None:
    before = torch.backends.cudnn.deterministic
    with deterministic():
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.deterministic == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_cuda_gives_the_same_bits_twice() -> None:
    images = np.random.default_rng(0).normal(size=(16, 3, 128, 128)).astype(np.float32)
    describer = Describer("efficientnet_lite0", 3, device="cuda")
    assert describer(images).tobytes() == describer(images).tobytes()
