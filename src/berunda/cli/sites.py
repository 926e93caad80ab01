"""The verbs that look at sites before anything is labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from berunda.cli.session import Session
from berunda.errors import ConfigError
from berunda.options.analyze import AnalyzeOptions, SplitOptions

__all__ = ["run_analyze", "run_split"]

_OF_AUDIT = ("audit", "buffer_px", "skip_broken")


def run_analyze(given: dict[str, Any], session: Session) -> None:
    """Analyse sites and print what was found."""
    out = Path(given.pop("out"))
    inputs = given.get("inputs") or []
    if len(inputs) == 1 and Path(inputs[0]).suffix.lower() in (".yaml", ".yml"):
        from berunda.yamlfile import read_mapping

        given = {**read_mapping(Path(inputs[0])), **{k: v for k, v in given.items() if k != "inputs"}}
    options = AnalyzeOptions.make(given, flags=True)
    from berunda import api

    session.show(api.analyze(options, out, progress=session.progress))


def run_split(given: dict[str, Any], session: Session) -> int:
    """Propose or audit a split; return 1 where the audit finds a leak."""
    out, table = given.pop("out", None), given.pop("audit", None)
    if table is not None:
        return _run_audit(Path(table), out, given, session)
    options = SplitOptions.make(given, flags=True)
    if out is None:
        raise ConfigError("--out: found none, expected the table to write, such as split.csv; or --audit FILE")
    from berunda import api

    session.show(api.split(options, Path(out), progress=session.progress))
    return 0


def _run_audit(table: Path, out: str | None, given: dict[str, Any], session: Session) -> int:
    others = sorted({*given} - {*_OF_AUDIT})
    if out is not None:
        others.append("out")
    if others:
        spelled = ", ".join(SplitOptions.spell(name, True) for name in others)
        raise ConfigError(f"--audit with {spelled}: expected no other than --buffer-px and --skip-broken")
    options = SplitOptions.make(given, flags=True)
    from berunda import api

    outcome = api.audit(table, buffer_px=options.buffer_px, skip_broken=options.skip_broken, progress=session.progress)
    session.show(outcome)
    return int(not outcome.is_clean)
