"""Models that the table does not name, random weights, small inputs, both exporters: TensorRT-RTX builds each."""

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from surgery_graphs import export, needs_rtx, rtx, surgered, worst
from torch import nn
from torchvision import models
from torchvision.models import segmentation

pytestmark = [pytest.mark.slow, needs_rtx]
SIDE = 64
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
ENCODERS = {
    "Bert": {},
    "ModernBert": {"global_attn_every_n_layers": 2, "local_attention": 8, "cls_token_id": 1, "sep_token_id": 2},
    "CLIPText": {},
}


class Segmentation(nn.Module):
    def __init__(self, build):
        super().__init__()
        self.model = build(weights=None, weights_backbone=None, num_classes=5)

    def forward(self, x):
        return self.model(x)["out"]


class Encoder(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, mask):
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state


PICTURES = {
    "convnext_tiny": lambda: models.convnext_tiny(weights=None),
    "regnet_y_400mf": lambda: models.regnet_y_400mf(weights=None),
    "fcn_resnet50": lambda: Segmentation(segmentation.fcn_resnet50),
    "lraspp_mobilenet_v3_large": lambda: Segmentation(segmentation.lraspp_mobilenet_v3_large),
}


def by_dynamo(module, arguments, names, shapes=None):
    """The model as torch's newer exporter writes it."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        options = {"input_names": names, "output_names": ["y"], "dynamic_shapes": shapes, "verbose": False}
        torch.onnx.export(module.eval(), arguments, dynamo=True, **options).save(buffer)
    return onnx.load_from_string(buffer.getvalue())


@pytest.mark.parametrize("exporter", ["script", "dynamo"])
@pytest.mark.parametrize("name", PICTURES)
def test_a_model_of_pictures(name, exporter):
    torch.manual_seed(0)
    module, image = PICTURES[name](), torch.rand(1, 3, SIDE, SIDE)
    if exporter == "dynamo":
        before = by_dynamo(module, (image,), ["x"])
    else:
        opened = {"x": {0: "batch", 2: "height", 3: "width"}}
        before = export(module, image, input_names=["x"], output_names=["y"], dynamic_axes=opened)
    after = surgered(before)
    assert rtx(after)[::2] == ("ok", 0)
    assert worst(before, after, [{"x": image.numpy()}]) < 1e-5


@pytest.mark.parametrize("exporter", ["script", "dynamo"])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_text_encoder_of_open_batch_and_length(name, exporter):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    special = {"vocab_size": 200, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{name}Config")(**TINY, **special, **ENCODERS[name])
    module = Encoder(getattr(transformers, f"{name}Model")(config).eval())
    ids, mask = torch.randint(3, 200, (2, 12)), torch.ones(2, 12, dtype=torch.int64)
    mask[1, 8:] = 0
    names = ["ids", "mask"]
    if exporter == "dynamo":
        axes = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
        before = by_dynamo(module, (ids, mask), names, (axes, axes))
    else:
        opened = {value: {0: "batch", 1: "length"} for value in names}
        before = export(module, ids, mask, input_names=names, output_names=["y"], dynamic_axes=opened)
    after = surgered(before)
    assert rtx(after)[::2] == ("ok", 0)
    for length in (5, 12):
        feed = {"ids": np.asarray(ids[:, :length]), "mask": np.asarray(mask[:, :length])}
        assert worst(before, after, [feed]) < 1e-5
