"""What the training loop is told, as a value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from berunda.errors import ConfigError

__all__ = ["Optimizer", "Precision", "Together", "TrainConfig"]

Optimizer = Literal["adamw", "sgd"]
Precision = Literal["auto", "fp32", "bf16"]
Together = Literal["auto", "alone"]

_NOT_NUMERIC = (
    "checkpoint_every", "keep", "workers", "check_every", "device", "compile", "ranks", "silence_s",
)  # fmt: skip
"""Fields in which a resumed run may differ from the run that wrote the checkpoint."""


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast and where to train.

    Attributes:
        steps: updates of the weights in all stages together, at least 1.
        n_labelled: labelled images a step, at least 1; unlabelled ones follow from the method's ratio.
        learning_rate: peak rate, above 0; it rises linearly over the warm-up, then falls as a half cosine to
            0. A method may bring a factor on it.
        weight_decay: decoupled for adamw, L2 for sgd; never applied to biases and norm layers. At least 0.
        warmup_steps: steps of the linear rise in each stage, at most `warmup_share` of it.
        warmup_share: largest share of a stage that the rise may take, in [0, 1).
        ema_decay: decay of the averaged copy, in [0, 1); see `berunda.models.teacher`.
        clip_norm: largest norm of the gradient of all parameters together, unless the method brings a smaller one; 0
            for no clipping.
        seed: of every random draw, the initial weights included.
        checkpoint_every: steps between checkpoints; 0 for one at the end and when asked to stop.
        keep: checkpoints kept, at least 1.
        precision: "fp32", "bf16" (autocast) or "auto": bf16 on GPUs that have it, fp32 elsewhere.
        device: "auto", "cpu", "cuda" or "cuda:N".
        workers: threads that draw batches ahead; 0 draws them in the loop. The result does not depend on it.
        optimizer: "adamw" or "sgd" (Nesterov, momentum .9).
        betas: of adamw: decay of its running means of the gradient and of its square, each in [0, 1).
        compile: compile the net with torch.compile.
        check_every: steps between looks at the losses from the host; 0 for 1 on the CPU and 10 on a GPU. A
            non-finite loss or gradient blocks every update at once in any case, it is only reported this much
            later.
        ranks: "auto" trains together with the processes that `torchrun` started; "alone" without them.
        silence_s: seconds without a sign of life after which another rank is given up; above 1.
        run_key: anything else that must be the same when a run resumes (a fingerprint of the data).
        rates: learning-rate factor by prefix of the parameter's name ("net.encoder": 0.1), behind those that the
            method asks for.
    """

    steps: int = 300
    n_labelled: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 20
    warmup_share: float = 0.5
    ema_decay: float = 0.99
    clip_norm: float = 1.0
    seed: int = 0
    checkpoint_every: int = 100
    keep: int = 3
    precision: Precision = "auto"
    device: str = "auto"
    workers: int = 1
    optimizer: Optimizer = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    compile: bool = False
    check_every: int = 0
    ranks: Together = "auto"
    silence_s: float = 15.0
    run_key: str = ""
    rates: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        low = {
            "steps": 1,
            "n_labelled": 1,
            "weight_decay": 0,
            "warmup_steps": 0,
            "clip_norm": 0,
            "checkpoint_every": 0,
        }
        low |= {"keep": 1, "workers": 0, "check_every": 0}
        faults = [
            f"{name} is {getattr(self, name)}, expected at least {least}"
            for name, least in low.items()
            if not getattr(self, name) >= least
        ]
        if not 0 < self.learning_rate < float("inf"):
            faults.append(f"learning_rate is {self.learning_rate}, expected above 0")
        shares = {"ema_decay": self.ema_decay, "warmup_share": self.warmup_share}
        shares |= {f"betas[{i}]": beta for i, beta in enumerate(self.betas)}
        faults += [
            f"{name} is {share}, expected at least 0 and below 1"
            for name, share in shares.items()
            if not 0 <= share < 1
        ]
        if not self.silence_s > 1:
            faults.append(f"silence_s is {self.silence_s}, expected above 1")
        choices = {"precision": get_args(Precision), "optimizer": get_args(Optimizer), "ranks": get_args(Together)}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                faults.append(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(allowed)}")
        if self.device not in ("auto", "cpu") and not self.device.startswith("cuda"):
            faults.append(f"device is {self.device!r}, expected auto, cpu, cuda or cuda:N")
        if faults:
            raise ConfigError("training: " + "; ".join(faults))

    def numerics(self) -> dict[str, Any]:
        """Return the fields on which the trained weights depend."""
        return {name: value for name, value in asdict(self).items() if name not in _NOT_NUMERIC}
