"""A bundle: the folder `model/` that holds a trained model, `model.safetensors` and `model.json`.

Nothing in it is ever unpickled or executed. The weights' sha256 stands in the manifest; it guards against
damage, not against an author of ill will, whose weights can say what they like but run nothing.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from berunda._version import __version__
from berunda.errors import BerundaError, CheckpointError, OutputError, SecurityError
from berunda.files import digest_of, failed_write, write_synced
from berunda.geo.write import sync_folder
from berunda.mapping.manifest import WEIGHTS_NAME, Manifest, Weights, parse_manifest
from berunda.methods.contract import Method
from berunda.models.spec import NetSpec

__all__ = [
    "MANIFEST_NAME",
    "Bundle",
    "Model",
    "current_versions",
    "load_bundle",
    "make_tensors",
    "save_bundle",
]

MANIFEST_NAME = "model.json"
_MANIFEST_LIMIT = 8 << 20
_PREFIXES = ("net.", "extra.", "ood.")
_DISGUISES = (
    (b"\x80", "a Python pickle"),
    (b"PK\x03\x04", "a zip archive (torch saves pickles so)"),
    (b"PK\x05\x06", "a zip archive"),
    (b"\x93NUMPY", "a numpy array file (it can hold pickles)"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"\x89HDF", "an HDF5 file"),
)
_PLAIN_PICKLE = re.compile(rb"\((lp|dp|[ic])|c[A-Za-z_][\w.]*\n")


@dataclass(frozen=True)
class Model:
    """A net ready to predict: the method, the net its extra parts; evaluation mode, without gradients."""

    method: Method
    net: nn.Module
    extra: nn.Module


@dataclass(frozen=True)
class Bundle:
    """A trained model with all that is needed to apply it.

    Attributes:
        manifest: what `model.json` says.
        tensors: on the CPU: the net's state as "net.*", kept extra parts as "extra.*", the distance layer as
            "ood.*".
    """

    manifest: Manifest
    tensors: Mapping[str, Tensor]

    @property
    def spec(self) -> NetSpec:
        """The net's specification, without pretrained weights: the bundle brings its own."""
        m = self.manifest
        return NetSpec(
            task=m.task,
            n_bands=len(m.bands),
            n_classes=len(m.classes),
            encoder=m.encoder,
            encoder_depth=m.net.encoder_depth,
            pretrained=False,
            crop_px=m.net.crop_px,
            pixel_path=m.net.pixel_path,
            decoder=m.net.decoder,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over all that can change a map: weights, and manifest without training and versions."""
        told = self.manifest.model_dump(mode="json", exclude={"training", "versions", "weights"})
        weights = safetensors.torch.save(_stored(self.tensors))
        return digest_of(json.dumps(told, sort_keys=True).encode() + digest_of(weights).encode())

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors under `prefix` ("net", "extra", "ood") by the rest of their name."""
        start = prefix + "."
        return {name.removeprefix(start): t for name, t in self.tensors.items() if name.startswith(start)}

    def distance_arrays(self) -> dict[str, np.ndarray]:
        """Return what `assess.ood.FeatureDistance.from_arrays` takes; empty without distance layer."""
        ood = self.manifest.ood
        arrays = {f"ood_{name}": tensor.numpy() for name, tensor in self.part("ood").items()}
        if ood is None or not arrays:
            return {}
        return {**arrays, "ood_settings": np.array([["mahalanobis", "knn"].index(ood.kind), ood.k], np.int64)}

    def build(self, device: str | torch.device = "cpu") -> Model:
        """Return the model with its weights on `device`.

        Raises:
            CheckpointError: the method is not installed, or the tensors do not fit the manifest's net.
        """
        from berunda.methods import make_method

        manifest = self.manifest
        try:
            method = make_method(manifest.method, manifest.method_options)
            with torch.random.fork_rng(devices=[]):
                net = method.build(self.spec)
                extra = method.init(net, self.spec) if "extra" in method.kept() else nn.Module()
        except BerundaError as error:
            raise CheckpointError(f"bundle of method {manifest.method!r} cannot be built: {error}") from error
        for prefix, module in (("net", net), ("extra", extra)):
            _fill(module, self.part(prefix), prefix)
            module.requires_grad_(False).eval().to(device)
        return Model(method, net, extra)


def make_tensors(
    method: Method, net: nn.Module, extra: nn.Module, distance: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """Return the tensors of a bundle.

    Args:
        method: says which of its modules are kept.
        net: the trained net.
        extra: its extra parts.
        distance: `assess.ood.FeatureDistance.as_arrays()`; kind and k go into the manifest's `Ood`.
    """
    kept = {"net": net, "extra": extra}
    tensors = {f"{name}.{key}": value for name in method.kept() for key, value in kept[name].state_dict().items()}
    arrays = {f"ood.{key.removeprefix('ood_')}": value for key, value in (distance or {}).items()}
    arrays.pop("ood.settings", None)
    tensors.update({key: torch.from_numpy(np.array(value)) for key, value in arrays.items()})
    return _stored(tensors)


def current_versions() -> dict[str, str]:
    """Return the versions of what a model depends on, for the manifest."""
    return {
        "berunda": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def save_bundle(folder: Path | str, bundle: Bundle) -> Path:
    """Write `bundle` so that `folder` holds the old bundle or the new one, never a mixture.

    Raises:
        OutputError: it cannot be written, or `folder` exists and holds other things than a bundle.
    """
    target = Path(folder).absolute()
    weights = safetensors.torch.save(_stored(bundle.tensors))
    record = Weights(file=WEIGHTS_NAME, sha256=digest_of(weights), bytes=len(weights))
    manifest = bundle.manifest.model_copy(update={"weights": record})
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    _check_replaceable(target)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        temporary.mkdir(parents=True)
        write_synced(temporary / WEIGHTS_NAME, [weights])
        write_synced(temporary / MANIFEST_NAME, [text.encode()])
        sync_folder(temporary)
        load_bundle(temporary)
        _swap(temporary, target)
    except OSError as error:
        raise failed_write(target, len(weights), error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def load_bundle(folder: Path | str) -> Bundle:
    """Read a bundle.

    Args:
        folder: the folder `model/`, or the folder of a map run that holds it.

    Raises:
        CheckpointError: there is no bundle, or it is damaged, of another format, or does not add up.
        SecurityError: a file in it is a pickle or an archive whatever its name, or leads outside the folder.
    """
    path = Path(folder)
    if path.is_file():
        raise _refused(path, _head(path), "a folder with model.json and model.safetensors")
    if not (path / MANIFEST_NAME).exists() and (path / "model" / MANIFEST_NAME).exists():
        path = path / "model"
    for name in (MANIFEST_NAME, WEIGHTS_NAME):
        _check_inside(path, name)
    manifest = parse_manifest(_read_json(path / MANIFEST_NAME), str(path / MANIFEST_NAME))
    if manifest.weights is None:
        raise CheckpointError(f"{path / MANIFEST_NAME}: 'weights' is missing; write the bundle again")
    return Bundle(manifest, _read_tensors(path / WEIGHTS_NAME, manifest.weights))


def _read_json(path: Path) -> dict[str, Any]:
    data = _read(path, _MANIFEST_LIMIT)
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _refused(path, data[:64], "JSON") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: a JSON {type(value).__name__} found, expected an object")
    return value


def _read_tensors(path: Path, record: Weights) -> dict[str, Tensor]:
    """Read the weights once, so that what was checked is what is loaded."""
    size = path.stat().st_size
    head = _head(path)
    header = int.from_bytes(head[:8], "little")
    if len(head) < 9 or header > size - 8 or head[8:9] != b"{":
        raise _refused(path, head, "safetensors")
    if size != record.bytes:
        raise CheckpointError(f"{path}: {size} bytes found, the manifest says {record.bytes}; get the bundle again")
    data = _read(path, record.bytes)
    found = digest_of(data)
    if found != record.sha256:
        raise CheckpointError(
            f"{path}: sha256 {found[:16]}.. found, the manifest says {record.sha256[:16]}..; the file "
            "is damaged or was exchanged: get the bundle again"
        )
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not readable as safetensors ({error}); get the bundle again") from error
    strange = sorted(name for name in tensors if not name.startswith(_PREFIXES))
    if strange:
        raise CheckpointError(f"{path}: tensors {', '.join(strange[:4])} found, expected net.*, extra.*, ood.*")
    return tensors


def _check_inside(folder: Path, name: str) -> None:
    path = folder / name
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: no {name} found; expected the folder 'model' that a training or map run wrote"
        )
    if path.resolve().parent != folder.resolve():
        raise SecurityError(f"{path} is a link that leads out of the bundle; copy the file into the folder")


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if len(data) > limit:
        raise CheckpointError(f"{path}: more than {limit} bytes found; this is not a bundle's file")
    return data


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _refused(path: Path, head: bytes, expected: str) -> BerundaError:
    plain = ((head, "a Python pickle"),) if _PLAIN_PICKLE.match(head) else ()
    for start, what in (*_DISGUISES, *plain):
        if head.startswith(start):
            return SecurityError(
                f"{path}: its content is {what}, expected {expected}; such files are never opened as "
                "models, whatever their name: convert the weights to safetensors at their source"
            )
    return CheckpointError(f"{path}: its content is not {expected}; get the bundle again")


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    wanted = module.state_dict()
    missing, strange = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    shaped = sorted(k for k in wanted.keys() & tensors.keys() if wanted[k].shape != tensors[k].shape)
    if missing or strange or shaped:
        faults = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', ..' if len(names) > 3 else ''})"
            for what, names in (("missing", missing), ("unknown", strange), ("of another shape", shaped))
            if names
        ]
        raise CheckpointError(
            f"tensors of '{prefix}' do not fit the net of the manifest: {'; '.join(faults)}; the bundle was "
            "written by another version or changed by hand"
        )
    broken = sorted(k for k, t in tensors.items() if t.is_floating_point() and not bool(torch.isfinite(t).all()))
    if broken:
        raise CheckpointError(f"tensor '{prefix}.{broken[0]}' holds NaN or infinite values; train the model again")
    module.load_state_dict(tensors)


def _stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return detached, contiguous copies on the CPU that share no memory, sorted by name."""
    return {
        name: tensors[name].detach().cpu().clone(memory_format=torch.contiguous_format).contiguous()
        for name in sorted(tensors)
    }


def _check_replaceable(target: Path) -> None:
    if not target.exists():
        return
    others = sorted(p.name for p in target.iterdir()) if target.is_dir() else [target.name]
    others = [name for name in others if name not in (MANIFEST_NAME, WEIGHTS_NAME)]
    if others:
        raise OutputError(
            f"{target}: holds {', '.join(others[:4])}, expected an empty folder or a bundle "
            "to replace; choose another folder"
        )


def _swap(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`; an older bundle is moved aside first and removed afterwards.

    A kill in the instant between the two renames leaves the older bundle whole under its name aside.
    """
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.old")
    if target.exists():
        os.rename(target, aside)
    try:
        os.rename(new, target)
    except OSError:
        if aside.exists():
            os.rename(aside, target)
        raise
    sync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)
