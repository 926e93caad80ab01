"""The targets of the fuzzer: each place where a file or a text from elsewhere is read, and what must hold."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from affine import Affine
from fuzzing import Target

from berunda.config import MapConfig, dump_config, load_config
from berunda.geo.grid import Grid, Shape
from berunda.geo.resolve import resolve_inputs
from berunda.geo.vector import rasterize, read_labels

if TYPE_CHECKING:
    from berunda.mapping.plan import Plan

GRID = Grid(Shape(40, 50), Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32633")


def config(data: bytes, folder: Path) -> None:
    """A configuration that is taken can be written and read again, and is the same."""
    path = folder / "run.yaml"
    path.write_bytes(data)
    found = load_config(path)
    dump_config(found, folder / "again.yaml")
    assert load_config(folder / "again.yaml") == found


def labels(data: bytes, folder: Path) -> None:
    """Labels that are taken can be drawn, and their classes can stand in a bundle."""
    from pydantic import TypeAdapter

    from berunda.mapping.manifest import Text

    path = folder / "labels.geojson"
    path.write_bytes(data)
    found = read_labels(path, "class", grids=[GRID])
    drawn = rasterize(found, GRID, GRID.full_window)
    assert drawn.shape == (40, 50)
    assert drawn.max() < len(found.class_ids)
    assert len(found.geometries) == len(found.class_ids) == len(found.fingerprints)
    for name in found.class_names:
        TypeAdapter(Text).validate_python(name)
        name.encode()


@cache
def _first_labels() -> None:
    import pyproj

    pyproj.CRS.from_epsg(32633)


@cache
def _weights() -> tuple[bytes, str]:
    """Return weights of one tensor, and their sha256."""
    import safetensors.torch
    import torch

    from berunda.files import digest_of

    stored = safetensors.torch.save({"net.a": torch.zeros(1)})
    return stored, digest_of(stored)


def bundle(data: bytes, folder: Path) -> None:
    """A bundle that is taken has a specification and a fingerprint, and its manifest can be written."""
    import json

    from berunda.mapping.bundle import load_bundle

    stored, sha256 = _weights()
    (folder / "model.safetensors").write_bytes(stored)
    (folder / "model.json").write_bytes(
        data.replace(b"@SHA256@", sha256.encode()).replace(b"@BYTES@", b"%d" % len(stored))
    )
    found = load_bundle(folder)
    assert found.spec.n_classes == len(found.manifest.class_names)
    assert len(found.fingerprint) == 64
    json.dumps(found.manifest.model_dump(mode="json"), ensure_ascii=False).encode()


@cache
def _plan() -> Plan:
    from berunda.mapping.plan import Lattice, Plan

    lattice = Lattice(64, 16, 2)
    return Plan("scene", "bundle", GRID, lattice, (("precision", "fp32"),), *lattice.tile_shape(16))


def journal(data: bytes, folder: Path) -> None:
    """A journal tells of tiles of its plan only, goes on where it is whole, and keeps what is appended."""
    from berunda.mapping.journal import Journal, Receipt, read_journal
    from berunda.mapping.tiles import TileStore

    plan = _plan()
    path = folder / "journal.jsonl"
    path.write_bytes(data.replace(b"@PLAN@", plan.digest.encode()))
    with Journal(path, plan.digest) as opened:
        kept = TileStore(folder).kept(plan, opened.receipts)
        assert kept <= set(range(plan.n_tiles))
        opened.record(Receipt(0, "a" * 64, 7))
    assert read_journal(path, plan.digest)[0][0] == Receipt(0, "a" * 64, 7)


def paths(data: bytes, folder: Path) -> None:
    """What a text means is a file that is there, and never a host or a virtual file system."""
    for name in ("a.tif", "b_B02_10m.jp2", "sub/c.tif", "empty/x.txt", "c:d.tif"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    os.symlink("loop", folder / "loop")
    for found in resolve_inputs(os.fsdecode(data).split("|")):
        assert found.is_file()
        assert "://" not in str(found)
        assert not str(found).startswith("/vsi")


def _yaml_words() -> tuple[bytes, ...]:
    values = (
        b": ",
        b"- ",
        b"? ",
        b"1:2:3",
        b"2024-01-01",
        b"1e3",
        b".inf",
        b".nan",
        b"yes",
        b"~",
        b"!!str ",
        b"<<: ",
        b"| ",
    )
    return (
        *(name.encode() for name in MapConfig.model_fields),
        *values,
        b"0b" + b"1" * 20_000,
        b"\\x85",
        b"- ~nobody/a\n",
    )


GEOJSON = (
    *(b'"type":"GeometryCollection"', b'"type":"MultiPolygon"', b'"type":"Point"', b'"type":"Feature"', b'"crs":null,'),
    *(
        b"EPSG:4978",
        b"EPSG:5703",
        b"EPSG:4326",
        b"EPSG:3857",
        b"+proj=",
        b"+init=epsg:32633",
        b"urn:ogc:def:crs:",
        b"1e200",
    ),
    *(b'"class":{}', b'"class":1e300', b'"class":"\\u0000"', b'"class":[[1]]', b'"geometry":null', b'"coordinates":[]'),
)
MANIFEST = (
    *(b'"berunda-model/2"', b'"weights":{}', b'"file":"../x"', b'"notes":', b'"ood":null', b'"classes":[]', b'"id":2'),
    *(b'{"a":' * 300, b'"segmentation"', b'"knn"', b'"low":1e308', b"1.5", b'"resnet18"'),
)
JOURNAL = (
    b'{"index": 999999, "n_bytes": 0, "sha256": ""}\n',
    b'"index": ',
    b'"sha256": ""',
    b'{"plan": "@PLAN@"}\n',
    b"1.0",
)
PATHS = (
    b"|",
    b"a.tif",
    b"loop",
    b"sub",
    b"empty",
    b"A" * 300,
    b"/vsizip/",
    b"<VRTDataset",
    b"WMS:",
    b"~",
    b"\\\\host\\",
    b"//",
)

TARGETS = {
    "config": Target(config, _yaml_words()),
    "labels": Target(labels, GEOJSON, prepare=_first_labels),
    "bundle": Target(bundle, MANIFEST, prepare=_weights),
    "journal": Target(journal, JOURNAL, prepare=_plan),
    "paths": Target(paths, PATHS),
}
