"""The data sets as lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from berunda.api.datasets_verb import DatasetFacts

__all__ = ["describe_dataset", "list_datasets"]


def list_datasets(found: tuple[DatasetFacts, ...]) -> Iterator[str]:
    """Yield a line for each data set, and how to see more of one."""
    width = max(len(facts.name) for facts in found)
    for facts in found:
        yield f"{facts.name:<{width}}  {facts.status:<7}  {facts.about or facts.title}"
    yield ""
    yield f"Where one is, or where to get it: berunda datasets {found[0].name}"


def describe_dataset(facts: DatasetFacts) -> Iterator[str]:
    """Yield what there is to know about one data set."""
    yield f"{facts.name}: {facts.title}"
    for text in (facts.about, facts.licence):
        if text:
            yield from textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent="  ")
    yield f"  tasks: {', '.join(facts.tasks)}"
    if facts.root is not None:
        yield f"  here: {facts.root}"
    elif facts.is_anywhere:
        yield "  give the path of yours to `berunda train`"
    else:
        yield f"  {facts.advice}"
