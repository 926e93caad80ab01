"""A check of what a run is made with, before a scene is read or anything is written."""

from __future__ import annotations

from berunda.config import MapConfig
from berunda.methods import check_method_name

__all__ = ["check_choices"]


def check_choices(config: MapConfig) -> None:
    """Refuse a method, an option of it, an encoder or a device that is not there.

    Defaults need no check, so that the verdict on a file never waits for torch because of them.

    Raises:
        ConfigError: saying what there is instead.
    """
    check_method_name(config.method)
    if config.method_options:
        from berunda.methods import make_method

        make_method(config.method, config.method_options)
    if config.encoder != MapConfig.model_fields["encoder"].default:
        from berunda.models.encoders import check_encoder_name

        check_encoder_name(config.encoder)
    if config.device not in ("auto", "cpu"):
        from berunda.models.device import resolve_device

        resolve_device(config.device)
