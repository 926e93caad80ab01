"""`berunda analyze` and `berunda split` end to end, and every bad input."""

from __future__ import annotations

import csv
import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from toy_masks import scene as stripes
from toy_masks import write_png
from toy_sites import picture, write_site, write_sites

from berunda.api.analyze_verb import analyze
from berunda.api.split_verb import audit, split
from berunda.cli.main import main
from berunda.data.images import TEST, TRAIN, UNLABELLED, VALIDATION, open_images
from berunda.data.masks.images import open_masks
from berunda.data.site_layouts import Cutting, find_sites
from berunda.data.synthetic import CLASS_NAMES, Landscape, block, write_polygons, write_scene, write_truth
from berunda.errors import ConfigError, DataError
from berunda.geo.grid import Window
from berunda.options.analyze import AnalyzeOptions, SplitOptions

FAST = ["--image-px", "32"]
TABLES = {"plane.csv", "overlap.csv", "classes.csv", "label_next.csv"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def options(root: Path, **more: object) -> AnalyzeOptions:
    return AnalyzeOptions.make({"inputs": [str(root)], "image_px": 32, **more})


def test_the_verb_tells_which_site_is_not_covered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = write_sites(tmp_path / "sites", 24), tmp_path / "out"
    words = ["analyze", str(root), "--labelled", "east", "--test", "north,west", "--out", str(out), *FAST]
    assert main([*words, "--label-next", "5"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"Site west is covered to [0-9]% .*extrapolating there", said)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    unions = report["overlap"]["unions_plane"]
    row = dict(zip(unions["s2"], unions["iot"][unions["s1"].index("labelled")], strict=True))
    assert row["west"] < 0.1 < row["north"]
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert not re.search(r"https?://", html)
    assert html.count('class="pt ') == 96
    with (out / "label_next.csv").open(encoding="utf-8") as file:
        ranked = list(csv.DictReader(file))
    assert len(ranked) == 5
    assert {line["site"] for line in ranked} == {"south"}
    assert main(["analyze", str(out / "run.yaml"), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "plane.csv").read_bytes() == (out / "plane.csv").read_bytes()


def test_the_stages_add_up_to_the_time_of_the_whole(tmp_path: Path) -> None:
    root, out = write_sites(tmp_path / "sites", 4), tmp_path / "out"
    start = time.perf_counter()
    timing = analyze(options(root), out).analysis.timing
    seconds = time.perf_counter() - start
    assert sum(timing.values()) == pytest.approx(seconds, rel=0.02)
    assert list(timing)[-3:] == ["tables", "report", "other"]
    told = json.loads((out / "report.json").read_text(encoding="utf-8"))["timing"]
    assert 0.3 * timing["report"] < told["report"] < timing["report"]
    assert told.keys() == timing.keys()
    html = (out / "report.html").read_text(encoding="utf-8")
    assert all(f'<th scope="row">{name}</th>' in html for name in ("report", "other", "total"))


def test_the_same_seed_gives_the_same_figures_bit_for_bit(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "sites"
    for seed, site in enumerate(("a", "b", "c")):
        write_site(root / site / "field", seed, 6)
        write_site(root / site / "town", 10 + seed, 6, (200, 200, 200))
    given = options(root, seed=3, labelled=("a",), test=("c",), max_per_site=9, label_next=5)
    first = analyze(given, tmp_path / "a").analysis
    shutil.rmtree(cache)
    second = analyze(given, tmp_path / "b").analysis
    assert not second.found.from_cache
    assert first.found.features.tobytes() == second.found.features.tobytes()
    assert first.plane.tobytes() == second.plane.tobytes()
    assert first.support.masks.tobytes() == second.support.masks.tobytes()
    assert {path.name for path in (tmp_path / "a").glob("*.csv")} == TABLES
    for name in TABLES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    reports = [json.loads((tmp_path / out / "report.json").read_text(encoding="utf-8")) for out in "ab"]
    assert all(report.pop("timing") for report in reports)
    assert reports[0] == reports[1]
    other = analyze(given.replaced(seed=4), tmp_path / "c").analysis
    assert other.plane.tobytes() != first.plane.tobytes()


def test_the_same_seed_gives_the_same_split_bit_for_bit(tmp_path: Path, cache: Path) -> None:
    root = write_sites(tmp_path / "sites", 6)
    tables = []
    for _ in range(2):
        split(SplitOptions.make({"inputs": [str(root)], "image_px": 32, "max_per_site": 4}), root / "split.csv")
        tables.append((root / "split.csv").read_bytes())
        shutil.rmtree(cache)
    assert tables[0] == tables[1]


def test_a_scene_with_labels_and_polygons_for_qgis(tmp_path: Path) -> None:
    import pyogrio

    spec = Landscape(seed=3, rows=256, cols=256, cloud_share=0.0, site="site23")
    scene, truth = write_scene(tmp_path / "scene.tif", spec), write_truth(tmp_path / "truth.tif", spec)
    out = tmp_path / "out"
    given = options(scene, labels=str(truth), block_px=32, test=("r0*",), labelled=("r1*",), label_next=4)
    found = analyze(given, out)
    figures = found.analysis.class_figures
    assert figures is not None
    assert figures.by_site.sum() == 256 * 256
    info = pyogrio.read_info(out / "label_next.gpkg")
    assert info["features"] == 4
    assert (out / "classes.csv").is_file()


def test_two_data_sets_in_one_plane(tmp_path: Path) -> None:
    one, two = write_sites(tmp_path / "one", 8), write_sites(tmp_path / "two", 8)
    given = {"compare_with": str(two), "resolution": 1.0, "with_resolution": 4.0}
    coarse = analyze(options(one, **given), tmp_path / "coarse").warnings
    assert any("Only 8 x 8 px are left of each image at 4 m" in text for text in coarse)
    outcome = analyze(options(one, **given | {"with_resolution": 2.0}), tmp_path / "out")
    assert not any("px are left" in text for text in outcome.warnings)
    assert len(outcome.analysis.sites) == 64
    assert any("shown at 2 m, 32 m wide" in text for text in outcome.warnings)
    assert sum("of the appearance of data set" in text for text in outcome.findings) == 2


def test_one_site_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    write_site(tmp_path / "d" / "only", 1, 5)
    with pytest.raises(DataError, match=r"one site found \(only\).*--site-px"):
        analyze(options(tmp_path / "d"), tmp_path / "out")


def test_sites_of_one_and_two_images_have_no_support_and_say_so(tmp_path: Path) -> None:
    root = write_sites(tmp_path / "sites", 8)
    write_site(root / "tiny", 9, 1)
    write_site(root / "two", 10, 2)
    outcome = analyze(options(root, test=("tiny", "west")), tmp_path / "out")
    assert any("tiny, two have fewer than 3 images" in text for text in outcome.warnings)
    assert not any("Site tiny" in text for text in outcome.findings)


def test_images_that_cannot_be_read_are_named_and_counted(tmp_path: Path) -> None:
    root = write_sites(tmp_path / "sites", 6)
    (root / "east" / "000.png").write_bytes(b"broken")
    (root / "west" / "001.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 24 images cannot be read: 'east/000.png'.*--skip-broken"):
        analyze(options(root), tmp_path / "out")
    outcome = analyze(options(root, skip_broken=True), tmp_path / "out")
    assert any("2 images cannot be read" in text and "east/000.png" in text for text in outcome.warnings)
    assert len(outcome.analysis.sites) == 22


def test_all_images_alike_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        for k in range(5):
            Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(tmp_path / "d" / name / f"{k}.png")
    with pytest.raises(DataError, match="same features"):
        analyze(options(tmp_path / "d"), tmp_path / "out")


def test_mixed_sizes_lonely_classes_and_an_empty_role(tmp_path: Path) -> None:
    root = tmp_path / "sites"
    for seed, site in enumerate(("a", "b", "c")):
        write_site(root / site / "field", seed, 6)
    write_site(root / "c" / "town", 7, 6, (200, 200, 200), side=48)
    outcome = analyze(options(root, labelled=("a",), test=("c",)), tmp_path / "out")
    assert any("Images of 2 sizes" in text for text in outcome.warnings)
    assert any("1 class is missing from the labelled sites: town" in text for text in outcome.findings)
    assert any("one site only" in text and "town (c)" in text for text in outcome.findings)
    with pytest.raises(ConfigError, match=r"--test: found 'nowhere'"):
        analyze(options(root, test=("nowhere",)), tmp_path / "out")


def test_every_training_site_meets_every_test_site_though_too_many_for_a_picture(tmp_path: Path) -> None:
    for k in range(54):
        write_site(tmp_path / "sites" / f"s{k:02d}", k, 3)
    given = options(tmp_path / "sites", test=("s0?",), labelled=("s[1-4]?", "s50"), unlabelled=("s5[1-3]",))
    outcome = analyze(given, tmp_path / "out")
    with (tmp_path / "out" / "overlap.csv").open(encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["kind"] == "sites"]
    assert {(line["s1"], line["s2"]) for line in lines} == {
        (f"s{k:02d}", f"s0{j}") for k in range(10, 54) for j in range(10)
    }
    assert all(line["iot_full"] for line in lines)
    assert any("overlaps of 44 with 10 sites are too many for a picture" in text for text in outcome.warnings)
    assert "Heat map" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_an_unknown_encoder_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="resnet34"):
        analyze(options(tmp_path, encoder="resnet33"), tmp_path / "out")


def test_any_encoder_of_timm_serves_by_name(tmp_path: Path) -> None:
    root = write_sites(tmp_path / "sites", 4)
    for encoder in ("resnet34", "vgg16"):
        found = analyze(options(root, encoder=encoder, pretrained=False), tmp_path / encoder)
        assert encoder in found.analysis.settings["Encoder"]


def test_a_split_is_proposed_read_by_train_and_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "sites"
    for seed, site in enumerate(("a", "b", "c", "d")):
        write_site(root / site / "field", seed, 6)
        write_site(root / site / "town", 10 + seed, 6, (200, 200, 200))
    path = root / "split.csv"
    assert main(["split", str(root), "--n-labelled", "2", "--out", str(path), *FAST]) == 0
    assert "The cost of this choice" in capsys.readouterr().out
    images = open_images(str(path))
    assert images.classes == ("field", "town")
    assert len(images.of(TEST)) == 12
    assert len(images.of(TRAIN)) > 0
    assert main(["split", "--audit", str(path)]) == 0
    assert "no leak" in capsys.readouterr().out


QUICK = ["--task", "segmentation", "--steps", "2", "--crop-px", "32", "--device", "cpu"]


def test_a_split_of_one_scene_with_polygons_trains_and_compares(tmp_path: Path) -> None:
    spec = Landscape(seed=3, rows=256, cols=256, cloud_share=0.0, site="site23")
    scene = write_scene(tmp_path / "d" / "scene.tif", spec)
    labels = write_polygons(tmp_path / "d" / "labels.gpkg", spec, 30)
    table = tmp_path / "d" / "split.csv"
    words = [
        "split",
        str(scene),
        "--labels",
        str(labels),
        "--field",
        "class",
        "--block-px",
        "32",
        "--n-labelled",
        "8",
        *FAST,
    ]
    assert main([*words, "--buffer-px", "0", "--out", str(table)]) == 0
    masks = open_masks(str(table))
    assert set(masks.classes) <= set(CLASS_NAMES)
    assert masks.sizes.tolist() == [[32, 32]] * len(masks)
    counted, expected = np.zeros(len(masks.classes)), np.zeros(len(masks.classes))
    for index in [*masks.of(TRAIN), *masks.of(VALIDATION), *masks.of(TEST)]:
        row, col = (int(text) for text in masks.names[index].split("@")[1].split(","))
        truth = block(spec, Window(row, col, 32, 32))[1]
        known = masks.labels(index)
        for number, name in enumerate(masks.classes):
            counted[number] += (known == number).sum()
            expected[number] += (truth[known >= 0] == 1 + CLASS_NAMES.index(name)).sum()
    assert all(masks.labels(index).max() >= 0 for index in masks.of(TRAIN))
    assert counted.sum() > 100
    assert expected == pytest.approx(counted, rel=0.1)  # polygons may cut a pixel of another class
    assert main(["split", "--audit", str(table), "--buffer-px", "0"]) == 0
    assert len(find_sites([str(table)], Cutting()).items) == len(masks)
    given = ["--method", "supervised", "--labelled-images", "2", *QUICK]
    assert main(["train", str(table), *given, "--out", str(tmp_path / "model")]) == 0
    assert (tmp_path / "model" / "model" / "model.safetensors").is_file()
    given = ["--methods", "supervised", "--labels", "2", "--seeds", "1", *QUICK[2:]]
    assert main(["bench", "folder", "--data", str(table), *given, "--out", str(tmp_path / "bench")]) == 0


def test_a_split_of_sites_with_masks_trains(tmp_path: Path) -> None:
    for seed in range(4):
        site = tmp_path / "sites" / f"s{seed}"
        for k in range(4):
            image, classes = stripes(32, 10 * seed + k)
            write_png(site / "images" / f"{k}.png", image)
            write_png(site / "masks" / f"{k}.png", (classes + 1).astype(np.uint8))
    table = tmp_path / "sites" / "split.csv"
    assert main(["split", str(tmp_path / "sites"), "--n-labelled", "2", "--out", str(table), *FAST]) == 0
    masks = open_masks(str(table))
    assert len(masks.of(TEST)) == 4
    assert {masks.names[i].split("/")[0] for i in masks.of(TEST)} == {masks.sites[i] for i in masks.of(TEST)}
    assert masks.has_mask[masks.parts != UNLABELLED].all()
    image, classes = stripes(32, 10 * int(masks.names[0][1]) + int(masks.names[0].split("/")[-1][0]))
    assert np.array_equal(masks.labels(0), classes)
    given = ["--method", "supervised", "--labelled-images", "2", *QUICK]
    assert main(["train", str(table), *given, "--out", str(tmp_path / "model")]) == 0


def test_the_audit_finds_planted_leaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "d"
    names = [str(p.relative_to(root)) for p in write_site(root / "a", 1, 6)]
    shutil.copy(root / names[0], root / "copy.png")
    Image.open(root / names[1]).resize((64, 64)).save(root / "again.jpg", quality=70)
    rows = [f"{name},train" for name in names] + ["copy.png,test", "again.jpg,test", "b.png,test"]
    Image.fromarray(picture(77)).save(root / "b.png")
    (root / "split.csv").write_text("file,split\n" + "\n".join(rows) + "\n", encoding="utf-8")
    assert main(["split", "--audit", str(root / "split.csv")]) == 1
    said = capsys.readouterr().out
    assert "duplicate: a/000.png and copy.png: the same pixels" in said
    assert "near duplicate: a/001.png and again.jpg" in said
    assert "2 leaks" in said


def write_table(path: Path, *rows: str) -> str:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


def test_a_file_listed_for_both_parts_is_a_leak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "d"
    write_site(root / "a", 1, 3)
    lines = ["file,split", "a/000.png,train", "a/001.png,valid", "a/000.png,test", "a/002.png,test", "a/001.png,train"]
    assert main(["split", "--audit", write_table(root / "split.csv", *lines)]) == 1
    said = capsys.readouterr().out
    assert "duplicate: a/000.png (row 2) and a/000.png (row 4): the same pixels" in said
    assert "1 leaks" in said


def test_windows_of_one_corner_are_told_apart_by_their_rows(tmp_path: Path) -> None:
    write_scene(tmp_path / "s.tif", Landscape(seed=1, rows=128, cols=128, cloud_share=0.0, site="site23"))
    lines = [
        "file,split,row,col,n_rows,n_cols",
        "s.tif,train,0,0,32,32",
        "s.tif,test,0,0,64,64",
        "s.tif,train,96,96,32,32",
    ]
    found = audit(write_table(tmp_path / "split.csv", *lines), buffer_px=0)
    assert [(leak.kind, leak.first, leak.second) for leak in found.leaks] == [
        ("overlap", "s.tif@0,0 (row 2)", "s.tif@0,0 (row 3)")
    ]


@pytest.mark.parametrize("is_hard", [False, True])
def test_links_are_other_names_of_one_file(tmp_path: Path, is_hard: bool) -> None:
    paths = write_site(tmp_path, 1, 1, side=64)
    link = tmp_path / "link.png"
    (link.hardlink_to if is_hard else link.symlink_to)(paths[0])
    lines = ["file,split,row,col,n_rows,n_cols", "000.png,train,0,0,32,32", "link.png,test,16,16,32,32"]
    found = audit(write_table(tmp_path / "split.csv", *lines), buffer_px=0)
    assert [(leak.kind, leak.first, leak.second) for leak in found.leaks] == [
        ("overlap", "000.png@0,0", "link.png@16,16")
    ]
    lines = ["file,split,row,col,n_rows,n_cols", "000.png,train,,,,", "link.png,test,32,32,32,32"]
    found = audit(write_table(tmp_path / "split.csv", *lines), buffer_px=0)
    assert [leak.kind for leak in found.leaks] == ["overlap"]


def test_images_of_different_bands_are_compared_by_their_grey_values(tmp_path: Path) -> None:
    paths = write_site(tmp_path / "a", 1, 4)
    Image.open(paths[0]).convert("L").save(tmp_path / "grey.png")
    Image.fromarray(picture(77)[..., 0]).save(tmp_path / "other.png")
    lines = ["file,split", *(f"a/{p.name},train" for p in paths), "grey.png,test", "other.png,test"]
    found = audit(write_table(tmp_path / "split.csv", *lines))
    assert [(leak.kind, leak.first, leak.second) for leak in found.leaks] == [
        ("near duplicate", "a/000.png", "grey.png")
    ]
    assert any("by their grey values" in text for text in found.warnings)


def test_the_audit_finds_neighbours_and_overlaps_of_windows(tmp_path: Path) -> None:
    write_scene(tmp_path / "s.tif", Landscape(seed=1, rows=128, cols=256, cloud_share=0.0, site="site23"))
    rows = ["s.tif,train,0,0,32,32", "s.tif,train,0,90,32,32", "s.tif,unlabelled,0,36,32,32", "s.tif,test,16,16,32,32"]
    text = "file,split,row,col,n_rows,n_cols\n" + "\n".join(rows) + "\n"
    (tmp_path / "split.csv").write_text(text, encoding="utf-8")
    found = audit(tmp_path / "split.csv")
    assert [leak.kind for leak in found.leaks] == ["overlap"]
    assert "25%" in found.leaks[0].detail
    assert len(found.transductive) == 1
    wide = audit(tmp_path / "split.csv", buffer_px=64)
    assert sorted(leak.kind for leak in wide.leaks) == ["neighbour", "overlap"]


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_sites_that_are_to_stay_unlabelled_do(tmp_path: Path) -> None:
    root = write_sites(tmp_path / "sites", 6)
    for unlabelled, labelled in ((("east", "north"), None), (("w*",), ("south",))):
        given = SplitOptions.make(
            {"inputs": [str(root)], "image_px": 32, "unlabelled": unlabelled, "labelled": labelled}
        )
        outcome = split(given, root / "split.csv")
        of_role = {role: {s for s, r in outcome.roles.items() if r == role} for role in ("labelled", "test")}
        assert len(of_role["labelled"]) == len(of_role["test"]) == 1
        assert not {"east", "north"} & (of_role["labelled"] | of_role["test"]) or unlabelled == ("w*",)
        assert outcome.roles["west"] == "unlabelled" or unlabelled != ("w*",)
        assert labelled is None or of_role["labelled"] == {"south"}


def test_sites_that_a_table_calls_unlabelled_may_be_labelled(tmp_path: Path) -> None:
    root = write_sites(tmp_path / "sites", 4)
    lines = [f"{p.parent.name},{p.parent.name}/{p.name},unlabelled" for p in sorted(root.rglob("*.png"))]
    table = write_table(root / "sites.csv", "site,path,role", *lines)
    outcome = split(SplitOptions.make({"inputs": [table], "image_px": 32}), root / "split.csv")
    assert sorted(outcome.roles.values()) == ["labelled", "test", "unlabelled", "unlabelled"]


def test_every_image_of_the_input_stands_in_the_table(tmp_path: Path) -> None:
    root = write_sites(tmp_path / "sites", 9)
    (root / "east" / "000.png").write_bytes(b"broken")
    twin = (root / "north" / "001.png").read_bytes()
    for site in ("east", "south", "west"):
        (root / site / "copy.png").write_bytes(twin)
    given = {"inputs": [str(root)], "image_px": 32, "max_per_site": 4, "skip_broken": True, "test": ("north",)}
    outcome = split(SplitOptions.make(given), root / "split.csv")
    rows = rows_of(outcome.table)
    assert {row["file"] for row in rows} == {p.relative_to(root).as_posix() for p in root.rglob("*.png")}
    left_out = [row["file"] for row in rows if row["split"] == "left out"]
    assert sorted(left_out) == ["east/000.png", "east/copy.png", "south/copy.png", "west/copy.png"]
    assert [row["file"] for row in rows[-4:]] == left_out
    assert audit(outcome.table).is_clean
    assert audit(outcome.table).n_images == len(rows) - 4
    assert any("stand in the table too" in text for text in outcome.warnings)
    again = analyze(options(outcome.table), tmp_path / "out").analysis
    assert len(again.sites) == len(rows) - 4


def test_figures_of_a_split_are_of_what_the_buffer_leaves(tmp_path: Path) -> None:
    root = write_sites(tmp_path / "sites", 8)
    for path in sorted((root / "north").iterdir()):  # east shows what north shows, and all of it is left out
        (root / "east" / path.name).write_bytes(path.read_bytes())
    given = {"inputs": [str(root)], "image_px": 32, "test": ("north",), "n_labelled": 1}
    outcome = split(SplitOptions.make({**given, "labelled": ("east",)}), root / "split.csv")
    assert outcome.counts == {"labelled": 0, "unlabelled": 16, "test": 8, "left out": 8}
    assert outcome.figures["test_covered_by_labelled"] == 0.0
    free = split(SplitOptions.make(given), root / "split.csv")
    assert free.roles["east"] == "unlabelled"
    assert free.counts["labelled"] == 8


def test_blocks_of_a_scene_are_split_with_a_buffer(tmp_path: Path) -> None:
    spec = Landscape(seed=3, rows=256, cols=256, cloud_share=0.0, site="site23")
    scene = write_scene(tmp_path / "scene.tif", spec)
    given = SplitOptions.make({"inputs": [str(scene)], "block_px": 32, "image_px": 32})
    outcome = split(given, tmp_path / "split.csv")
    assert outcome.counts["left out"] > 0
    assert outcome.outlines is not None
    assert audit(outcome.table).is_clean
    assert not audit(outcome.table, buffer_px=200).is_clean


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["split"], "SITES: found none|--out: found none"),
        (["split", "x", "--out", "s.txt"], "expected the name of a .csv table"),
        (["split", "--audit", "s.csv", "--n-test", "2"], "--audit with --n-test"),
        (["split", "--audit", "s.csv", "--seed", "2"], "--audit with --seed: expected no other than"),
        (["split", "--audit", "missing.csv"], "cannot be read"),
        (["analyze", "missing", "--out", "o"], "does not exist"),
        (["analyze", "x", "--common-resolution", "3", "--out", "o"], "found without --with"),
    ],
)
def test_wrong_words_are_told_in_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert re.search(told, error)
    assert not Path("o").exists()
    assert len(error.strip().splitlines()) == 1


def test_a_table_below_its_images_is_refused(tmp_path: Path) -> None:
    root = write_sites(tmp_path / "sites", 3)
    given = SplitOptions.make({"inputs": [str(root)], "image_px": 32})
    with pytest.raises(ConfigError, match="below the table's folder"):
        split(given, tmp_path / "elsewhere" / "split.csv")


def test_a_split_writes_over_no_input(tmp_path: Path) -> None:
    root = write_sites(tmp_path / "sites")
    (root / "mine.csv").write_text("file,site\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.csv is an input"):
        split(SplitOptions(inputs=[str(root / "mine.csv")]), root / "mine.csv")
    (root / "split.gpkg").write_bytes(b"polygons of somebody")
    with pytest.raises(ConfigError, match=r"split\.gpkg is an input"):
        split(SplitOptions(inputs=[str(root)], labels=str(root / "split.gpkg"), field="class"), root / "split.csv")
    with pytest.raises(ConfigError, match=r"split\.gpkg is there"):
        split(SplitOptions(inputs=[str(root)]), root / "split.csv")
    assert (root / "split.gpkg").read_bytes() == b"polygons of somebody"


def test_a_split_writes_its_rasters_over_nothing_of_others(tmp_path: Path) -> None:
    spec = Landscape(seed=1, rows=128, cols=128, cloud_share=0.0, site="site23")
    folder, labels = tmp_path / "scenes", str(write_truth(tmp_path / "classes.tif", spec))
    folder.mkdir()
    first, second = (write_scene(folder / name, spec) for name in ("split_truth.tif", "b.tif"))
    with rasterio.open(second, "r+") as file:  # somewhere else
        file.transform = rasterio.Affine.translation(100_000, 0) * file.transform

    def refused(inputs: list[Path], table: str, told: str) -> None:
        given = SplitOptions(inputs=[str(path) for path in inputs], labels=labels, block_px=32, image_px=32)
        with pytest.raises(ConfigError, match=told):
            split(given, folder / table)

    (folder / "split.csv").write_text("file,split\n", encoding="utf-8")  # as if of an earlier split
    refused([first], "split.csv", r"split_truth\.tif is an input")
    (folder / "split.csv").unlink()
    refused([second], "split.csv", r"split_truth\.tif is there")
    (folder / "more_truth_2.tif").write_bytes(b"classes of somebody")
    refused([first, second], "more.csv", r"more_truth_2\.tif is there")
    (folder / "more_truth_2.tif").unlink()
    refused([folder], "other.csv", "taken for scenes next time")
    assert {path.name for path in folder.iterdir()} == {"split_truth.tif", "b.tif"}
