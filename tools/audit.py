"""Look for known vulnerabilities in what is installed, with pip-audit, where it can be had and its service answers.

    python tools/audit.py

Ends with 1 when a vulnerability is found. Where it cannot look, it says SKIPPED and why, and ends with 0: a
machine without a network must be able to lint, but nobody shall take that for a clean result. With
BERUNDA_AUDIT=required it ends with 1 then, too.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

SECONDS = 120


def audited() -> tuple[list[str], str]:
    """Return the findings, one line each, and why it could not look ("" when it could)."""
    if importlib.util.find_spec("pip_audit") is None:
        return [], "pip-audit is not installed (pip install pip-audit)"
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return [], f"the service did not answer within {SECONDS} s"
    return findings(done.stdout, done.stderr)


def findings(out: str, errors: str) -> tuple[list[str], str]:
    """Return what pip-audit's JSON tells, and why it tells nothing."""
    try:
        report: dict[str, Any] = json.loads(out)
        packages = report["dependencies"]
    except (ValueError, KeyError, TypeError):
        return [], " ".join(errors.split())[-300:] or "pip-audit gave no answer"
    unknown = [p["name"] for p in packages if "skip_reason" in p]
    if not packages or len(unknown) == len(packages):
        return [], "pip-audit looked at no package"
    return [
        f"{package['name']} {package['version']}: {found['id']},"
        f" mended in {', '.join(found['fix_versions']) or 'no version'}"
        for package in packages
        for found in package.get("vulns", ())
    ], ""


def main() -> int:
    """Print the findings and return the exit code."""
    found, reason = audited()
    for line in found:
        print(f"audit: {line}")
    if reason:
        print(f"audit: SKIPPED, known vulnerabilities were NOT looked for: {reason}")
        return int(os.environ.get("BERUNDA_AUDIT") == "required")
    print(f"audit: {len(found)} known vulnerabilities")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
