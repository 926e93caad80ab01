"""What stands behind `make lint` and `make test-all`."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from scripts import load_script

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def tool(name: str) -> ModuleType:
    return load_script(f"tools/{name}.py")


def test_every_requirement_has_its_floor() -> None:
    lowest = tool("lowest")
    text = (TOOLS.parent / "pyproject.toml").read_text(encoding="utf-8")
    found = lowest.floors(text)
    assert {"torch", "numpy", "rasterio", "pydantic", "pytest"} <= set(found)
    assert "ruff" not in found
    with pytest.raises(ValueError, match="'torch' in"):
        lowest.floors('[project]\ndependencies = ["torch"]\n[project.optional-dependencies]\ndev = []')


def test_a_version_that_is_not_there_is_no_missing_network() -> None:
    unreachable = tool("lowest").UNREACHABLE
    told = "ERROR: Could not find a version that satisfies the requirement x==2.3 (from versions: {})"
    assert not unreachable.search(told.format("2.3.1, 2.4"))
    assert unreachable.search(told.format("none"))


def test_findings_of_the_audit() -> None:
    findings = tool("audit").findings
    clean = {"name": "a", "version": "1", "vulns": []}
    bad = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
    skipped = {"name": "c", "skip_reason": "not found"}
    assert findings(json.dumps({"dependencies": [clean, bad, skipped]}), "") == (["b 2: CVE-1, mended in 3"], "")
    assert findings(json.dumps({"dependencies": [clean]}), "") == ([], "")


@pytest.mark.parametrize(
    "out", ["", "{}", "[]", '{"dependencies": []}', '{"dependencies": [{"name": "c", "skip_reason": "x"}]}']
)
def test_an_audit_that_saw_nothing_is_not_clean(
    out: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = tool("audit")
    found, reason = audit.findings(out, "ConnectionError: no route\n to host")
    assert found == []
    assert reason
    monkeypatch.setattr(audit, "audited", lambda: (found, reason))
    monkeypatch.delenv("BERUNDA_AUDIT", raising=False)
    assert audit.main() == 0
    assert "SKIPPED, known vulnerabilities were NOT looked for" in capsys.readouterr().out
    monkeypatch.setenv("BERUNDA_AUDIT", "required")
    assert audit.main() == 1
