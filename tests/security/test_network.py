"""Nothing reaches for the network by itself: not on import, not in the cheap verbs."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import importlib, pkgutil, sys
calls = []
watched = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname")
sys.addaudithook(lambda event, arguments: calls.append((event, arguments)) if event in watched else None)
import berunda
for module in pkgutil.walk_packages(berunda.__path__, "berunda."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from berunda.cli.main import main
main(["methods"])
main(["doctor"])
import socket
before = list(calls)
with socket.socket() as opened:
    opened.settimeout(0.1)
    opened.connect_ex(("127.0.0.1", 9))
print(before, len(calls) - len(before))
"""


@pytest.mark.slow
def test_import_and_cheap_verbs_reach_nobody() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[] 1"
