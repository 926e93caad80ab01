"""Options of training and benchmarks: read from YAML or flags, every problem at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from berunda.config import dump_config
from berunda.errors import ConfigError
from berunda.options.bench import BenchOptions, parse_labels
from berunda.options.train import TrainOptions, is_config_file, load_train_options


def test_every_problem_is_told_at_once_with_the_nearest_key(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("dataset: eurosat\nlabels_per_clas: 5\nsteps: 0\neffort: long\nlabel_fraction: 2\n")
    with pytest.raises(ConfigError) as caught:
        load_train_options(path)
    text = str(caught.value)
    assert "4 options are wrong" in text
    assert "did you mean 'labels_per_class'?" in text
    assert "steps: found 0" in text
    assert "one of quick, standard, thorough" in text
    assert "label_fraction: found 2" in text


def test_labels_are_counted_in_one_way() -> None:
    with pytest.raises(ConfigError, match="--labels-per-class and --label-fraction: found both"):
        TrainOptions.make({"dataset": "x", "labels_per_class": 5, "label_fraction": 0.1}, flags=True)
    told = [TrainOptions(dataset="x", **given) for given in ({}, {"labels_per_class": 5}, {"label_fraction": 0.1})]
    assert [(o.labels, o.labels_unit) for o in told] == [("all", "per_class"), (5, "per_class"), (0.1, "fraction")]


def test_what_a_run_writes_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    options = TrainOptions(dataset=str(tmp_path / "images"), labels_per_class=3, method_options={"mu": 2.5}, seed=4)
    dump_config(options, tmp_path / "run.yaml", verb="train")
    assert load_train_options(tmp_path / "run.yaml") == options
    assert "Repeat the run: berunda train run.yaml --out DIR" in (tmp_path / "run.yaml").read_text()


def test_paths_count_from_the_file_and_names_stay_names(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "folder.yaml").write_text("dataset: images\n")
    (tmp_path / "name.yaml").write_text("dataset: eurosat\ndata: here\n")
    assert load_train_options(tmp_path / "folder.yaml").dataset == str(tmp_path / "images")
    named = load_train_options(tmp_path / "name.yaml")
    assert (named.dataset, named.data) == ("eurosat", str(tmp_path / "here"))


def test_a_configuration_is_told_from_a_data_set() -> None:
    assert [is_config_file(text) for text in ("run.yaml", "RUN.YML", "eurosat", "table.csv")] == [1, 1, 0, 0]


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "0.0", "some", "", "1e3", "5x"])
def test_what_is_no_number_of_labels_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_labels(text)
    with pytest.raises(ConfigError, match="expected a number from 1, a share below 1, or all"):
        BenchOptions.make({"suite": "eurosat", "labels": ("5", text or " x")}, flags=True)


def test_labels_and_their_unit_agree() -> None:
    with pytest.raises(ConfigError, match=r"--labels: found 0\.5 with the unit per_class, expected numbers"):
        BenchOptions.make({"suite": "eurosat", "labels": "0.5", "labels_unit": "per_class"}, flags=True)
    assert BenchOptions(suite="eurosat", labels="5,all").labels == ("5", "all")


def test_hyper_parameters_name_their_method() -> None:
    options = BenchOptions(suite="s", methods="fixmatch,vat", method_options=["fixmatch.mu=3", "vat.epsilon=0.5"])
    assert options.options_of("fixmatch") == {"mu": 3}
    assert options.options_of("vat") == {"epsilon": 0.5}
    with pytest.raises(ConfigError, match=r"found 'mu', expected METHOD\.NAME=VALUE"):
        BenchOptions.make({"suite": "s", "method_options": ["mu=3"]}, flags=True)
    with pytest.raises(ConfigError, match="'vat' is not among the methods"):
        BenchOptions.make({"suite": "s", "methods": "fixmatch", "method_options": ["vat.epsilon=1"]}, flags=True)
