"""A check of what a run is made with, before a scene is read or anything is written."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from berunda.config import MapConfig
from berunda.errors import ConfigError
from berunda.methods import check_method_name

if TYPE_CHECKING:
    from berunda.methods.contract import Method
    from berunda.options.bench import BenchOptions
    from berunda.options.train import TrainOptions

__all__ = [
    "check_choices",
    "check_encoder",
    "check_encoder_kind",
    "check_for_masks",
    "check_net_options",
    "check_serves",
]


def check_choices(config: MapConfig | TrainOptions) -> None:
    """Refuse a method, an option of it, an encoder or a device that is not there.

    Defaults need no check, so that the verdict on a file never waits for torch because of them.

    Raises:
        ConfigError: saying what there is instead.
    """
    check_method_name(config.method)
    if config.method_options:
        from berunda.methods import make_method

        make_method(config.method, config.method_options)
    check_encoder(config.encoder, config.device)


def check_encoder(encoder: str, device: str) -> None:
    """Refuse an encoder or a device that is not there.

    Raises:
        ConfigError: saying what there is instead.
    """
    if encoder != MapConfig.model_fields["encoder"].default:
        from berunda.models.encoders import check_encoder_name

        check_encoder_name(encoder)
    if device not in ("auto", "cpu"):
        from berunda.models.device import resolve_device

        resolve_device(device)


def check_net_options(options: TrainOptions | BenchOptions) -> None:
    """Refuse options of a net for whole images that cannot hold whatever the images are, before one is decoded.

    Raises:
        ConfigError: saying what was expected.
    """
    if options.frozen_stages is not None:
        from berunda.api.scene_recipe import check_frozen_stages

        check_frozen_stages(options)


def check_serves(method: Method, task: str) -> None:
    """Refuse a method that does not serve `task`: "scene", "multilabel" or "segmentation"; nor may one of its stages.

    Raises:
        ConfigError: naming the tasks it serves, or options that change nothing for this one.
    """
    from berunda.train.stages import methods_of

    for one in (method, *methods_of(method)):
        tasks = one.needs().tasks
        if task not in tasks:
            raise ConfigError(
                f"method '{one.name}' serves {', '.join(tasks)}, expected {task}; `berunda methods` lists the others"
            )
        idle = [item for item in fields(one) if task not in (item.metadata.get("tasks") or (task,))]
        given = [item.name for item in idle if getattr(one, item.name) != item.default]
        if given:
            found = ", ".join(f"{name}={getattr(one, name)}" for name in given)
            raise ConfigError(f"method '{one.name}': found {found}, which changes nothing for {task}; leave it out")


def check_encoder_kind(method: Method, encoder: str) -> None:
    """Refuse an encoder of another kind than a method, or one that goes on after it, cannot do without.

    Raises:
        ConfigError: naming the encoders of that kind.
    """
    from berunda.models.transformer import TRANSFORMERS
    from berunda.train.stages import methods_of

    needing = next((one for one in methods_of(method) if one.needs().encoder == "vit"), None)
    if needing is not None and encoder not in TRANSFORMERS:
        raise ConfigError(
            f"method '{needing.name}': found encoder {encoder!r}, expected one of patches: {', '.join(TRANSFORMERS)}; "
            "choose it by --encoder"
        )


def check_for_masks(options: TrainOptions | BenchOptions) -> None:
    """Refuse options that have no meaning for images with masks.

    Raises:
        ConfigError: naming them.
    """
    fields = type(options).model_fields
    names = ("labels_per_class", "image_px", "skip_broken", "symmetries")
    given = [name for name in names if name in fields and getattr(options, name) != fields[name].default]
    if given:
        told = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ConfigError(
            f"{told}: for whole images, found images with masks; leave it out (--labelled-images, or --labels of a "
            "benchmark, counts images with masks, --crop-px sets the side of a crop)"
        )
