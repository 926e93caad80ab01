"""BerundaNet and W-Net: which parts learn from what, what ships, what a step costs, and odd input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from toy_training import ToySource

from berunda.augment.puzzle import far_permutations
from berunda.bench.bound import images_per_step
from berunda.errors import ConfigError
from berunda.mapping.bundle import make_tensors
from berunda.methods import make_method
from berunda.methods._auxiliary import JigsawHead
from berunda.methods._checking.trial import PointNet, Trial, make_trial, without_labels, without_pixels
from berunda.methods.contract import Batch, Loss, NetSpec
from berunda.models.build import build_net
from berunda.train.config import TrainConfig
from berunda.train.loop import train
from berunda.train.passes import passes_per_step

DENSE = ("l1", "l2", "kmeans", "mumford_shah")
ALL = (*DENSE, "inpainting", "jigsaw")


def house(spec: NetSpec) -> nn.Module:
    """The house's net at depth 2, without pretrained weights."""
    changes: dict[str, Any] = {"encoder_depth": 2, "decoder": "slim", "pretrained": False}
    return build_net(NetSpec(spec.task, spec.n_bands, spec.n_classes, **changes))


def touched(module: nn.Module) -> set[str]:
    """Names of the direct parts of a module that a gradient other than 0 reaches."""
    pairs = [(name.split(".")[0], p.grad) for name, p in module.named_parameters()]
    return {name for name, grad in pairs if grad is not None and bool(grad.abs().sum() > 0)}


def auxiliary_gradients(name: str, **options: Any) -> Trial:
    """A trial on the house's net after the backward pass of the auxiliary task alone."""
    method = make_method(name, {"lambda_u": 1.0, **options})
    trial = make_trial(method, "segmentation", house)
    trial.labelled = without_labels(trial.labelled)
    loss = trial.loss()
    assert float(loss.terms["supervised"]) == 0
    loss.total.backward()
    return trial


@pytest.mark.parametrize("aux", ALL)
def test_early_auxiliary_task_leaves_the_classifying_decoder_alone(aux) -> None:
    trial = auxiliary_gradients("berunda", split="early", aux=aux)
    assert touched(trial.net) == {"encoder"}
    assert touched(trial.extra) == {"head"}


@pytest.mark.parametrize("aux", [*DENSE, "inpainting"])
def test_late_auxiliary_task_reaches_all_but_the_classifier(aux) -> None:
    trial = auxiliary_gradients("berunda", aux=aux)
    assert touched(trial.net) == {"encoder", "project", "fuse"}
    assert touched(trial.extra) == {"head"}


@pytest.mark.parametrize("decoder", ["unet", "slim", "slim4", "segnet"])
@pytest.mark.parametrize("aux", ["l1", "kmeans", "inpainting"])
def test_late_auxiliary_task_does_not_read_the_pixel_path(decoder, aux) -> None:
    """Pixels that go past the encoder would rebuild themselves; the classifier reads them still."""

    def net(spec: NetSpec) -> nn.Module:
        encoder = "vgg11_bn" if decoder == "segnet" else spec.encoder
        kind: dict[str, Any] = {"decoder": decoder, "encoder": encoder, "encoder_depth": 2, "pretrained": False}
        return build_net(replace(spec, pixel_path=True, **kind))

    trial = make_trial(make_method("berunda", {"aux": aux}), "segmentation", net)
    plain = touched_by(trial.loss())
    assert "pixel_path" in plain(trial.net)
    trial = make_trial(make_method("berunda", {"aux": aux}), "segmentation", net)
    trial.labelled = without_labels(trial.labelled)
    reached = touched_by(trial.loss())
    assert "pixel_path" not in reached(trial.net)
    assert {"encoder"} < reached(trial.net)
    assert reached(trial.extra) == {"head"}


def touched_by(loss: Loss) -> Callable[[nn.Module], set[str]]:
    """Go back through a loss and return what tells the parts that it reached."""
    loss.total.backward()
    return touched


def test_jigsaw_reaches_the_encoder_alone() -> None:
    assert touched(auxiliary_gradients("berunda", aux="jigsaw").net) == {"encoder"}


@pytest.mark.parametrize("aux", DENSE)
def test_the_second_half_teaches_the_whole_first_half(aux) -> None:
    trial = auxiliary_gradients("wnet", aux=aux)
    assert touched(trial.net) == {"encoder", "project", "fuse", "head"}
    idle = [name for name, p in trial.extra.named_parameters() if p.grad is None]
    assert not idle


@pytest.mark.parametrize(("name", "options"), [("berunda", {"split": "early"}), ("wnet", {}), ("berunda", {})])
def test_labels_do_not_reach_the_second_half(name, options) -> None:
    trial = make_trial(make_method(name, {"lambda_u": 0.0, **options}), "segmentation", house)
    trial.loss().total.backward()
    assert touched(trial.net) == {"encoder", "project", "fuse", "head"}
    assert touched(trial.extra) == set()


@pytest.mark.parametrize("options", [{}, {"split": "early", "aux": "l1"}, {"aux": "jigsaw"}, {"aux": "inpainting"}])
def test_what_ships_is_the_supervised_net(options) -> None:
    for name in ("berunda", "wnet") if not options else ("berunda",):
        trial = make_trial(make_method(name, options), "segmentation", house)
        kept = make_tensors(trial.method, trial.net, trial.extra)
        plain = make_tensors(make_method("supervised"), house(trial.spec), nn.Module())
        assert {k: v.shape for k, v in kept.items()} == {k: v.shape for k, v in plain.items()}
        trial.net.eval()
        x = torch.randn(1, 4, 12, 12)
        assert torch.equal(trial.method.predict(trial.net, nn.Module(), x), trial.net(x))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("berunda", {"mu": 2.0}, 8 + 16),
        ("berunda", {"mu": 2.0, "aux": "inpainting"}, 16 + 16),
        ("berunda", {"mu": 0.0, "aux": "inpainting"}, 16),
        ("wnet", {"mu": 1.0}, 16 + 16),
        ("wnet", {"mu": 0.0}, 16),
    ],
)
def test_every_pass_is_counted(name, options, expected) -> None:
    """A net that counts: half of W-Net's passes go through the second half."""
    method = make_method(name, options)
    assert passes_per_step(method, 8) == expected
    assert images_per_step(method, 8).passes == expected
    trial = make_trial(method, "segmentation", n_labelled=8)
    seen: list[int] = []
    for part in (trial.net, trial.extra):
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d) and layer.in_channels in (trial.spec.n_bands, trial.spec.n_classes):
                layer.register_forward_hook(lambda _, args, out: seen.append(len(args[0])))
                break
    batch = trial.batch()
    if not method.needs().unlabelled_ratio:
        batch = Batch(batch.labelled)
    trial.loss(batch)
    assert sum(seen) == expected


def test_nothing_unlabelled_is_drawn_where_none_is_asked_for() -> None:
    spec = NetSpec("segmentation", 4, 3, pretrained=False, crop_px=12, encoder_depth=2, decoder="slim")
    for options in ({"mu": 0.0}, {"mu": 1.0}):
        trained = train(make_method("berunda", options), spec, ToySource(), TrainConfig(steps=1, n_labelled=4))
        assert trained.images_seen == 4 * (1 + options["mu"])


@pytest.mark.parametrize("aux", ["inpainting", "jigsaw"])
def test_tasks_for_maps_are_refused_for_whole_images(aux) -> None:
    method, spec = make_method("berunda", {"aux": aux}), NetSpec("scene", 4, 3)
    assert method.needs().tasks == ("segmentation",)
    with pytest.raises(ConfigError, match=f"aux={aux} for whole images, expected split=late and one of l1, l2"):
        method.init(PointNet(spec), spec)
    with pytest.raises(ConfigError, match="split=early"):
        make_method("berunda", {"split": "early"}).init(PointNet(spec), spec)


@pytest.mark.parametrize(("crop_px", "fits"), [(1, False), (2, False), (3, True), (5, True)])
def test_a_crop_too_small_for_the_jigsaw_is_refused_before_training(crop_px, fits) -> None:
    spec = NetSpec("segmentation", 4, 3, pretrained=False, crop_px=crop_px)
    if fits:
        assert JigsawHead(PointNet(spec), spec, 5).linear.in_features == 16
    else:
        with pytest.raises(ConfigError, match=f"images of {crop_px} px, expected at least 3 px"):
            JigsawHead(PointNet(spec), spec, 5)


def test_the_jigsaw_head_leaves_no_trace_in_the_net() -> None:
    spec = NetSpec("segmentation", 4, 3, pretrained=False, encoder_depth=3, crop_px=50)
    net = build_net(spec)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    JigsawHead(net, spec, 5)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_jigsaw_shuffles_labels_with_their_pixels() -> None:
    """A net of single pixels answers alike wherever a pixel lies, so its loss on labels is that of the plain image."""
    trial = make_trial(make_method("berunda", {"aux": "jigsaw"}), "segmentation")
    plain = make_trial(make_method("supervised"), "segmentation", lambda spec: trial.net)
    torch.testing.assert_close(trial.loss().terms["supervised"], plain.loss().terms["supervised"])
    orders = trial.extra.head.orders
    assert torch.equal(orders, torch.tensor(far_permutations(100)))


def test_inpainting_is_asked_of_the_hole_alone_and_classifies_the_whole() -> None:
    """A net of single pixels cannot see behind a hole: it can only guess the same value for all of it."""
    trial = make_trial(make_method("berunda", {"aux": "inpainting"}), "segmentation")
    plain = make_trial(make_method("supervised"), "segmentation", lambda spec: trial.net)
    loss = trial.loss()
    torch.testing.assert_close(loss.terms["supervised"], plain.loss().terms["supervised"])
    with torch.no_grad():
        blank = trial.extra.head.last(trial.net.decode(trial.net.encode(torch.zeros(1, 4, 1, 1)))).flatten()
    rng, images = trial.rng.at(0), [*trial.batch().labelled.values(), *trial.batch().unlabelled.values()]
    hole = trial.method._drawn_holes(torch.cat([x.pixels for x in images]), [4, 4], rng)  # type: ignore[attr-defined]
    assert hole.sum((1, 2)).tolist() == [9] * 8, "a quarter of 12 px is 3"
    counted = hole & torch.cat([x.valid for x in images])
    errors = (torch.cat([x.pixels for x in images]) - blank.view(1, -1, 1, 1)).square().movedim(1, -1)[counted]
    torch.testing.assert_close(loss.terms["unsupervised"], errors.mean())


ODD = [
    *(("berunda", {"aux": aux, "split": split}) for aux in ALL for split in ("late", "early")),
    *(("wnet", {"aux": aux}) for aux in DENSE),
    *((name, {"threshold": 0.0}) for name in ("unimatch", "fixmatch")),
    ("mixmatch", {}),
    ("mean_teacher", {}),
]


@pytest.mark.parametrize(("name", "options"), ODD, ids=str)
def test_a_stride_that_does_not_divide_the_crop(name, options) -> None:
    """Crops of 12 px and a net of stride 8, with half of the images wholly void."""

    def deep(spec: NetSpec) -> nn.Module:
        changes: dict[str, Any] = {"encoder_depth": 3, "decoder": "slim", "pretrained": False}
        return build_net(NetSpec(spec.task, spec.n_bands, spec.n_classes, **changes))

    trial = make_trial(make_method(name, options), "segmentation", deep)
    for stream in (trial.labelled, trial.unlabelled):
        stream.valid[::2] = False
        stream.pixels[::2] = 0
    loss = trial.loss()
    loss.total.backward()
    assert bool(loss.total.isfinite())
    gradients = [p.grad for p in [*trial.net.parameters(), *trial.extra.parameters()] if p.grad is not None]
    assert all(bool(g.isfinite().all()) for g in gradients)
    void = make_trial(make_method(name, options), "segmentation", deep)
    void.labelled, void.unlabelled = without_pixels(void.labelled), without_pixels(void.unlabelled)
    assert abs(void.loss().total.item()) < 1e-4


@pytest.mark.parametrize("aux", ALL)
def test_the_auxiliary_task_is_learned(aux) -> None:
    """With a net that sees its neighbours and the same batch each time."""
    options = {"lambda_u": 5.0, "n_permutations": 4, "regularisation": 0.1}
    method = make_method("berunda", {"aux": aux, **options})
    trial = make_trial(method, "segmentation", house)
    optimizer = torch.optim.Adam([*trial.net.parameters(), *trial.extra.parameters()], lr=0.01)
    told = []
    for _ in range(25):
        loss = trial.loss(step=0)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        told.append(float(loss.terms["unsupervised"]))
    assert told[-1] < 0.7 * told[0]


def test_a_single_band_is_rebuilt() -> None:
    spec = NetSpec("segmentation", 1, 3, pretrained=False, encoder_depth=2, decoder="slim", crop_px=12)
    method = make_method("wnet", {"aux": "l2"})
    net = method.build(spec)
    extra = method.init(net, spec)
    trial = make_trial(method, "segmentation", house)
    batch = trial.batch()
    for images in (*batch.labelled.values(), *batch.unlabelled.values()):
        object.__setattr__(images, "pixels", images.pixels[:, :1])
    from berunda.methods.contract import Step

    loss = method.loss(net, extra, batch, Step(0, 1), trial.rng)
    assert bool(loss.total.isfinite())
