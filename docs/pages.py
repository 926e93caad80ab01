"""Write the pages that derive from the code: docs/methods.md and docs/options.md.

Usage: python docs/pages.py [--check]      (--check only fails when a page is out of date)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from berunda.cli.methods import range_of
from berunda.cli.verbs import VERBS
from berunda.config import MapConfig
from berunda.methods import _weighting, describe_method, method_names
from berunda.options.analyze import AnalyzeOptions, SplitOptions
from berunda.options.bench import BenchOptions
from berunda.options.train import TrainOptions
from berunda.schema import Options, expected_of

FOLDER = Path(__file__).resolve().parent
NOTE = "<!-- Written by `make docs` from the code; do not edit. -->"


def methods_page() -> str:
    """Return docs/methods.md."""
    parts = [
        NOTE,
        "# Methods",
        "Choose one that serves segmentation with `berunda map --method NAME`, and one that serves the task of a data "
        "set (scene for whole images, segmentation for images with masks) with `berunda train DATASET --method NAME`. "
        "Set its hyper-parameters with `--option NAME=VALUE`.",
    ]
    about = (_weighting.__doc__ or "").split("\n", 1)
    weights = ["## Learned weights", f"`weighting`: {about[0][0].lower()}{about[0][1:]}", about[1].strip()]
    found = [describe_method(name) for name in method_names()]
    return "\n\n".join([*parts, *_abilities(found), *map(_method, found), *weights]) + "\n"


def _abilities(methods: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the table of what the methods are able to do, and what holds for all."""
    yield "## What they can do"
    columns: dict[str, Callable[[dict[str, Any]], bool]] = {
        "one class an image": lambda m: "scene" in m["needs"]["tasks"],
        "several labels an image": lambda m: "multilabel" in m["needs"]["tasks"],
        "maps": lambda m: "segmentation" in m["needs"]["tasks"],
        "learns from unlabelled images": lambda m: bool(m["needs"]["unlabelled"]),
        "log p(x)": lambda m: m["abilities"]["density"],
        "generates images": lambda m: m["abilities"]["generates"],
        "fills gaps": lambda m: m["abilities"]["fills"],
    }
    lines = [f"| method | {' | '.join(columns)} |", "|---" + "|:---:" * len(columns) + "|"]
    for method in methods:
        cells = ("yes" if can(method) else "" for can in columns.values())
        lines.append(" | ".join((f"| `{method['name']}`", *cells)) + " |")
    yield "\n".join(lines)
    yield (
        "Whatever the method, training calibrates the confidence of the model (by temperature, on held-out labels) and "
        "fits two scores of how unlike the training data something is: the distance of features, and the energy. "
        "Of methods with log p(x) the energy is its negative, up to a constant, and their maps carry it within 0 to 1."
    )


def _method(found: dict[str, Any]) -> str:
    needs = found["needs"]
    facts = [f"Tasks: {', '.join(needs['tasks'])}"]
    if needs["unlabelled"]:
        facts.append(f"{needs['unlabelled_ratio']:g} unlabelled images for each labelled one")
        facts.append(
            f"An unlabelled image costs {needs['forward_passes']:g} forward and "
            f"{needs['trained_passes']:g} trained passes"
        )
    else:
        facts.append("Uses no unlabelled images")
    if needs["labelled_passes"] != 1:
        facts.append(f"A labelled image costs {needs['labelled_passes']:g} trained passes")
    if needs["teacher"]:
        facts.append("Asks for a teacher (an average of the model over the steps)")
    parts = [f"## {found['name']}", found["doc"], ". ".join(facts) + "."]
    if found["settings"]:
        head = ["| option | what it is | values | default | source |", "|---|---|---|---|---|"]
        parts.append("\n".join([*head, *map(_row, found["settings"])]))
    return "\n\n".join(parts)


def _row(setting: dict[str, Any]) -> str:
    only = f" ({', '.join(setting['tasks'])} alone)" if setting["tasks"] else ""
    cells = (setting["help"] + only, range_of(setting), f"`{setting['default']}`", setting["source"] or "")
    return " | ".join((f"| `{setting['name']}`", *cells)) + " |"


def _options_table(model: type[Options], file: str) -> Iterator[str]:
    yield (
        f"| in `{file}` | on the command line | what it does | takes | default |"
        if file
        else ("| name | on the command line | what it does | takes | default |")
    )
    yield "|---|---|---|---|---|"
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        default = properties[name].get("default")
        shown = (
            "" if default in (None, [], {}) else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        )
        spelled = f"`{model.spell(name, True)}`" + (f", `--no-{name.replace('_', '-')}`" if default is True else "")
        takes = expected_of(model, name).replace("|", "or")
        yield f"| `{name}` | {spelled} | {field.description} | {takes} | {shown} |"


def options_page() -> str:
    """Return docs/options.md."""
    lines = [NOTE]
    for title, file, model in (
        ("a map run", "run.yaml", MapConfig),
        ("a training on images", "run.yaml", TrainOptions),
        ("a benchmark", "", BenchOptions),
        ("an analysis of sites", "run.yaml", AnalyzeOptions),
        ("a split of sites", "", SplitOptions),
    ):
        where = f"the command line, `{file}` and" if file else "the command line and"
        lines += [f"# Options of {title}", "", f"One schema serves {where} `{model.__module__}.{model.__name__}`.", ""]
        lines += [*_options_table(model, file), ""]
    lines += ["# Verbs", ""]
    for verb in VERBS:
        lines += [f"## berunda {verb.name}", "", verb.help, "", "```", *verb.examples, "```", ""]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Write the pages, or check them; return the exit code."""
    pages = {"methods.md": methods_page(), "options.md": options_page()}
    stale = [name for name, text in pages.items() if _read(FOLDER / name) != text]
    if "--check" not in arguments:
        for name in stale:
            (FOLDER / name).write_text(pages[name], encoding="utf-8")
        return 0
    for name in stale:
        print(f"docs/{name} is out of date; run `make docs`")
    return int(bool(stale))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
