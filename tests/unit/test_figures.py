"""The figures of README and of its page come from the committed rows."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

from scripts import load_script

ROOT = Path(__file__).resolve().parents[2]


def _script() -> ModuleType:
    return load_script("benchmarks/figures.py")


def row(method: str, seed: int, **metrics: float) -> dict[str, object]:
    return {
        "suite": "demo",
        "dataset": "scene",
        "method": method,
        "labels": 5,
        "labels_unit": "polygons_per_class",
        "seed": seed,
        "metrics": metrics,
        "wall_s": 60.0,
        "hardware": "2 cores",
    }


def test_means_and_deviations_over_seeds(tmp_path: Path) -> None:
    rows = [row("random_forest", 0, oa=0.4, miou=0.3), row("random_forest", 1, oa=0.6, miou=0.5)]
    rows.append(row("berunda", 0, oa=0.7, miou=0.6, other=1.0))
    (tmp_path / "demo.json").write_text(json.dumps(rows))
    text = _script().tables(tmp_path).splitlines()
    assert text[0] == "**demo** (scene; 2 cores; mean ± standard deviation over seeds)"
    assert text[2] == "| method | labels | seeds | OA | mIoU | time a run |"
    assert text[4] == "| random forest | 5 polygons per class | 2 | 0.500 ± 0.141 | 0.400 ± 0.141 | 60 s |"
    assert len(text) == 7
    assert text[6] == "Fewer seeds, so not comparable in a mean: berunda; see `benchmarks/results/demo.json`."


def test_segmenters_have_a_table_for_each_data_set_and_one_of_collapsed_runs(tmp_path: Path) -> None:
    rows = []
    for dataset in ("dubai", "landscapes"):
        for labels in (4, 16):
            made = row("hvae", 0, oa=0.9, miou=0.1 * labels / 4, majority_miou=0.15, is_collapsed=labels == 4)
            rows.append(made | {"task": "segmentation", "dataset": dataset, "labels": labels, "labels_unit": "images"})
    rows[0]["returned"] = ["it diverged"]
    (tmp_path / "hvae.json").write_text(json.dumps(rows))
    text = _script().tables(tmp_path)
    titles = [line.split("**")[1] for line in text.splitlines() if line.startswith("**")]
    assert titles == [f"hvae, {name}{end}" for name in ("dubai", "landscapes") for end in ("", ", collapsed runs")]
    assert "| method | mIoU, 4 images | mIoU, 16 images | time a run |" in text
    assert "| hvae | 0.100 (1) | 0.400 (1) | 60 s |" in text
    assert "| hvae | 4 images | 1 | 1 | 0.100 | 0.150 | 1 |" in text
    assert "| hvae | 16 images | 1 | 0 | 0.400 | 0.150 | 0 |" in text


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text(json.dumps([row("berunda", 0, oa=0.7, miou=0.6, other=1.0)]))
    text = _script().tables(tmp_path).splitlines()
    assert text[4] == "| berunda | 5 polygons per class | 1 | 0.7 | 0.6 | 60 s |"


def test_without_results(tmp_path: Path) -> None:
    assert _script().tables(tmp_path) == "No benchmark has been run yet."


def test_several_numbers_of_labels_become_columns(tmp_path: Path) -> None:
    rows = [
        {**row("fixmatch", seed, oa=0.5 + labels / 100 + seed / 10), "labels": labels, "labels_unit": "per_class"}
        for labels in (20, 5)
        for seed in (0, 1)
    ]
    rows.append({**row("supervised", 0, oa=0.4), "labels": 5, "labels_unit": "per_class"})
    (tmp_path / "demo.json").write_text(json.dumps(rows))
    text = _script().tables(tmp_path).splitlines()
    assert text[0].endswith("standard deviation over seeds, in brackets the number of seeds)")
    assert text[2] == "| method | OA, 5 per class | OA, 20 per class | time a run |"
    assert text[4] == "| fixmatch | 0.600 ± 0.071 (2) | 0.750 ± 0.071 (2) | 60 s |"
    assert text[5] == "| supervised | 0.400 (1) |  | 60 s |"
    assert len(text) == 6


def test_nets_of_several_encoders_are_not_averaged(tmp_path: Path) -> None:
    scene = {"labels_unit": "per_class", "task": "scene"}
    rows = [
        {**row("fixmatch", 0, oa=0.2 * number), **scene, "labels": labels, "encoder": encoder}
        for number, encoder in enumerate(("one", "two"), start=1)
        for labels in (5, 20)
    ]
    rows.append({**row("features_logreg", 0, oa=0.7), **scene, "labels": 5, "encoder": "one"})
    (tmp_path / "eurosat_gpu.json").write_text(json.dumps(rows))
    lines = [line.split(" | ")[:2] for line in _script().tables(tmp_path).splitlines()[4:]]
    assert lines == [
        ["| fixmatch (one)", "0.200 (1)"],
        ["| fixmatch (two)", "0.400 (1)"],
        ["| features logreg (one)", "0.700 (1)"],
    ]


def test_classifiers_show_their_calibration_before_and_after_scaling(tmp_path: Path) -> None:
    scene = {"labels_unit": "per_class", "task": "scene", "labels": 5}
    figures = {"oa": 0.9, "ece": 0.04, "ece_before": 0.48}
    rows: list[dict[str, object]] = [{**row("features_logreg", 0, **figures), **scene}]
    rows.append({**row("fixmatch", 0, **figures, ece_single_view=0.05, ece_before_single_view=0.5), **scene})
    (tmp_path / "eurosat.json").write_text(json.dumps(rows))
    text = _script().tables(tmp_path)
    of = {part.splitlines()[0].split("**")[0]: part.splitlines()[2:] for part in text.split("\n\n**")}
    assert of["eurosat, ECE before scaling"][0] == "| method | ECE before scaling, 5 per class | time a run |"
    assert "| fixmatch | 0.480 (1) | 60 s |" in of["eurosat, ECE before scaling"]
    assert "| fixmatch | 0.040 (1) | 60 s |" in of["eurosat, ECE after scaling"]
    assert of["eurosat, ECE of one view before scaling"][2:] == ["| fixmatch | 0.500 (1) | 60 s |"]
    assert of["eurosat, ECE of one view after scaling"][2:] == ["| fixmatch | 0.050 (1) | 60 s |"]
    assert "scaling" not in _script().tables(tmp_path, ["eurosat"])


def test_a_step_is_told_by_its_parts_and_both_shares(tmp_path: Path) -> None:
    parts = {"data": 0.01, "views": 0.02, "forward_backward": 0.9, "optimizer": 0.03, "other": 0.04}
    own = {"step": 1.0, "bare": 0.8, "bare_trained": 0.6, "share_of_bare": 0.8, "share_of_bare_trained": 0.6}
    (tmp_path / "step_throughput.json").write_text(json.dumps([row("fixmatch", 0, **parts, **own)]))
    head, _, line = (text.strip("| ").split(" | ") for text in _script().tables(tmp_path).splitlines()[2:5])
    told = dict(zip(head, line, strict=True))
    assert told["bare net forward + backward, with the teacher's forward, of the step"] == "0.8"
    assert told["bare net forward + backward alone, of the step"] == "0.6"
    assert [told[name] for name in ("data (s)", "views (s)", "optimizer (s)", "rest (s)")] == [
        "0.01",
        "0.02",
        "0.03",
        "0.04",
    ]
    assert told["forward and backward, the loss and the teacher's forward included (s)"] == "0.9"


def test_runs_on_a_gpu_say_their_speed(tmp_path: Path) -> None:
    rows = []
    for labels, share, speed in ((1, 0.8, 9000.0), (5, 0.9, 11000.0)):
        scene = {"labels_unit": "per_class", "task": "scene", "labels": labels, "images_per_s": speed}
        rows.append({**row("fixmatch", 0, oa=0.9, share_of_bare=share, share_of_bare_trained=0.7), **scene})
    (tmp_path / "eurosat_gpu.json").write_text(json.dumps(rows))
    shown = _script().tables(tmp_path).split("**eurosat_gpu, speed**")[1].splitlines()
    assert shown[2].startswith(
        "| method | runs | image passes a second | bare net forward + backward, with the teacher"
    )
    assert shown[4] == "| fixmatch | 2 | 10000 ± 1414 | 0.850 ± 0.071 | 0.700 ± 0.000 |"


def test_several_labels_an_image_are_shown_by_their_auprc_and_speed(tmp_path: Path) -> None:
    figures = {"macro_f1": 0.5, "macro_auprc": 0.75, "drawn_images_per_s": 800.0}
    told = {"labels_unit": "fraction", "task": "multilabel", "images_per_s": 900.0}
    rows = [{**row("ssl_mae", 0, **figures), **told, "labels": labels} for labels in (0.05, 0.1)]
    (tmp_path / "ssl_mae_gpu.json").write_text(json.dumps(rows))
    text = _script().tables(tmp_path)
    assert "macro AUPRC, 0.05 fraction" in text
    assert "| ssl mae | 0.750 (1) | 0.750 (1) |" in text
    assert "| method | runs | image passes a second | images of the data set a second |" in text
    assert "| ssl mae | 2 | 900 ± 0 | 800 ± 0 |" in text


def test_images_unlike_the_training_ones_are_told_apart_by_what_they_are(tmp_path: Path) -> None:
    def of(auroc: float) -> dict[str, object]:
        return {"max_logit": {"auroc": auroc, "aupr": 0.5, "fpr95": None}}

    scene = {"labels_unit": "per_class", "task": "scene", "variant": "without Forest"}
    rows = []
    for seed in (0, 1):
        rows.append({**row("fixmatch", seed, oa=0.9), **scene})
        rows[-1]["metrics"] = {"oa": 0.9, "ood": {"UC Merced": of(0.9), "held-out classes": of(0.6 + 0.2 * seed)}}
    (tmp_path / "eurosat_ood.json").write_text(json.dumps(rows))
    text = _script().tables(tmp_path)
    shown = text.split("**eurosat_ood, images unlike the training ones**")[1].splitlines()[2:]
    assert shown[0] == "| method | labels | seeds | against | score | AUROC | AUPR | FPR95 |"
    start = "| fixmatch without Forest | 5 per class | 2 |"
    assert shown[2] == f"{start} UC Merced | max logit | 0.900 ± 0.000 | 0.500 ± 0.000 |  |"
    assert shown[3] == f"{start} held-out classes | max logit | 0.700 ± 0.141 | 0.500 ± 0.000 |  |"


def test_generated_images_and_runs_that_diverged_are_told(tmp_path: Path) -> None:
    names = ("frechet_net", "kernel_net", "kernel_net_deviation", "frechet_net_of_training", "kernel_net_of_training")
    metrics = {"oa": 0.5, **dict(zip(names, (20.0, 0.01, 0.002, 1.0, 0.0), strict=True))}
    metrics |= {"n_generated": 1000, "n_real": 1000, "n_subset": 250}
    one = {"task": "scene", "encoder": "small", "labels_unit": "per_class"}
    rows = [{**row("jem", seed, **metrics), **one, "returned": ["step 5: NaN"] * (2 * seed)} for seed in (0, 1)]
    for found in rows:
        found["metrics"]["samples_encoder"] = "net"  # type: ignore[index]
    rows.append({**row("supervised", 0, oa=0.4), **one, "returned": []})
    (tmp_path / "demo.json").write_text(json.dumps(rows))
    (tmp_path / "demo_diverged.json").write_text(json.dumps({"vae, seed 1": {"error": "step 9: NaN", "setting": {}}}))
    text = _script().tables(tmp_path)
    assert "Diverged and went back to a checkpoint, times by seed: jem, 5 per class: 0, 2." in text
    assert "Diverged, and without a row: vae, seed 1 (step 9: NaN)." in text
    assert "**demo, generated images**" in text
    line = next(line for line in text.splitlines() if line.endswith("| 1000, 1000, 250 |"))
    assert line.startswith("| jem | 5 | 20.00 ± 0.00 (2 seeds) | 10.00 ± 0.00 (2 seeds) | 2.00 ± 0.00 (2 seeds) | 1.00")


def test_the_page_prints_protocols(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text(json.dumps([{**row("berunda", 0, oa=0.7), "protocol": "split of index.csv"}]))
    assert _script().tables(tmp_path, protocols=True).endswith("\n\nProtocol: split of index.csv.")
    assert "Protocol" not in _script().tables(tmp_path)


def test_published_figures_stand_with_their_protocols(tmp_path: Path) -> None:
    found = [{**row("fixmatch", 0, oa=0.9), "dataset": "eurosat", "task": "scene"}, row("demo", 0, oa=0.1)]
    (tmp_path / "eurosat.json").write_text(json.dumps(found))
    text = _script().published(tmp_path)
    assert text.count("## Published on") == 1
    assert "| 94.45 |" in text
    assert "the thesis's own split and training | J. Castillo-Navarro, PhD thesis, 2022 |" in text
    assert _script().published(tmp_path / "nothing") == ""


def test_chosen_tables_in_the_order_asked_for(tmp_path: Path) -> None:
    for name in ("demo", "other", "third"):
        (tmp_path / f"{name}.json").write_text(json.dumps([row("berunda", 0, oa=0.7)]))
    (tmp_path / "note.json").write_text(json.dumps({"labels": [1, 2]}))
    text = _script().tables(tmp_path, ["third", "demo", "absent"])
    assert [line.split("**")[1] for line in text.splitlines() if line.startswith("**")] == ["third", "demo"]


def test_times_of_stages_are_shown_and_those_of_a_busy_machine_marked(tmp_path: Path) -> None:
    run = row("m", 0, odd=1.0) | {"metrics": {"odd": 1.0, "draw (s)": 2.0}, "measure_again": True}
    (tmp_path / "demo.json").write_text(json.dumps([run]))
    text = _script().tables(tmp_path).splitlines()
    assert text[2] == "| method | labels | seeds | draw (s) | time a run |"
    assert text[4].endswith("| 2 | 60 s, on a busy machine |")
