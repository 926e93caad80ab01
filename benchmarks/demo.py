"""The demo's comparison over several seeds: every method on identical splits, labels and test pixels.

Usage: python benchmarks/demo.py [--seeds 5] [--methods random_forest,supervised,cotrain,fixmatch,berunda]

Each seed draws its own test blocks and its own 5 training polygons a class. The supervised net gets as many image
passes a step as cotrain takes (forward passes alone count a third). Rows go to benchmarks/results/demo.json, one a
finished run; runs that are there already are not repeated.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from berunda.api.compare import Result, comparison_row, forest_result, net_result
from berunda.api.demo_verb import CLOUD_RULE, demo_config
from berunda.api.evaluate import PixelTable, gather_pixels
from berunda.api.fit import fit, supervised_settings, train_config
from berunda.api.label_rule import LabelRule
from berunda.api.prepare import Prepared, prepare
from berunda.api.reporting import cloud_scores
from berunda.bench.rows import RowFile
from berunda.config import MapConfig
from berunda.data.scene_source import SceneSource, build_source
from berunda.data.splits import TEST
from berunda.mapping.run import map_scenes
from berunda.methods import make_method
from berunda.train.passes import passes_per_step

RESULTS = Path(__file__).resolve().parent / "results" / "demo.json"
SUITE = "demo"
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "random_forest": ("", {}),
    "supervised": ("supervised", {}),
    "cotrain": ("cotrain", {}),
    "fixmatch": ("fixmatch", {"mu": 2.0}),
    "fixmatch_mild": ("fixmatch", {"mu": 2.0, "strength": 0.2, "threshold": 0.8}),
    "berunda": ("berunda", {"mu": 2.0}),
    "berunda_l1": ("berunda", {"mu": 2.0, "aux": "l1", "lambda_u": 0.5}),
    "cotrain_no_prior": ("cotrain", {"prior": 0.0}),
    "cotrain_labels_only": ("cotrain", {"lambda_u": 0.0}),
    "cotrain_labels_only_no_prior": ("cotrain", {"lambda_u": 0.0, "prior": 0.0}),
}
"""What is run, by its name in the results: the method and the options that differ from its defaults."""


@dataclass(frozen=True)
class Ground:
    """What all methods of one seed share."""

    config: MapConfig
    prepared: Prepared
    table: PixelTable
    source: SceneSource

    @classmethod
    def of(cls, seed: int) -> Ground:
        """Fetch and split the demo scene for one seed."""
        config = demo_config(seed)
        prepared = prepare(config)
        source = build_source(prepared.scenes, prepared.labels, prepared.split, prepared.scaling, config.crop_px)
        return cls(config, prepared, gather_pixels(prepared), source)


def run(name: str, ground: Ground) -> Result:
    """Train and test one method."""
    method_name, options = RUNS[name]
    config, prepared, table = ground.config, ground.prepared, ground.table
    if not method_name:
        return forest_result(prepared, table, config.seed)
    method = make_method(method_name, options)
    settings = train_config(config)
    if method_name == "supervised":
        settings = supervised_settings(settings, make_method("cotrain", {}))
    config = config.replaced(method=method_name, method_options=options)
    fitted = fit(method, prepared, ground.source, table, config, settings)
    passes = settings.steps * passes_per_step(method, settings.n_labelled)
    result = net_result(fitted, prepared, table.of(TEST), name, passes)
    if name != "cotrain":
        return result
    with tempfile.TemporaryDirectory() as folder:
        maps = map_scenes(fitted.bundle, prepared.scenes, folder)
        found = cloud_scores(prepared, maps, LabelRule.parse(CLOUD_RULE))
    facts = {
        "ood_auroc": found["AUROC, feature distance"],
        "ood_aupr": found["AUPR, feature distance"],
        "ood_auroc_energy": found["AUROC, energy"],
        "ood_rule": f"cloudy: pixels with {CLOUD_RULE}",
        "map_mpx_per_s": maps[0].mpx_per_s,
    }
    return replace(result, facts={**result.facts, **facts})


def main(arguments: list[str]) -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", default=",".join(RUNS))
    options = parser.parse_args(arguments)
    names = options.methods.split(",")
    rows = RowFile(RESULTS)
    command = shlex.join(["python", "benchmarks/demo.py", *arguments])
    for seed in range(options.seeds):
        missing = [n for n in names if not rows.has(suite=SUITE, method=n, seed=seed)]
        if not missing:
            continue
        ground = Ground.of(seed)
        for name in missing:
            row = comparison_row(run(name, ground), ground.prepared, ground.config, suite=SUITE)
            row |= {"command": command, "options": RUNS[name][1], "dataset": "demo (Sentinel-2 T33UUU, 2017-02-16)"}
            rows.add([row])
            print(f"seed {seed} {name:<30} mIoU {row['metrics']['miou']:.3f} {row['wall_s']:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
