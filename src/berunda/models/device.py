"""Where to compute: one reading of `--device` for training and mapping."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from berunda.errors import ConfigError

__all__ = ["computes_bf16", "deterministic", "resolve_device"]


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device; "auto" takes CUDA where there is one.

    Raises:
        ConfigError: the text names no device, or one that this machine or this build of torch lacks.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device!r}: expected auto, cpu, cuda or cuda:N") from error
    if found.type == "cuda":
        n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not n_devices:
            raise ConfigError(
                f"device {str(device)!r}: this machine or this build of torch has none; use device 'auto' or 'cpu'"
            )
        if (found.index or 0) >= n_devices:
            found_names = f"cuda:0 to cuda:{n_devices - 1}"
            raise ConfigError(f"device {str(device)!r}: found {found_names} on this machine; choose one of them")
    return found


def computes_bf16(device: torch.device) -> bool:
    """Say whether the processor multiplies bfloat16 itself; an emulation is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and ask is not None and bool(ask())


@contextmanager
def deterministic() -> Iterator[None]:
    """Let CUDA choose its algorithms without trials and only among deterministic ones, within the block."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
