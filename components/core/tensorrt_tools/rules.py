"""From what a runtime says of a node to the row of the surgery table, in words that a user understands.

The words are those of TensorRT-RTX 1.7.1 and TensorRT 10; the first rule that fits wins. Rules without words hold for
every complaint about their operators, so OpenVINO's and ONNX Runtime's go through the same list.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Attributes = Mapping[str, object]


@dataclass(frozen=True)
class Rule:
    """One thing that a runtime refuses."""

    row: int | None
    """Row of the surgery table; None where no surgery helps."""
    refused: str
    """What is refused, in plain words."""
    way_out: str
    """What the user can do."""
    operators: frozenset[str] = frozenset()
    """ONNX operators or TensorRT layer kinds that it is about; empty: any."""
    words: str = ""
    """Regular expression that the tool's words must match, case ignored; empty: any words."""
    attributes: Attributes = field(default_factory=dict)
    """Attributes that the node must have, where they are known."""

    def fits(self, operator: str, words: str, attributes: Attributes | None) -> bool:
        """Whether it is about this complaint."""
        if self.operators and operator not in self.operators:
            return False
        if self.words and not re.search(self.words, words, re.IGNORECASE):
            return False
        given = {} if attributes is None else attributes
        return all(name not in given or given[name] == value for name, value in self.attributes.items())


def rule_for(operator: str, words: str, attributes: Attributes | None = None) -> Rule | None:
    """The rule behind a complaint, or None where none is known.

    Args:
        operator: ONNX operator or TensorRT layer kind; empty where the tool names none.
        words: what the tool says.
        attributes: of the node, where they are known.
    """
    return next((rule for rule in RULES if rule.fits(operator, words, attributes)), None)


def _rule(
    row: int | None,
    operators: str,
    refused: str,
    way_out: str,
    words: str = "",
    attributes: Attributes | None = None,
) -> Rule:
    return Rule(row, refused, way_out, frozenset(operators.split()), words, attributes or {})


_TYPES = r"same (input |element )?types?\b|bound to different types|element types .*do not match|element::Type::merge"
_PLUGIN = r"plugin|not supported|no importer|no conversion rule|not .*registered|could not find an implementation"
_STRINGS = "StringNormalizer StringConcat StringSplit RegexFullMatch"
_SEQUENCES = (
    "SplitToSequence ConcatFromSequence SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert "
    "SequenceLength SequenceMap"
)

RULES: tuple[Rule, ...] = (
    # Resize
    _rule(
        3,
        "Resize",
        "Resize with antialias=1",
        "surgery row 3 replaces it by two constant MatMuls when its sizes are fixed",
        r"antialias",
    ),
    _rule(
        6,
        "Resize",
        "Resize with a keep_aspect_ratio_policy other than `stretch`",
        "surgery row 6 computes the sizes that the policy means, and gives them",
        r"keep_aspect_ratio|aspect ratio policy",
    ),
    _rule(
        5,
        "Resize",
        "Resize with coordinate_transformation_mode=tf_crop_and_resize",
        "surgery row 5 replaces it by Slice and Resize when its region is constant",
        r"transformation mode|tf_crop_and_resize",
    ),
    _rule(
        5,
        "Resize",
        "Resize in a frame that needs `sizes`, with scales that are there and empty",
        "surgery row 5 says it by constant MatMuls or a plain Resize",
        r"Length of scales = 0",
    ),
    _rule(
        2,
        "Resize",
        "Resize whose `scales` come at run time",
        "surgery row 2 computes `sizes` of them",
        r"shape tensor|scales|symbolicRep",
    ),
    _rule(4, "Resize", "Resize with mode=cubic", "surgery row 4 replaces it by two constant MatMuls", r"cubic"),
    # Types
    _rule(
        26,
        "DequantizeLinear DEQUANTIZE",
        "an INT32 bias behind DequantizeLinear",
        "surgery row 26 makes it an FP32 bias",
        r"type int32|an INT32",
    ),
    _rule(
        25,
        "QuantizeLinear DequantizeLinear QUANTIZE DEQUANTIZE",
        "quantization with a zero point other than 0",
        "surgery row 25 shifts uint8 with zero point 128 to int8 with 0; quantize others again, symmetrically",
        r"zero.?point|uint8",
    ),
    _rule(
        9,
        "",
        "a UINT8 tensor inside the graph",
        "surgery row 9 computes such masks in BOOL and FLOAT; UINT8 may only be an input or an output",
        r"uint8",
        {"uint8_input": False},
    ),
    _rule(
        8,
        "",
        "a UINT8 input that is read by something else than a Cast",
        "surgery row 8 casts it first",
        r"uint8",
    ),
    _rule(
        38,
        "Cast CastLike",
        "strings",
        "strings cannot be in an engine: do the text work before the model, and give it numbers",
        r"data type|string|not implemented",
        {"to": 8},
    ),
    _rule(
        10,
        "Cast CastLike",
        "Cast to a type that TensorRT does not have, such as INT16 or UINT32",
        "surgery row 10 casts to INT32 where the values fit",
        r"data type",
    ),
    _rule(
        38,
        "input initializer",
        "strings",
        "strings cannot be in an engine: do the text work before the model, and give it numbers",
        r"STRING",
    ),
    _rule(
        28,
        "initializer",
        "quantization to 16 bits, which TensorRT does not have",
        "surgery row 28 removes it: the model computes in floats there; quantize to 8 bits with `hasten int8`",
        r"type",
        {"quantizer": True},
    ),
    _rule(
        19,
        "input",
        "an input that is a sequence of tensors",
        "give the model one input a tensor, or one stacked tensor, instead of a list, and export it again",
        r"type",
        {"kind": "sequence"},
    ),
    _rule(
        38,
        "input",
        "an input that is optional",
        "export the model with arguments that are always there (no None in forward)",
        r"type",
        {"kind": "optional"},
    ),
    _rule(
        10,
        "input initializer",
        "an input or weights of a type that TensorRT does not have",
        "surgery row 10 makes them INT32 where the values fit; else cast before the model",
        r"type",
    ),
    _rule(7, "", "FLOAT64", "surgery row 7 makes it FP32", r"\b(double|float64|fp64)\b"),
    _rule(
        36,
        "",
        "operands of different types (FP16 beside FP32, for instance); the network is strongly typed",
        "surgery row 36 puts an explicit Cast at the narrower operand",
        _TYPES,
    ),
    # Operators that need a plugin, or that no runner implements
    _rule(
        12,
        "NonMaxSuppression NMS",
        "NonMaxSuppression",
        "surgery row 12 replaces it when its sizes and thresholds are constant",
    ),
    _rule(
        13,
        "EfficientNMS_TRT BatchedNMS_TRT BatchedNMSDynamic_TRT EfficientNMS_ONNX_TRT",
        "a TensorRT plugin for NMS, which this runtime does not have",
        "surgery row 13 replaces it by plain operators, as row 12 does for NonMaxSuppression",
    ),
    _rule(
        14,
        "RoiAlign ROIAlign_TRT",
        "RoiAlign",
        "surgery row 14 replaces it when the feature map's shape and sampling_ratio are fixed",
    ),
    _rule(
        15,
        "NonZero NON_ZERO",
        "NonZero, of which the number of results depends on the data",
        "surgery row 15 replaces it when its mask's shape is fixed",
        attributes={"writes": False},
    ),
    _rule(
        43,
        "NonZero NON_ZERO",
        "a write through a boolean mask (`x[mask] = value`), as the dynamo exporter says it",
        "surgery row 43 replaces it by Where",
    ),
    _rule(
        16,
        "TopK TOPK",
        "TopK with K above 3840",
        "surgery row 16 takes the best of chunks, and then the best of those",
        r"3840|exceeds the maximum",
    ),
    _rule(
        17,
        "TopK TOPK",
        "TopK with a K that comes at run time",
        "surgery row 17 makes it constant where it is",
        r"\bK\b",
    ),
    _rule(
        None,
        "",
        "NonMaxSuppression, NonZero or their like inside of a branch or a loop",
        "take it out of there, where surgery rows 12 and 15 can replace it: choose between the results and not between "
        "the computations, or export the model with the choice made",
        r"only allowed in the top-level scope",
    ),
    _rule(
        18,
        "If CONDITION CONDITIONAL_OUTPUT CONDITIONAL_INPUT",
        "If whose branches have different ranks, mostly of `squeeze(dim)`",
        "surgery row 18 folds it when its condition is constant, and pins a squeezed dimension that is open",
        r"rank|condition|shape",
    ),
    _rule(
        18,
        "Squeeze SHUFFLE",
        "Squeeze of a dimension that is open and need not be 1",
        "surgery row 18 pins a squeezed dimension that is open",
        r"changes volume",
    ),
    _rule(
        19,
        _SEQUENCES,
        "sequences of tensors",
        "surgery row 19 replaces them by Split, Concat and Gather when the number of pieces is known",
        attributes={"gathers": False},
    ),
    _rule(
        44,
        "ScatterND ScatterElements",
        "Scatter with reduction=max",
        "surgery row 44 replaces it by a masked maximum when the indices' shape is fixed",
        r"reduction",
        {"reduction": "max"},
    ),
    _rule(
        44,
        "ScatterND ScatterElements",
        "Scatter with reduction=min",
        "surgery row 44 replaces it by a masked minimum when the indices' shape is fixed",
        r"reduction",
        {"reduction": "min"},
    ),
    _rule(
        44,
        "ScatterND ScatterElements",
        "Scatter with reduction=mul",
        "surgery row 44 replaces it by a masked product when the indices' shape is fixed",
        r"reduction",
        {"reduction": "mul"},
    ),
    _rule(
        20,
        "ScatterND ScatterElements",
        "Scatter with reduction=add",
        "surgery row 20 replaces it by a MatMul with a one-hot matrix when the indices' shape is fixed",
        r"reduction",
    ),
    _rule(
        22,
        "GridSample",
        "GridSample of volumes (5-D)",
        "this runtime samples 4-D images only: TensorRT-RTX takes it, or sample slice by slice in the model",
        r"4D|rank|dimension",
    ),
    _rule(
        24,
        "Einsum",
        "Einsum with three operands or an ellipsis",
        "surgery row 24 says it with MatMuls",
    ),
    _rule(
        27,
        "QLinearConv QLinearMatMul MatMulInteger ConvInteger DynamicQuantizeLinear QLinearAdd QLinearMul "
        "QLinearSigmoid QLinearLeakyRelu QLinearGlobalAveragePool QLinearAveragePool QLinearConcat QLinearSoftmax "
        "QLinearReduceMean QLinearWhere QGemm",
        "an integer operator of ONNX or ONNX Runtime; TensorRT quantizes by Q/DQ nodes around float operators",
        "surgery row 27 turns it into the Q/DQ form; or quantize the float model with `hasten int8`",
    ),
    _rule(
        41,
        "",
        "an input that the parser does not find, such as weights that are stored sparse",
        "surgery row 41 stores sparse weights in full",
        r"node input was not registered|sparse_value",
        {"sparse": True},
    ),
    _rule(
        31,
        "Pad",
        "this padding mode",
        "surgery row 31 makes the pads constant; use constant, edge or reflect",
        r"pad|symbolicRep",
    ),
    _rule(
        33,
        "MaxPool POOLING",
        "the second output of MaxPool, the indices",
        "surgery row 33 drops it when nothing reads it, and says MaxUnpool with a scatter",
        r"outputs|indices",
    ),
    _rule(
        32,
        "MaxPool POOLING",
        "MaxPool with dilations",
        "surgery row 32 takes the maximum of strided slices",
        r"dilation",
    ),
    _rule(33, "MaxUnpool", "MaxUnpool", "surgery row 33 says it with a scatter when the size is known"),
    _rule(
        34,
        "Loop RECURRENCE TRIP_LIMIT LOOP_OUTPUT ITERATOR",
        "Loop whose state grows from one turn to the next",
        "surgery row 34 unrolls it when the number of turns is constant",
        r"same shape|state|recurrence|trip|loop|scan|NodeOrder",
        {"gathers": False},
    ),
    _rule(
        47,
        f"Loop RECURRENCE TRIP_LIMIT LOOP_OUTPUT ITERATOR {_SEQUENCES}",
        "EmbeddingBag, exported as a Loop",
        "surgery row 47 replaces it by Gather and a reduction",
        attributes={"gathers": True},
    ),
    _rule(35, "DFT", "DFT", "surgery row 35 replaces it by a constant MatMul when its length is fixed"),
    _rule(
        37,
        "Dropout BatchNormalization",
        "a node in training mode",
        "surgery row 37 says it without the mode; better export the model after `model.eval()`",
        r"training|outputs|is_training",
    ),
    _rule(
        38,
        "Col2Im AffineGrid BitwiseAnd BitwiseOr BitwiseXor BitwiseNot BitShift",
        "an operator that TensorRT does not have",
        "surgery row 38 says it in plain operators when its shapes are fixed",
    ),
    _rule(
        38,
        "Unique",
        "Unique, of which the number of results depends on the data",
        "no fixed-size form is exact: find the unique values outside the model",
    ),
    _rule(
        38,
        "Compress",
        "Compress, of which the number of results depends on the data",
        "surgery row 38 makes it a Gather; where the condition comes at run time, row 15 then sees to its fixed size",
    ),
    _rule(38, "Det", "Det", "surgery row 38 writes it out for up to 3 x 3; compute larger ones outside the model"),
    _rule(
        38,
        "Optional OptionalGetElement OptionalHasElement",
        "optional values",
        "export the model with arguments that are always there (no None in forward)",
    ),
    _rule(
        38,
        _STRINGS,
        "strings",
        "strings cannot be in an engine: do the text work before the model, and give it numbers",
    ),
    _rule(
        39,
        "DeformConv",
        "DeformConv, which needs a plugin",
        "surgery row 39 replaces it by GridSample and Conv when its shapes are fixed",
    ),
    _rule(
        45,
        "MaxRoiPool",
        "MaxRoiPool",
        "surgery row 45 replaces it by tables of maxima when the feature map's shape is fixed",
    ),
    _rule(
        46,
        "LSTM",
        "LSTM with a projection of its state",
        "surgery row 46 says it as an LSTM and a MatMul",
        r"proj|hidden|dimension|shape|same",
    ),
    _rule(
        40,
        "",
        "an input with open dimensions",
        "give the shape (--input-shape), or fix it when exporting; surgery row 40 pins it",
        r"open dimensions|dynamic (input|shape)|optimization profile",
    ),
    # No row: what is known about them nevertheless
    _rule(
        None,
        "CumSum OneHot Squeeze Unsqueeze Hardmax Tile EyeLike",
        "an argument (axis, depth, axes) that must be known when the engine is built",
        "make it a constant in the model",
        r"build.?time constant|constant|initializer",
    ),
    _rule(
        None,
        "",
        "a shape that is computed from floating-point numbers at run time",
        "compute it from integers in the model, or fix the input's shape",
        r"symbolicRep",
    ),
    _rule(
        None,
        "Bernoulli Multinomial TfIdfVectorizer CenterCropPad MelWeightMatrix ImageDecoder NegativeLogLikelihoodLoss "
        "SoftmaxCrossEntropyLoss Gradient CumProd",
        "an operator that TensorRT does not have",
        "no row of the table is about it: export the model without it (losses and random draws belong to training)",
    ),
    _rule(
        None,
        "ATen",
        "an operator that torch could not express in ONNX",
        "export again with a newer torch or `dynamo=True`, without `operator_export_type=ONNX_ATEN_FALLBACK`",
    ),
    _rule(
        None,
        "FusedConv FusedMatMul FusedGemm SkipLayerNormalization FastGelu BiasGelu EmbedLayerNormalization "
        "MultiHeadAttention QAttention DynamicQuantizeMatMul NhwcMaxPool",
        "an operator of ONNX Runtime's own (com.microsoft)",
        "start from the model as it was exported, before ONNX Runtime optimized or quantized it",
    ),
    _rule(
        None,
        "",
        "an operator that this runtime does not have",
        "no row of the table is about it: export the model without it, or let it run in ONNX Runtime",
        _PLUGIN,
    ),
)
