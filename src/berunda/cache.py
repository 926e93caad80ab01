"""Where Berunda keeps what it fetched once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return the folder for fetched files: `BERUNDA_CACHE`, else the user's own; it need not exist yet."""
    asked = os.environ.get("BERUNDA_CACHE", "").strip()
    if asked:
        return Path(asked).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "berunda" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "berunda"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "berunda"
