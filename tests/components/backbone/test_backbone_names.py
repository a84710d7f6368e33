"""Names, globs and presets; what nobody knows is one line with the nearest that somebody does."""

import pytest

from components.backbone.names import PRESETS, expand, family_of
from components.backbone.published import published
from components.core.errors import UserError


def test_names_globs_and_presets_come_once_each_in_order():
    found = expand(["timm/resnet18", "torchvision/resnet1?", "timm/lcnet_0*", "timm/resnet18"], "cpu")
    assert found[:2] == ["timm/resnet18", "torchvision/resnet18"]
    assert set(found[2:]) == {"timm/lcnet_035", "timm/lcnet_050", "timm/lcnet_075"}
    assert expand([], "cpu") == expand(["edge"], "cuda") == list(PRESETS["edge"])
    assert expand([], "cuda:0") == list(PRESETS["server"])


@pytest.mark.parametrize("name", [name for names in PRESETS.values() for name in names])
def test_every_network_of_a_preset_exists(name):
    assert expand([name], "cpu") == [name]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("egde", "given 'egde', did you mean edge?; accepted: edge, server, timm/NAME or torchvision/NAME"),
        ("resnet18", "given 'resnet18'; accepted: edge, server"),
        ("keras/resnet18", "given 'keras/resnet18'; accepted"),
        ("timm/resnet19", "timm has no model 'resnet19', did you mean timm/resnet18?"),
        ("torchvision/nothing_*", "torchvision has no model 'nothing_*'"),
        ("timm/*", "networks match, at most 500; name fewer"),
    ],
)
def test_what_nobody_knows_is_one_line(given, words):
    with pytest.raises(UserError) as error:
        expand([given], "cpu")
    assert words in str(error.value)
    assert str(error.value).startswith("backbone.candidates: ")


def test_sizes_of_one_architecture_share_its_name():
    same = [("timm/resnet18", "timm/resnet34"), ("timm/lcnet_050", "timm/lcnet_100"),
            ("timm/mobilenetv3_small_050", "timm/mobilenetv3_small_100"),
            ("torchvision/regnet_y_400mf", "torchvision/regnet_y_800mf")]  # fmt: skip
    other = [("timm/resnet18", "timm/resnet18d"), ("timm/mobilenetv2_100", "timm/mobilenetv3_large_100"),
             ("timm/resnet18", "torchvision/resnet18"),
             ("timm/mobilenetv3_small_100", "timm/mobilenetv3_large_100")]  # fmt: skip
    assert all(family_of(one) == family_of(two) for one, two in same)
    assert all(family_of(one) != family_of(two) for one, two in other)


def test_published_accuracies_are_torchvisions_own():
    assert published("torchvision/resnet18") == pytest.approx(0.69758)
    assert published("timm/resnet18") is None
