"""How well a classifier of EuroSAT tells images unlike its training ones: UC Merced, and classes that it never saw.

Usage: python benchmarks/classify_ood.py [--method fixmatch --labels 5 --seeds 3 --effort standard] [--bundle DIR]
       python benchmarks/classify_ood.py --method jem --option variant=sada --option mu=2

Each seed trains two nets: one on all classes, and one on a data set without the held-out classes; with --bundle a
trained one is taken instead, and the classes of EuroSAT that it does not know are the held-out ones. Inside are the
test images of its classes. Outside are UC Merced, area-averaged to EuroSAT's 64 px, and the test images of the held-out
classes. kNN and Mahalanobis rest on all training images with the classes that the net itself gives them: no label is
used but those it was trained with. Rows go to benchmarks/results/eurosat_ood.json, tables and pictures beside them.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from berunda.api.drawn import Drawn, draw_images
from berunda.api.scene_fit import classified, fit_scene
from berunda.api.scene_pipeline import protocol_of
from berunda.api.scene_recipe import recipe_of
from berunda.api.scene_result import RunInfo, SceneResult, passes_of_run, scene_row
from berunda.api.scene_unlike import unlike_figures
from berunda.assess.classify import N_NEIGHBOURS, Classified, classifier_figures
from berunda.bench.rows import RowFile, refuse_other_settings, variant_of
from berunda.bench.suites.eurosat_energy_held_out import HELD_OUT_CLASSES
from berunda.bench.tables import write_tables
from berunda.data.images import ImageSet, open_images
from berunda.data.resampling import averaged_images
from berunda.data.unlike import HELD_OUT, held_out_images, without_classes
from berunda.errors import BerundaError, DataError
from berunda.mapping.bundle import load_bundle
from berunda.mapping.patches import ScenePredictor
from berunda.methods import make_method
from berunda.options.train import TrainOptions

RESULTS = Path(__file__).resolve().parent / "results" / "eurosat_ood.json"
SUITE = "eurosat_ood"


def main(arguments: list[str]) -> int:
    """Do the missing runs, then write the tables; return the exit code."""
    options = _parsed(arguments)
    try:
        make_rows(options, shlex.join(["python", "benchmarks/classify_ood.py", *arguments]))
        write_tables(options.results, options.results.parent)
    except BerundaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def make_rows(options: argparse.Namespace, command: str) -> None:
    """Do the runs that no row tells of yet."""
    rows, images = RowFile(options.results), open_images("eurosat", folder=options.data)
    merced = averaged_images(open_images("ucmerced", task="scene", folder=options.merced), images.size[0])
    setting = setting_of(options, images, merced)
    refuse_other_settings(rows, setting, images.name, options.encoder)
    if options.bundle is not None:
        told = dict(load_bundle(options.bundle).manifest.method_options)
        row = of_bundle(options, images, merced)
        rows.add([row | {"command": command, "setting": setting | {"method_options": told}}])
        return
    told = dict(_chosen_options(options, seed=0).method_options)
    setting = setting | {"method_options": told}  # not what all runs of a table share: variants stand side by side
    for seed in range(options.seeds):
        for held_out in ((), tuple(options.held_out.split(","))):
            seen = f"without {', '.join(held_out)}" if held_out else "all classes"
            variant = "; ".join(filter(None, (variant_of(told), seen)))
            key = {"method": options.method, "labels": options.labels, "encoder": options.encoder, "seed": seed}
            if not rows.has(suite=SUITE, variant=variant, **key):
                kept, others = without_classes(images, held_out), outside(images, held_out, merced)
                row = trained_row(options, seed, kept, others, variant)
                rows.add([row | {"command": command, "setting": setting}])
                _tell(row)


def trained_row(
    options: argparse.Namespace, seed: int, images: ImageSet, others: Mapping[str, ImageSet], variant: str
) -> dict[str, Any]:
    """Train a net as `berunda train` does and return its row."""
    chosen = _chosen_options(options, seed)
    method, recipe = make_method(options.method, chosen.method_options), recipe_of(chosen)
    start = time.perf_counter()
    drawn = draw_images(images, options.labels, "per_class", seed)
    net = recipe.net(chosen, images)
    settings = recipe.train_config(chosen, seed=seed, run_key=drawn.key(net.image_px))
    fitted = fit_scene(method, drawn, net, settings)
    figures, test = measured(fitted.predictor, drawn, fitted.validation, others)
    passes, seconds = passes_of_run(method, settings, drawn, net), fitted.trained.seconds
    wall_s = others["UC Merced"].opening_s + time.perf_counter() - start
    result = SceneResult(options.method, options.encoder, figures, test, wall_s, passes, passes / seconds, seconds)
    said = f"{protocol_of(drawn, net, passes)}; {_MEASURED}"
    return _row(result, drawn, RunInfo(SUITE, options.labels, "per_class", seed, "", said, variant))


def setting_of(options: argparse.Namespace, images: ImageSet, merced: ImageSet) -> dict[str, Any]:
    """Return what all runs of a table share, for the rows; of a bundle only the images are known."""
    of_data = {"fingerprint": images.fingerprint[:16], "outside": merced.fingerprint[:16]}
    if options.bundle is not None:
        return of_data
    chosen = _chosen_options(options, seed=0)
    recipe = recipe_of(chosen)
    net, config = recipe.net(chosen, images), recipe.train_config(chosen, seed=0)
    return {
        **of_data,
        "steps": config.steps,
        "learning_rate": config.learning_rate,
        "n_labelled": config.n_labelled,
        "image_px": net.image_px,
        "frozen_stages": net.frozen_stages,
        "symmetries": net.symmetries,
        "is_pretrained": net.pretrained,
    }


def _chosen_options(options: argparse.Namespace, seed: int) -> TrainOptions:
    given = {
        "dataset": "eurosat",
        "method": options.method,
        "method_options": options.option,
        "labels_per_class": options.labels,
        "effort": options.effort,
        "steps": options.steps,
        "encoder": options.encoder,
        "pretrained": not options.encoder.startswith("wide_resnet"),
        "seed": seed,
        "device": options.device,
    }
    return TrainOptions.make(given, flags=True)


def of_bundle(options: argparse.Namespace, images: ImageSet, merced: ImageSet) -> dict[str, Any]:
    """Return the row of a trained bundle; `--labels` and its seed draw the validation images."""
    bundle = load_bundle(options.bundle)
    known, seed = [entry.name for entry in bundle.manifest.classes], bundle.manifest.training.seed
    unknown = [name for name in known if name not in images.classes]
    if unknown:
        raise DataError(f"{options.bundle}: class {unknown[0]!r} found, expected classes of {images.name}")
    held_out = tuple(name for name in images.classes if name not in known)
    start = time.perf_counter()
    predictor = ScenePredictor(bundle, options.device)
    drawn = draw_images(without_classes(images, held_out), options.labels, "per_class", seed)
    validation = classified(predictor, drawn, drawn.validation)
    figures, test = measured(predictor, drawn, validation, outside(images, held_out, merced))
    seconds = merced.opening_s + time.perf_counter() - start
    result = SceneResult(bundle.manifest.method, bundle.manifest.encoder, figures, test, seconds, 0.0, 0.0)
    said = f"bundle {bundle.fingerprint[:16]}; {_MEASURED}"
    row = _row(result, drawn, RunInfo(SUITE, options.labels, "per_class", seed, "", said, "bundle"))
    _tell(row)
    return row


_MEASURED = (
    "inside: test images of its classes; outside: UC Merced area-averaged to 64 px, test images of held-out classes; "
    f"kNN: {N_NEIGHBOURS}th nearest of all training images, features of length 1; Mahalanobis: classes as predicted"
)


def measured(
    predictor: ScenePredictor, drawn: Drawn, validation: Classified, others: Mapping[str, ImageSet]
) -> tuple[dict[str, Any], Classified]:
    """Return the classifier's figures with those of unlikeness, and what it makes of the test images."""
    test = classified(predictor, drawn, drawn.test)
    figures = classifier_figures(validation, test, class_names=drawn.classes)
    return figures | unlike_figures(predictor, drawn, test, others), test


def _row(result: SceneResult, drawn: Drawn, info: RunInfo) -> dict[str, Any]:
    return scene_row(result, drawn, info) | {"ood_k": N_NEIGHBOURS}


def outside(images: ImageSet, held_out: tuple[str, ...], merced: ImageSet) -> dict[str, ImageSet]:
    """Return the sets of images that are unlike the training ones, by name."""
    held = {HELD_OUT: held_out_images(images, held_out)} if held_out else {}
    return {"UC Merced": merced, **held}


def _tell(row: dict[str, Any]) -> None:
    metrics = row["metrics"]
    print(f"seed {row['seed']}, {row['variant']}: accuracy {metrics['oa']:.3f}")
    for name, scores in metrics["ood"].items():
        said = ", ".join(f"{score} {figures['auroc']:.3f}" for score, figures in scores.items())
        print(f"  AUROC against {name}: {said}", flush=True)


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, help="folder of a trained bundle, instead of training")
    parser.add_argument("--method", default="fixmatch")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of the method; as often as needed"
    )
    parser.add_argument("--labels", type=int, default=5, help="labels a class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--encoder", default="efficientnet_lite0")
    parser.add_argument("--held-out", default=",".join(HELD_OUT_CLASSES))
    parser.add_argument("--data", type=Path, help="folder of EuroSAT")
    parser.add_argument("--merced", type=Path, help="folder of UC Merced")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if options.bundle is not None and options.option:
        parser.error(f"--option {options.option[0]}: a bundle was trained with options of its own; leave it out")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
