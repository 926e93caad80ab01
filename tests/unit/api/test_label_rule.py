"""The rule that leaves out labels."""

from __future__ import annotations

import numpy as np
import pytest

from berunda.api.label_rule import LabelRule
from berunda.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "band", "passes", "fails"),
    [("B02>1800", "B02", 1801.0, 1800.0), (" nir < 1e-2", "nir", 0.0, 0.01), ("b1>-5", "b1", -4.0, -6.0)],
)
def test_rules(text: str, band: str, passes: float, fails: float) -> None:
    rule = LabelRule.parse(text)
    assert rule.band == band
    assert list(np.asarray(rule.holds(np.array([passes, fails])))) == [True, False]


@pytest.mark.parametrize("text", ["", "B02", "B02>", ">3", "B02>=3", "B02>x", "B02>nan", "B02>1e999", "a b>3"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--drop-labels-where"):
        LabelRule.parse(text)
