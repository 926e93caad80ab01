"""Draw the picture of README.md from a finished demo run: scene, map, confidence, out-of-distribution layer.

Usage: python docs/demo_picture.py DEMO_OUT      (writes docs/demo.png)
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from PIL import Image

from berunda.api.pictures import pictures_of
from berunda.api.prepare import prepare
from berunda.assess.plots import figure_png, map_panels
from berunda.assess.report_data import ClassInfo
from berunda.config import load_config
from berunda.mapping.result import MapFiles


def main(folder: Path) -> None:
    """Draw the run in `folder`."""
    prepared = prepare(load_config(folder / "run.yaml"))
    manifest = json.loads((folder / "model" / "model.json").read_text(encoding="utf-8"))
    classes = tuple(ClassInfo(c["name"], c["color"]) for c in manifest["classes"])
    scene = pictures_of(prepared, 0, MapFiles.under(folder))
    figure = map_panels(scene, classes, manifest["ood"]["threshold"])
    drawn = Image.open(io.BytesIO(figure_png(figure))).convert("RGB")
    drawn.quantize(256).save(Path(__file__).with_name("demo.png"), optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
