"""The source never unpickles, evaluates, draws global random numbers or opens connections."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "berunda"

MODULES = {
    *("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"),
    *("random", "socket", "urllib", "http", "requests", "httpx", "ftplib", "telnetlib"),
}
CALLS = {
    *("eval", "exec", "compile", "__import__", "input", "breakpoint"),
    *("os.system", "os.popen", "torch.load", "torch.hub.load", "torch.jit.load"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "pickle.load", "pickle.loads"),
    *("pandas.read_pickle", "pd.read_pickle", "tempfile.mktemp"),
    *("torch.manual_seed", "torch.random.manual_seed", "torch.seed", "numpy.random.seed", "np.random.seed"),
}
NUMPY_RANDOM = {"Generator", "Philox", "SeedSequence", "BitGenerator"}
SEEDS = ("torch.manual_seed", "torch.random.manual_seed")
ALLOWED = {
    ("models/encoders.py", "torch.load"),
    ("data/fetch.py", "urllib.request"),  # asked for by `berunda datasets NAME --fetch` alone
    ("data/fetch.py", "http.client"),
    ("methods/_checking/purity.py", "random"),  # which looks whether a method changes the global generators
}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def forked(tree: ast.AST) -> set[ast.AST]:
    """Return what stands under `with torch.random.fork_rng(...)`, which puts the global generators back."""
    blocks = (node for node in ast.walk(tree) if isinstance(node, ast.With))
    inside = (
        block
        for block in blocks
        for item in block.items
        if isinstance(item.context_expr, ast.Call) and dotted(item.context_expr.func).endswith("fork_rng")
    )
    return {node for block in inside for node in ast.walk(block)}


def banned(tree: ast.AST) -> Iterator[str]:
    under_fork = forked(tree)
    for node in ast.walk(tree):
        if node in under_fork and isinstance(node, ast.Call) and dotted(node.func) in SEEDS:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module.split(".")[0] in MODULES:
                yield node.module
            yield from (f"{node.module}.{n.name}" for n in node.names if f"{node.module}.{n.name}" in CALLS)
        elif isinstance(node, ast.Call):
            yield from banned_call(node)


def banned_call(node: ast.Call) -> Iterator[str]:
    name = dotted(node.func)
    if name in CALLS:
        yield name
    if name.startswith(("np.random.", "numpy.random.")) and name.split(".")[2] not in NUMPY_RANDOM:
        yield name
    for keyword in node.keywords:
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
        if (keyword.arg, value) in (("allow_pickle", True), ("shell", True), ("weights_only", False)):
            yield f"{name}({keyword.arg}={value})"


def test_the_source_is_free_of_banned_calls() -> None:
    found = set()
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        found |= {(name, what) for what in banned(ast.parse(path.read_text(encoding="utf-8")))}
    assert found - ALLOWED == set()


def test_the_one_exception_reads_weights_only() -> None:
    tree = ast.parse((SOURCE / "models" / "encoders.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and dotted(node.func) == "torch.load"]
    assert len(calls) == 1
    keywords = {keyword.arg: keyword.value for keyword in calls[0].keywords}
    assert isinstance(keywords["weights_only"], ast.Constant)
    assert keywords["weights_only"].value is True


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "from torch import load",
        "import urllib.request",
        "torch.load(path)",
        "torch.manual_seed(0)",
        "eval('1')",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "np.random.rand(3)",
        "np.random.default_rng(0)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_what_is_banned_is_seen(code: str) -> None:
    assert list(banned(ast.parse(code)))
