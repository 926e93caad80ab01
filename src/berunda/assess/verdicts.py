"""What to trust and what not, in plain sentences, derived from the figures by stated rules.

A class is called reliable from an F1 of 70% whose interval stays above 50%, and weak below 50%. Confidence
may be read as a probability up to an ECE of 5 points. Test evidence is thin when the interval of the overall
accuracy is wider than 20 points.
"""

from __future__ import annotations

import numpy as np

from berunda.assess.intervals import Interval
from berunda.assess.report_data import ReportData

__all__ = ["NOT_AVAILABLE", "percent", "percent_range", "to_beware", "to_trust"]

NOT_AVAILABLE = "n/a"
RELIABLE_F1 = 0.7
RELIABLE_LOW = 0.5
WEAK_F1 = 0.5
GOOD_ECE = 0.05
WIDE_INTERVAL = 0.2
MANY_FLAGGED = 0.1
LIKELY_CONFUSION = 0.1


def percent(value: float | None, digits: int = 0) -> str:
    """Write a fraction of 1 as a percentage; an absent value is "n/a"."""
    return NOT_AVAILABLE if value is None else f"{100 * value:.{digits}f}%"


def percent_range(interval: Interval | None) -> str:
    """Write an interval as "48 to 60%", or nothing where there is none."""
    return "" if interval is None else f"{100 * interval.low:.0f} to {100 * interval.high:.0f}%"


def to_trust(data: ReportData) -> list[str]:
    """Return sentences on what the map can be used for."""
    found = []
    if data.scores is not None:
        for i, (name, f1) in enumerate(zip(data.scores.class_names, data.scores.f1, strict=True)):
            interval = data.intervals.f1[i] if data.intervals else None
            if f1 is not None and f1 >= RELIABLE_F1 and (interval is None or interval.low >= RELIABLE_LOW):
                recall, precision = data.scores.recall[i], data.scores.precision[i]
                found.append(
                    f"{name}: {percent(recall)} of it is found, and {percent(precision)} of what the map "
                    f"calls {name} is {name}."
                )
    calibration = data.calibration
    if calibration is not None and calibration.after is not None and calibration.after.ece <= GOOD_ECE:
        found.append(
            f"The confidence layer reads as a probability: on the {calibration.measured_on} it was off by "
            f"{100 * calibration.after.ece:.0f} points on average."
        )
    return found


def to_beware(data: ReportData) -> list[str]:
    """Return sentences on what to be careful with."""
    found = [*_weak_classes(data), *_fair_classes(data)]
    if data.training is not None and data.training.is_refit:
        found.append(
            "The model was retrained on all labels after these figures were taken: they describe the model before that."
        )
    calibration = data.calibration
    if calibration is not None:
        if calibration.temperature.warning:
            found.append(_sentence(calibration.temperature.warning))
        elif calibration.after is not None and calibration.after.ece > GOOD_ECE:
            found.append(
                f"Confidence was off by {100 * calibration.after.ece:.0f} points on average: use it to rank "
                "pixels, not as a probability."
            )
    if data.ood is not None and (data.ood.share_map or 0) > MANY_FLAGGED:
        found.append(
            f"{percent(data.ood.share_map)} of the map is unlike the training data (cloud, shadow, land "
            "cover without labels): the class shown there is a guess."
        )
    oa = data.intervals.oa if data.intervals else None
    if oa is not None and oa.high - oa.low > WIDE_INTERVAL:
        found.append(f"The test is small: the overall accuracy may be anything from {percent_range(oa)}.")
    if data.scores is None:
        found.append("There were no labels to test with: nothing is known about the accuracy of this map.")
    return found


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _weak_classes(data: ReportData) -> list[str]:
    scores, found = data.scores, []
    if scores is None:
        return []
    for i, (name, f1) in enumerate(zip(scores.class_names, scores.f1, strict=True)):
        if f1 is None:
            found.append(f"{name}: no test pixels, so nothing is known about its accuracy.")
        elif f1 < WEAK_F1:
            found.append(
                f"{name}: only {percent(scores.recall[i])} of it is found, and "
                f"{percent(scores.precision[i])} of what the map calls {name} is "
                f"{name}{_confused_with(data, i)}."
            )
    return found


def _fair_classes(data: ReportData) -> list[str]:
    """Name the classes between weak and reliable, or reliable with an interval that reaches too low."""
    if data.scores is None:
        return []
    names = []
    for i, (name, f1) in enumerate(zip(data.scores.class_names, data.scores.f1, strict=True)):
        interval = data.intervals.f1[i] if data.intervals else None
        is_shaky = f1 is not None and interval is not None and interval.low < RELIABLE_LOW
        if f1 is not None and f1 >= WEAK_F1 and (f1 < RELIABLE_F1 or is_shaky):
            names.append(name)
    return [f"{', '.join(names)}: fair at best or too little tested; look before you use it."] if names else []


def _confused_with(data: ReportData, i: int) -> str:
    if data.confusion is None:
        return ""
    row = np.array(data.confusion[i], dtype=np.float64)
    total = row.sum()
    row[i] = 0
    j = int(row.argmax())
    if total == 0 or row[j] / total < LIKELY_CONFUSION:
        return ""
    return f"; it is most often taken for {data.classes[j].name} ({percent(row[j] / total)})"
