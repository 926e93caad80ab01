"""What README and the documentation say is true: commands parse, cheap ones run, generated parts are new."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from berunda.cli.flags import Flag
from berunda.cli.main import main
from berunda.cli.verbs import VERBS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MAKE = {"demo", "test", "test-all", "lint", "bench", "docs"}


def blocks(text: str) -> list[str]:
    """Return the lines of all fenced blocks without a language, and all inline code."""
    fenced = re.findall(r"```(?:sh|bash|console)?\n(.*?)```", text, flags=re.S)
    return [line.strip() for block in fenced for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", text)


def commands(word: str) -> list[tuple[str, str]]:
    """Return (page, command) for each command that begins with `word` in README and the documentation."""
    found = []
    for page in PAGES:
        lines = blocks(page.read_text(encoding="utf-8"))
        found += [(page.name, line) for line in lines if re.match(rf"(\.venv/bin/)?{word} \S", line)]
    return found


def test_there_are_commands_to_check() -> None:
    assert len(commands("berunda")) >= 8
    assert {command for page, command in commands("make") if page == "README.md"} >= {
        "make demo",
        "make test",
    }


@pytest.mark.parametrize(("page", "command"), commands("berunda"))
def test_every_documented_command_has_its_verb_and_flags(page: str, command: str) -> None:
    words = shlex.split(command)[1:]
    verbs = {verb.name: verb for verb in VERBS}
    if words[0].startswith("-"):
        assert words == ["--help"] or words == ["--version"]
        return
    assert words[0] in verbs, f"{page}: {command}"
    flags = {flag_name(flag) for flag in verbs[words[0]].flags() if not flag.argument}
    used = {word for word in words if word.startswith("--")}
    assert used <= flags | {"--help", "--quiet", "--debug"}, f"{page}: {command}"


def flag_name(flag: Flag) -> str:
    return flag.spelled or "--" + flag.name.replace("_", "-")


@pytest.mark.parametrize(("page", "command"), commands("python"))
def test_every_documented_script_is_there_and_takes_its_flags(page: str, command: str) -> None:
    _, script, *words = shlex.split(command)
    text = (ROOT / script).read_text(encoding="utf-8")
    if "berunda.bench.piece_options import" in text:
        text += (ROOT / "src" / "berunda" / "bench" / "piece_options.py").read_text(encoding="utf-8")
    for word in words:
        if word.startswith("--"):
            assert f'"{word}"' in text, f"{page}: {command}"


def test_cheap_documented_commands_run(capsys: pytest.CaptureFixture[str]) -> None:
    for command in sorted({command for _, command in commands("berunda")}):
        words = shlex.split(command)[1:]
        if words[0] == "methods" or words[-1] == "--help":
            assert main(words) == 0, command
            assert capsys.readouterr().out


def test_the_makefile_has_its_six_verbs() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", text, flags=re.M)
    assert phony is not None
    assert set(phony.group(1).split()) == MAKE
    assert set(re.findall(r"^([a-z][a-z-]*):", text, flags=re.M)) == MAKE
    for page, command in commands("make"):
        assert command.split()[1].split("=")[0] in MAKE | {"PYTHON"}, f"{page}: {command}"


def test_readme_gives_the_benchmark_that_make_does() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    made = {tuple(shlex.split(found)) for found in re.findall(r"-m (berunda bench .*) --out benchmarks/results", text)}
    lines = [line for page, line in commands("berunda bench eurosat") if page == "README.md"]
    shown = {tuple(shlex.split(line.split(" --out")[0])) for line in lines}
    assert ("berunda", "bench", "eurosat_all") in made
    assert shown
    assert shown <= made


def test_links_inside_the_project_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("script", ["docs/import_graph.py", "docs/pages.py", "benchmarks/figures.py"])
def test_generated_parts_are_current(script: str) -> None:
    done = subprocess.run([sys.executable, str(ROOT / script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr} run `make docs`"


@pytest.mark.parametrize("page", ["README.md", "docs/scenes.md"])
def test_python_in_pages_compiles_and_names_what_there_is(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert code
    for block in code:
        compile(block, page, "exec")
    import berunda

    for name in re.findall(r"\bbd\.(\w+)", "".join(code)):
        assert hasattr(berunda, name), f"{page} uses berunda.{name}, which there is not"


def test_no_text_names_a_package_registry() -> None:
    hosts = re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|--(extra-)?index-url|--find-links")
    paths = [*PAGES, ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / ".ci" / "run"]
    paths += sorted((ROOT / "src").rglob("*.py"))
    assert [str(path) for path in paths if hosts.search(path.read_text(encoding="utf-8"))] == []
