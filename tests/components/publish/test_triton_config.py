"""config.pbtxt against Triton's own schema: NVIDIA's protobuf, read by protobuf's text parser."""

import pytest
from google.protobuf import text_format
from triton_schema import parse_config, schema

from components.core.contracts.job import Runtime, Target
from components.publish.signature import Signature, Tensor
from components.publish.triton import BACKENDS, config_pbtxt

SIGNATURE = Signature(
    (Tensor('an "odd\\" name', "FP32", (1, 3, -1, 64)),),
    (Tensor("boxes", "FP32", (100, 4)), Tensor("labels", "INT64", (100,)), Tensor("count", "INT32", ())),
)


def target(device: str = "cpu", threads: int | None = None) -> Target:
    return Target(device=device, runtimes=[Runtime.ONNXRUNTIME], input_shape=(1, 3, 64, 64), threads=threads)


@pytest.mark.parametrize("runtime", list(BACKENDS))
@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:3"])
def test_triton_reads_what_was_meant(runtime: Runtime, device: str) -> None:
    config = parse_config(config_pbtxt("trees-1.2_x", "model.onnx", runtime, SIGNATURE, target(device, 2)))
    assert (config.name, config.default_model_filename, config.max_batch_size) == ("trees-1.2_x", "model.onnx", 0)
    types = schema()
    assert [(one.name, types.DataType.Name(one.data_type), list(one.dims)) for one in config.input] == [
        ('an "odd\\" name', "TYPE_FP32", [1, 3, -1, 64])
    ]
    assert [(one.name, types.DataType.Name(one.data_type), list(one.dims)) for one in config.output] == [
        ("boxes", "TYPE_FP32", [100, 4]),
        ("labels", "TYPE_INT64", [100]),
        ("count", "TYPE_INT32", []),
    ]
    (group,) = config.instance_group
    kind = types.ModelInstanceGroup.Kind.Name(group.kind)
    assert (kind, group.count, list(group.gpus)) == (
        "KIND_CPU" if device == "cpu" else "KIND_GPU",
        1,
        [3] if device == "cuda:3" else [],
    )
    threads = {name: value.string_value for name, value in config.parameters.items()}
    assert threads == ({"intra_op_thread_count": "2"} if runtime is Runtime.ONNXRUNTIME else {})
    assert (config.backend or config.platform) in ("onnxruntime", "openvino", "tensorrt_plan")


def test_every_type_that_a_signature_can_have_is_one_of_tritons() -> None:
    from components.publish import signature

    kinds = {*signature._ONNX_TYPES.values(), *signature._OPENVINO_TYPES.values()}
    assert {f"TYPE_{kind}" for kind in kinds} <= set(schema().DataType.keys())


def test_the_schema_refuses_what_it_does_not_know() -> None:
    with pytest.raises(text_format.ParseError):
        parse_config('name: "x"\nmax_batch: 0\n')
    with pytest.raises(text_format.ParseError):
        parse_config('input [ { name: "x", data_type: TYPE_FLOAT, dims: [ 1 ] } ]\n')
