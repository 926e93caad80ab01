"""The one training recipe: set up (or resume), train stage by stage, save.

It owns the optimizer, devices, the averaged copy, checkpoints, the log and all randomness; a method is
arithmetic. Net, extra parts and loss are one module, so that what wraps it (several ranks) serves every
method. Of several ranks each goes through the same steps on its slice of the batch; see `distributed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import nn

from berunda.data.order import Randomness, key_of
from berunda.data.source import Source
from berunda.errors import ConfigError, DivergedError, OutputError
from berunda.memory import keep_freed_memory
from berunda.methods.contract import Batch, Loss, Method, NetSpec, Step
from berunda.models.frozen import frozen_statistics
from berunda.models.teacher import Averaged
from berunda.progress import Progress, Silent
from berunda.train.config import TrainConfig
from berunda.train.distributed import joined
from berunda.train.feed import METHOD, TORCH, VIEWS, Counts, Feed, RawBatch, Slice
from berunda.train.optimizer import schedule, set_rate, sharper_weights
from berunda.train.run import ACTIVITIES, Run, seeded
from berunda.train.signals import StopRequest
from berunda.train.stages import PlannedStage
from berunda.train.survey import survey, survey_steps
from berunda.train.views import batch_of_views, move, with_predicted_labels

__all__ = ["ACTIVITIES", "Trained", "train"]


@dataclass(frozen=True)
class Trained:
    """What training leaves behind.

    Attributes:
        net: the net with its last weights.
        extra: the method's extra parts.
        averaged: the moving average of both, which predicts.
        method: the method of the last stage, whose `predict` goes with net and extra.
        log: one row a step: "step", "stage_index", "total", the method's terms, "gradient_norm",
            "learning_rate".
        seconds: wall time, over all the runs that it took.
        images_seen: images drawn, labelled and unlabelled.
        timing: seconds by activity, see ACTIVITIES.
        returned: for each time that the run diverged and went back, what had happened, in words.
    """

    net: nn.Module
    extra: nn.Module
    averaged: Averaged
    method: Method
    log: list[dict[str, float]]
    seconds: float
    images_seen: int
    timing: dict[str, float]
    returned: tuple[str, ...] = ()

    @property
    def model(self) -> Averaged:
        """The averaged copy, with `net` and `extra`, to predict with."""
        return self.averaged


def train(
    method: Method,
    spec: NetSpec,
    source: Source,
    config: TrainConfig,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train a net for `spec` by `method` on `source`.

    Under `torchrun` every rank calls it alike and gets the same net.

    Args:
        method: hyper-parameters and loss.
        spec: task, bands, classes and encoder of the net.
        source: draws images as a pure function of random keys.
        config: how long, how fast and where.
        folder: where checkpoints go; if it holds some of the same run, training goes on from the newest whole
            one and ends with the same weights, bit by bit, as if it had never stopped. None keeps no
            checkpoints.
        progress: told of every step.

    Raises:
        ConfigError: the method, the source and the settings do not fit together.
        DivergedError: a loss or gradient is not finite (before the update is made) or the loss ran away, and the
            method does not ask to go back, or there is nothing to go back to, or it diverges again and again.
        CheckpointError: the checkpoints in `folder` are damaged or of another run.
        OutputError: a checkpoint cannot be written, or another run uses `folder`.
        RanksError: another rank ended before the training was over.
        SystemExit: SIGTERM came; a checkpoint was written. KeyboardInterrupt likewise for Ctrl-C.
    """
    keep_freed_memory()
    with (
        StopRequest(enabled=folder is not None) as stop,
        joined(config) as group,
        _locked(folder if group.rank == 0 else None),
    ):
        progress = progress if progress is not None and group.rank == 0 else Silent()
        run = Run(method, spec, config, folder, group)
        run.resume(progress)
        while run.state.step < config.steps:
            try:
                _train_stages(run, source, stop, progress)
            except DivergedError as error:
                run = run.gone_back(error, progress)
        if run.saved_at != run.state.step:
            run.save()
    run.lap("other")
    state = run.state
    return Trained(
        net=state.net,
        extra=state.extra,
        averaged=state.averaged,
        method=run.stages[-1].method,
        log=state.rows,
        seconds=sum(state.seconds.values()),
        images_seen=state.images_seen,
        timing=dict(state.seconds),
        returned=tuple(state.returned),
    )


def _train_stages(run: Run, source: Source, stop: StopRequest, progress: Progress) -> None:
    """Train what is left, stage by stage."""
    for stage in run.stages[run.state.stage :]:
        if stage.index > run.state.stage:
            run.enter(stage)
        if stage.method.needs().returns and run.saved_at != run.state.step:
            run.save()  # there is always something to go back to
        _train_stage(run, stage, source, stop, progress)


def _train_stage(run: Run, stage: PlannedStage, source: Source, stop: StopRequest, progress: Progress) -> None:
    state, config = run.state, run.config
    counts = _counts(stage, source, config.n_labelled, run.group.size)
    part = Slice(run.group.rank, run.group.size)
    learner = run.group.wrap(_Learner(stage.method, state.net, state.extra))
    todo = range(max(state.step, stage.steps.start), stage.steps.stop)
    look_every = config.check_every or (1 if run.device.type == "cpu" else 10)
    needs = stage.method.needs()
    forgives = needs.returns > 0
    run.monitor.begin_stage(stage.index, stage.name, needs.watched, needs.bounds, hears_silence=forgives)
    progress.start(f"training ({stage.name})", len(stage.steps))
    progress.advance(len(stage.steps) - len(todo))
    told, surveys = todo.start, survey_steps(stage)
    with Feed(source, run.rng, counts, steps=todo, workers=config.workers, part=part) as feed:
        for step in todo:
            if step in surveys:
                survey(run, stage, source)
            run.lap("other")
            raw = _on_device(feed.next(), run.device)
            run.lap("data")
            looks = (step + 1) % look_every == 0 or step + 1 == stage.steps.stop
            _train_step(run, stage, learner, raw, looks=looks)
            state.step = step + 1
            state.images_seen += counts.total
            if looks:
                progress.advance(state.step - told, loss=state.rows[-1]["total"])
                told = state.step
            due = config.checkpoint_every and state.step % config.checkpoint_every == 0
            stop.requested = run.group.largest(stop.requested or 0) or None
            if run.folder is not None and (due or stop.requested is not None):
                run.save()
                run.group.largest(0)  # none leaves before the checkpoint is written
                stop.leave()
    progress.finish()


def _train_step(run: Run, stage: PlannedStage, learner: nn.Module, raw: RawBatch, *, looks: bool) -> None:
    """Make one update: views, loss, gradients, checks, update, average."""
    state, config = run.state, run.config
    rng = run.rng.at(state.step)
    needs = stage.method.needs()
    if state.labeller is not None:
        raw = with_predicted_labels(raw, run.predict_labels, multilabel=run.spec.task == "multilabel")
    batch = batch_of_views(raw, needs, rng.at(VIEWS))
    run.lap("views")

    index = state.step - stage.steps.start
    teacher = state.averaged if needs.teacher else None
    loss = _gradients(run, learner, stage.method, batch, Step(index, len(stage.steps), teacher))
    run.lap("forward_backward")

    norm = run.clipped()
    share = schedule(index, len(stage.steps), config.warmup_steps, config.warmup_share)
    rate = run.calm * needs.rate * config.learning_rate * share
    figures = run.group.mean({"total": loss.total, **loss.terms, "gradient_norm": norm})
    run.monitor.record(state.step, figures, rate=rate, batch=raw.samples)
    if looks:
        run.monitor.look()
    set_rate(state.optimizer, rate)
    run.update()
    for name, update in loss.updates.items():
        state.extra.get_buffer(name).copy_(run.group.reduced(update))
        if update.reduction == "per_rank":
            state.per_rank.add(name)
    run.group.share_statistics(state.net, state.extra)
    state.averaged.update(state.net, state.extra, index)
    run.lap("optimizer")


def _gradients(run: Run, learner: nn.Module, method: Method, batch: Batch, step: Step) -> Loss:
    """Return the loss of `batch` and leave the gradients (sharpness-aware where asked) in the parameters."""
    state = run.state
    rng = run.rng.at(state.step)
    own = (run.group.rank,) if run.group.rank else ()  # layers draw for each sample at hand, ranks have others

    def backward(step: Step) -> Loss:
        with seeded(key_of(rng.seed, "layers", *rng.counters, TORCH, *own), run.device), run.autocast():
            loss: Loss = learner(batch, step, rng.at(METHOD))
        if loss.total.requires_grad:  # a batch without any label may give a constant
            loss.total.backward()
        return loss

    state.optimizer.zero_grad(set_to_none=True)
    loss = backward(step)
    rho = method.needs().sharpness_rho
    if rho and loss.total.requires_grad:
        with sharper_weights(run.parameters(), rho), frozen_statistics(learner):
            backward(replace(step, before=loss))
    return loss


class _Learner(nn.Module):
    """Net, extra parts and loss as one module."""

    def __init__(self, method: Method, net: nn.Module, extra: nn.Module) -> None:
        super().__init__()
        self.method = method
        self.net = net
        self.extra = extra

    def forward(self, batch: Batch, step: Step, rng: Randomness) -> Loss:
        return self.method.loss(self.net, self.extra, batch, step, rng)


@contextmanager
def _locked(folder: Path | None) -> Iterator[None]:
    """Hold the folder against other runs; the lock ends with the process, however it ends."""
    if folder is None:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "training.lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            f"training folder {folder}: another run is using it; wait for it or choose another"
        ) from error
    except OSError as error:
        raise OutputError(f"training folder {folder}: cannot be used ({error.strerror or error})") from error
    try:
        yield
    finally:
        lock.release()


def _counts(stage: PlannedStage, source: Source, n_labelled: int, n_ranks: int) -> Counts:
    needs = stage.method.needs()
    uses_unlabelled = bool(needs.unlabelled) and needs.unlabelled_ratio > 0 and source.has_unlabelled
    predicted = n_labelled // 2 if stage.predicts_labels and source.has_unlabelled else 0
    counts = Counts(
        labelled=n_labelled - predicted,
        unlabelled=max(1, round(n_labelled * needs.unlabelled_ratio)) if uses_unlabelled else 0,
        predicted=predicted,
    )
    uneven = [f"{n} {name}" for name, n in vars(counts).items() if n % n_ranks]
    if uneven:
        raise ConfigError(
            f"training on {n_ranks} ranks: a step has {' and '.join(uneven)} images, expected a multiple of the ranks; "
            "choose n_labelled (or the method's share of unlabelled images) so, or another number of ranks"
        )
    return counts


def _on_device(raw: RawBatch, device: torch.device) -> RawBatch:
    unlabelled = None if raw.unlabelled is None else move(raw.unlabelled, device)
    predicted = None if raw.predicted is None else move(raw.predicted, device)
    return replace(raw, labelled=move(raw.labelled, device), unlabelled=unlabelled, predicted=predicted)
