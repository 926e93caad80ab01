"""Bundles from strangers: nothing in them is executed, nothing outside them is read."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_mapping import toy_bundle

from berunda.errors import BerundaError, CheckpointError, SecurityError
from berunda.mapping.bundle import load_bundle, save_bundle


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def as_pickle(path, canary, protocol):
    path.write_bytes(pickle.dumps(canary, protocol=protocol))


def as_torch(path, canary, legacy):
    torch.save({"net": canary}, path, _use_new_zipfile_serialization=not legacy)


def as_numpy(path, canary):
    with path.open("wb") as file:
        np.save(file, np.array([canary], dtype=object), allow_pickle=True)


def as_zip(path, canary):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(canary))
        archive.writestr("../../outside.txt", "slip")


def as_prefixed(path, canary):
    path.write_bytes((2).to_bytes(8, "little") + b"{}" + pickle.dumps(canary))


DISGUISES = {
    "pickle 0": lambda p, c: as_pickle(p, c, 0),
    "pickle 2": lambda p, c: as_pickle(p, c, 2),
    "pickle 5": lambda p, c: as_pickle(p, c, 5),
    "torch zip": lambda p, c: as_torch(p, c, False),
    "torch legacy": lambda p, c: as_torch(p, c, True),
    "numpy objects": as_numpy,
    "zip": as_zip,
}


@pytest.fixture
def folder(tmp_path):
    return save_bundle(tmp_path / "in" / "model", toy_bundle())


@pytest.mark.parametrize("kind", DISGUISES)
@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_a_pickle_disguised_as_a_part_is_refused_by_content(tmp_path, folder, kind, name):
    canary = tmp_path / "canary"
    DISGUISES[kind](folder / name, Canary(canary))
    with pytest.raises(SecurityError, match="content is"):
        load_bundle(folder)
    assert not canary.exists()
    assert not list(tmp_path.rglob("outside.txt"))


@pytest.mark.parametrize("kind", DISGUISES)
@pytest.mark.parametrize("name", ["model.pt", "model", "model.safetensors", "model.json"])
def test_a_pickle_in_place_of_the_folder_is_refused(tmp_path, kind, name):
    canary = tmp_path / "canary"
    DISGUISES[kind](tmp_path / name, Canary(canary))
    with pytest.raises(SecurityError):
        load_bundle(tmp_path / name)
    assert not canary.exists()


def test_a_pickle_behind_a_valid_safetensors_head_is_refused(tmp_path, folder):
    canary = tmp_path / "canary"
    path = folder / "model.safetensors"
    as_prefixed(path, Canary(canary))
    manifest = json.loads((folder / "model.json").read_text())
    from berunda.files import digest_of

    manifest["weights"].update(sha256=digest_of(path.read_bytes()), bytes=path.stat().st_size)
    (folder / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError):
        load_bundle(folder)
    assert not canary.exists()


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "model.pt", "..", "", "http://127.0.0.1/w", None, 3]
)
def test_a_manifest_that_names_another_file_is_refused(folder, name):
    path = folder / "model.json"
    value = json.loads(path.read_text())
    value["weights"]["file"] = name
    path.write_text(json.dumps(value))
    with pytest.raises(SecurityError, match=r"weights\.file"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_a_link_out_of_the_bundle_is_refused(tmp_path, folder, name):
    elsewhere = tmp_path / "elsewhere"
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(SecurityError, match="link"):
        load_bundle(folder)


def test_exchanged_weights_are_found_by_their_sha256(tmp_path, folder):
    other = save_bundle(tmp_path / "other", toy_bundle(n_classes=3))
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"sha256|bytes"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"format": NaN}',
        b"\xff\xfe{}",
        b'{"a":' * 5000,
        b"1e999999",
        b"x",
    ],
)
def test_a_hostile_manifest_gets_a_plain_error(folder, content):
    (folder / "model.json").write_bytes(content)
    with pytest.raises(BerundaError) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)


def test_a_huge_header_length_is_refused_before_memory_is_taken(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes((1 << 62).to_bytes(8, "little") + data[8:])
    with pytest.raises(CheckpointError):
        load_bundle(folder)


def test_a_bundle_cannot_reach_out_for_encoder_weights(folder, monkeypatch):
    import socket

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was reached for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    path = folder / "model.json"
    value = json.loads(path.read_text())
    value["encoder"] = "resnet18"
    path.write_text(json.dumps(value))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_bundle(folder).build()
