"""A method after which another one may go on: its choice, its options, and the stages of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from berunda.errors import ConfigError
from berunda.methods.contract import Method, Stage, setting

__all__ = ["Followed"]


@dataclass(frozen=True)
class Followed(Method):
    """Base of a method that may be the first stage before any other method of one stage that serves scenes."""

    then: str = setting(
        "none",
        "method that goes on afterwards, or none",
        valid=("none, or another method that serves scenes",),
    )
    then_options: str = setting(
        "",
        "hyper-parameters of that method that differ from its defaults; also given one by one, as METHOD.NAME=VALUE",
        valid=("NAME=VALUE,NAME=VALUE",),
    )
    share: float = setting(0.5, "share of the training before that method", valid=(0.05, 0.95), unit="share")

    def __post_init__(self) -> None:
        """Refuse values outside their ranges, and a method that cannot go on, or not with these options.

        Raises:
            ConfigError: naming the option.
        """
        super().__post_init__()
        where = f"method '{self.name}'"
        if self.then == self.name:
            raise ConfigError(f"{where}: option 'then' is '{self.then}', expected another method, or none")
        if self.then != "none":
            self._check_follower(where)
        elif self.then_options:
            raise ConfigError(
                f"{where}: option 'then_options' is {self.then_options!r}, expected nothing where then is none"
            )

    def _check_follower(self, where: str) -> None:
        from berunda.methods import make_method

        try:
            follower = make_method(self.then, _pairs(self.then_options))
        except ConfigError as error:
            raise ConfigError(f"{where}: option 'then' or 'then_options': {error}") from error
        tasks = follower.needs().tasks
        if "scene" not in tasks or len(follower.stages()) > 1:
            found = f"serves {', '.join(tasks)}" if "scene" not in tasks else "has stages of its own"
            raise ConfigError(
                f"{where}: option 'then' is '{self.then}', which {found}, expected a method of one stage that serves "
                "scene; `berunda methods` lists them"
            )

    def with_follower_options(self, follower: str, options: Mapping[str, Any]) -> Method:
        """Return the method with these hyper-parameters of the one that goes on.

        Raises:
            ConfigError: another one goes on, or it has no such options.
        """
        if follower != self.then:
            names = ", ".join(f"{follower}.{name}" for name in options)
            raise ConfigError(
                f"method '{self.name}': options {names} found, but then={self.then}, expected options of the method "
                f"that goes on; choose it with then={follower}"
            )
        given = {**_pairs(self.then_options), **options}
        return replace(self, then_options=",".join(f"{name}={given[name]}" for name in sorted(given)))

    def stages(self) -> tuple[Stage, ...]:
        """Return the method alone, or with the one that goes on."""
        if self.then == "none":
            return (Stage(self.name, 1.0),)
        after = Stage(self.then, 1 - self.share, method=self.then, options=_pairs(self.then_options))
        return Stage(self.name, self.share), after


def _pairs(text: str) -> dict[str, str]:
    """Return what "name=value,name=value" says.

    Raises:
        ConfigError: a piece has no "=".
    """
    pieces = [piece.strip() for piece in text.split(",") if piece.strip()]
    odd = next((piece for piece in pieces if "=" not in piece), None)
    if odd is not None:
        raise ConfigError(f"option 'then_options' holds {odd!r}, expected NAME=VALUE,NAME=VALUE")
    return {name.strip(): value.strip() for name, _, value in (piece.partition("=") for piece in pieces)}
