"""The user's detector with another backbone: same heads, same maps; it learns, exports and keeps what fits."""

from typing import Any

import pytest
import torch
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from components.backbone.bodies import make_body
from components.backbone.exchange import exchange, levels_of, resize
from components.backbone.factory import build
from components.backbone.weights import load_body, pretrained_state, take_over
from components.core.errors import StepError, UserError
from components.export.canonical import canonical, unsupported
from fixtures import detectors
from fixtures.detectors import SIDE

TINY = {"faster_rcnn": 2, "retinanet": 3, "fcos": 3, "ssd": 3}
"""Detectors of `fixtures.detectors`, and their classes."""
IMAGE = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def made(kind: str, backbone: str = "timm/lcnet_035", **more: Any) -> Any:
    return build(f"fixtures.detectors:tiny_{kind}", {}, backbone, (SIDE, SIDE), **more)


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("backbone", ["timm/lcnet_035", "torchvision/mobilenet_v3_small"])
def test_the_heads_see_the_same_maps_and_the_whole_learns(kind, backbone):
    user = getattr(detectors, f"tiny_{kind}")()
    model = made(kind, backbone)
    assert type(model) is type(user)
    assert levels_of(model, SIDE, SIDE) == levels_of(user, SIDE, SIDE)
    target = {"boxes": torch.tensor([[10.0, 10.0, 50.0, 60.0]]), "labels": torch.tensor([1])}
    losses = model.train()([IMAGE, IMAGE], [target, target])
    sum(losses.values()).backward()
    body = [parameter for name, parameter in model.named_parameters() if name.startswith("backbone.body")]
    assert body
    assert all(parameter.grad is not None for parameter in body)


@pytest.mark.parametrize("kind", TINY)
def test_the_exchanged_detector_has_a_static_form(kind):
    model = made(kind).eval()
    assert unsupported(model) is None
    boxes, scores, _ = canonical(model, SIDE, SIDE)(IMAGE.unsqueeze(0))
    with torch.no_grad():
        eager = model([IMAGE])[0]
    kept = scores > 0
    assert int(kept.sum()) == len(eager["scores"])
    torch.testing.assert_close(scores[kept], eager["scores"], atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes[kept], eager["boxes"], atol=0.05, rtol=1e-3)


def test_levels_above_the_pyramid_are_the_users():
    user = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    levels = levels_of(user, 320, 320)
    exchange(user, "torchvision/shufflenet_v2_x0_5", 320, 320)
    assert levels_of(user, 320, 320) == levels
    assert [level.stride for level in levels][:2] == [16, 32]


def test_what_does_not_fit_says_what_is_missing():
    with pytest.raises(StepError, match=r"timm/vit_tiny_patch16_224 has no feature maps at stride 4, 8, .*at 16"):
        made("faster_rcnn", "timm/vit_tiny_patch16_224")
    with pytest.raises(StepError, match="Linear has no parts transform and backbone"):
        levels_of(torch.nn.Linear(1, 1), 32, 32)


def test_at_another_size_anchors_grow_with_the_image():
    model, large = made("faster_rcnn"), made("faster_rcnn", input_size=(2 * SIDE, 2 * SIDE))
    sizes = [one.rpn.anchor_generator.sizes for one in (model, large)]
    assert sizes[1] == tuple(tuple(2.0 * side for side in sides) for sides in sizes[0])
    anchors = [one.rpn.anchor_generator.cell_anchors[0] for one in (model, large)]
    torch.testing.assert_close(anchors[1], 2 * anchors[0])
    images, _ = large.transform([torch.zeros(3, 2 * SIDE, 2 * SIDE)])
    assert tuple(images.tensors.shape[-2:]) == (2 * SIDE, 2 * SIDE)
    assert large.roi_heads.box_roi_pool.canonical_scale == 2 * model.roi_heads.box_roi_pool.canonical_scale
    fcos = made("fcos")
    before = fcos.anchor_generator.sizes
    resize(fcos, 2 * SIDE, 2 * SIDE, (SIDE, SIDE))
    assert fcos.anchor_generator.sizes == before


def test_heads_are_taken_over_and_the_body_only_whole():
    user = detectors.tiny_faster_rcnn(seed=5)
    model = made("faster_rcnn")
    count = take_over(model, user.state_dict(), body=True)
    own, its = model.state_dict(), user.state_dict()
    assert count > 10
    for key in ("roi_heads.box_predictor.cls_score", "rpn.head.cls_logits", "backbone.fpn.layer_blocks.0.0"):
        assert torch.equal(own[f"{key}.weight"], its[f"{key}.weight"]), key
    # One layer of another body that looks the same is left as it is; the same body is taken over whole.
    body = {key: torch.ones_like(value) for key, value in own.items() if key.startswith("backbone.body.")}
    some = dict(list(body.items())[:3])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    take_over(model, some, body=True)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    take_over(model, body, body=False)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    take_over(model, body, body=True)
    assert all(torch.equal(value, torch.ones_like(value)) for key, value in model.state_dict().items() if key in body)


@pytest.mark.parametrize("name", ["timm/lcnet_035", "timm/convnext_atto", "torchvision/shufflenet_v2_x0_5"])
def test_pretrained_weights_come_from_a_file_of_the_classifier(tmp_path, name):
    library, _, network = name.partition("/")
    if library == "timm":
        import timm

        classifier = timm.create_model(network, pretrained=False)
    else:
        import torchvision

        classifier = torchvision.models.get_model(network, weights=None)
    torch.save(classifier.state_dict(), tmp_path / f"{network}.pth")
    state = pretrained_state(name, str(tmp_path))
    assert state is not None
    body = make_body(name, [8, 16, 32])
    load_body(body.net, state, name)
    given = {key.replace(".", "_"): value for key, value in classifier.state_dict().items()}
    loaded = body.net.state_dict()
    assert all(torch.equal(value, given[key.replace(".", "_")]) for key, value in loaded.items())


def test_weights_that_are_missing_or_of_another_network_are_one_line(tmp_path):
    assert pretrained_state("timm/lcnet_035", "none") is None
    with pytest.raises(UserError, match=r"has none of lcnet_035\.safetensors, lcnet_035\.pth, lcnet_035\.pt; put one"):
        pretrained_state("timm/lcnet_035", str(tmp_path))
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "lcnet_035.pth")
    state = pretrained_state("timm/lcnet_035", str(tmp_path))
    with pytest.raises(UserError, match=r"the weights do not fit timm/lcnet_035: .* tensors are missing"):
        load_body(make_body("timm/lcnet_035", [8]).net, state or {}, "timm/lcnet_035")
    torch.save({"weights": torch.nn.Linear(2, 2)}, tmp_path / "lcnet_050.pth")
    with pytest.raises(UserError, match="pickled objects and code are never run"):
        pretrained_state("timm/lcnet_050", str(tmp_path))
