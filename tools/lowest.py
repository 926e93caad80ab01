"""Test the lowest versions that pyproject.toml promises to work with, in an environment of their own.

    python tools/lowest.py [--folder .venv/lowest] [--print]

Each requirement "name>=floor" is installed as "name==floor", with the lowest Python found that the project
allows; then the fast tests below run there. The environment takes about 6 GB and is kept for the next time; it
is made anew when a floor changes. Without a package index that answers, this says so and ends well: it is
skipped, not passed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_NEEDED = frozenset({"ruff", "mypy", "pip-audit", "torchmetrics", "dask"})
"""Development requirements that the tests below do without."""
TESTS = (
    *("tests/unit/test_config.py", "tests/unit/cli", "tests/unit/geo", "tests/unit/mapping", "tests/unit/models"),
    *("tests/unit/methods", "tests/unit/assess/test_ood.py", "tests/unit/assess/test_report.py"),
    *("tests/golden", "tests/security/test_rasters.py"),
)
UNTIMED = ("-k", "not help_is_fast")
"""How fast old versions are is not promised."""
UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectionError|ConnectTimeout|Name or service not known|Temporary failure in name"
    r"|from versions: none|Read timed out|ProxyError|SSLError",
    re.IGNORECASE,
)


def floors(pyproject: str) -> dict[str, str]:
    """Return name -> lowest version of every requirement, from the text of a pyproject.toml.

    Raises:
        ValueError: a requirement names no lowest version.
    """
    project = tomllib.loads(pyproject)["project"]
    found: dict[str, str] = {}
    for text in (*project["dependencies"], *project["optional-dependencies"]["dev"]):
        match = re.fullmatch(r"([A-Za-z0-9_.-]+)(\[[a-z,]+\])?(>=|==)([0-9][0-9.]*)", text.strip())
        if match is None:
            raise ValueError(f"{text!r} in pyproject.toml names no lowest version: expected name>=version")
        found[match[1]] = match[4]
    return {name: version for name, version in found.items() if name not in NOT_NEEDED}


def lowest_python(pyproject: str) -> str:
    """Return the command of the lowest Python on this machine that the project allows; else the one running this."""
    wanted = tomllib.loads(pyproject)["project"]["requires-python"]
    first = int(wanted.removeprefix(">=3."))
    for minor in range(first, sys.version_info.minor):
        command = shutil.which(f"python3.{minor}")
        if command and subprocess.run([command, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return command
    return sys.executable


def installed(folder: Path, constraints: str, python: str) -> str:
    """Make the environment unless it is there; return "" or why it could not be made."""
    stamp = folder / "constraints.txt"
    if stamp.is_file() and stamp.read_text() == constraints:
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    draft = folder / "draft.txt"
    draft.write_text(constraints)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "-r", str(draft)], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        draft.rename(stamp)
        return ""
    return "\n".join(line for line in done.stderr.splitlines() if line.startswith("ERROR")) or done.stderr[-2000:]


def main() -> int:
    """Return 0 when the tests pass or had to be skipped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / ".venv" / "lowest")
    parser.add_argument("--print", action="store_true", help="only print the versions")
    asked = parser.parse_args()
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    constraints = "".join(f"{name}=={version}\n" for name, version in floors(pyproject).items())
    if asked.print:
        print(constraints, end="")
        return 0
    python = lowest_python(pyproject)
    print(f"lowest versions: making or taking {asked.folder} with {python}", flush=True)
    problem = installed(asked.folder.absolute(), constraints, python)
    if problem:
        skipped = bool(UNREACHABLE.search(problem))
        print(f"lowest versions: {'SKIPPED, no package index answers' if skipped else 'FAILED'}: {problem}")
        return 0 if skipped else 1
    own = str(asked.folder.absolute() / "bin" / "python")
    run = [own, "-m", "pytest", "-q", "-m", "not slow", "-W", "ignore", "-p", "no:cacheprovider", *UNTIMED, *TESTS]
    return subprocess.run(run, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
