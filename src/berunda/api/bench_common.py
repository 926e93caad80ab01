"""What benchmarks of every task share: doing the missing runs, refusing unlike ones, noting what was drawn."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from berunda.assess.page import json_text
from berunda.bench.rows import RowFile
from berunda.errors import BerundaError, OutputError
from berunda.files import write_text
from berunda.options.bench import BenchOptions
from berunda.progress import Progress

__all__ = ["case_folder", "command_of_case", "note_draws", "run_missing"]

C = TypeVar("C")


def run_missing(
    cases: Sequence[C],
    rows: RowFile,
    make_row: Callable[[C, Path], Mapping[str, Any]],
    place: Callable[[C], Path],
    progress: Progress,
) -> list[str]:
    """Make the row of each case and add it at once; a run that fails is told, and the others go on.

    Where nothing can be written, no other run would get further, so that error is raised.

    Args:
        cases: the missing runs.
        rows: the file of the finished ones.
        make_row: does one run, given a folder for its checkpoints.
        place: that folder.
        progress: told of every run.

    Returns:
        What failed, in words.
    """
    failed = []
    for number, case in enumerate(cases, start=1):
        progress.note(f"run {number} of {len(cases)}: {case}")
        folder = place(case)
        try:
            row = make_row(case, folder)
        except OutputError:
            raise
        except BerundaError as error:
            progress.note(f"  failed: {error}")
            failed.append(f"{case}: {error}")
            continue
        rows.add([row])
        shutil.rmtree(folder, ignore_errors=True)
        figures = row["metrics"]
        told = (("miou", "mean IoU"), ("macro_auprc", "macro AUPRC"), ("oa", "accuracy"))
        said = ", ".join(f"{title} {figures[name]:.4f}" for name, title in told if figures.get(name) is not None)
        if row.get("validation") is not None:
            said += f" (validation {row['validation']:.4f})"
        progress.note(f"  {said}, {row['wall_s']:.0f} s, {row['images_per_s']:.0f} images/s")
    return failed


def case_folder(work: Path, key: Mapping[str, Any]) -> Path:
    """Return the folder of a run's checkpoints, by what tells the run from others."""
    return work / hashlib.sha256(repr(dict(key)).encode()).hexdigest()[:16]


def command_of_case(
    suite: str,
    options: BenchOptions,
    chosen: Mapping[str, Any],
    method_options: Mapping[str, Any],
    searched: Mapping[str, Sequence[Any]] | None = None,
) -> str:
    """Return a command line that makes one run again.

    Args:
        suite: its name.
        options: of the benchmark.
        chosen: what this run has of methods, labels, seeds and seed, and of further options, by name.
        method_options: hyper-parameters of its method, by "method.name".
        searched: values of hyper-parameters that it chooses among, by "method.name".
    """
    words = ["berunda", "bench", suite]
    words += [word for name, value in chosen.items() for word in ("--" + name.replace("_", "-"), str(value))]
    left = {"suite", "method_options", "search", *chosen}
    for name, value in options.model_dump(mode="json", exclude_defaults=True, exclude=left).items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, Path(value).name if name == "data" else str(value)]
    for name, value in method_options.items():
        words += ["--option", f"{name}={value}"]
    for name, values in (searched or {}).items():
        words += ["--search", f"{name}={':'.join(map(str, values))}"]
    return shlex.join([*words, "--out", "DIR"])


def note_draws(path: Path, dataset: str, fingerprint: str, draws: Iterable[tuple[str, int, str]]) -> None:
    """Add the labelled images of every draw to a file, so that anybody can draw the same.

    Args:
        path: the file.
        dataset: its name.
        fingerprint: of the data set; what was noted for another one is replaced.
        draws: (what was drawn, seed, the images).
    """
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    of_data = known.get(dataset, {})
    if of_data.get("fingerprint") != fingerprint:
        of_data = {"fingerprint": fingerprint, "subsets": {}}
    for what, seed, told in draws:
        of_data["subsets"].setdefault(what, {})[str(seed)] = told
    write_text(path, json_text({**known, dataset: of_data}))
