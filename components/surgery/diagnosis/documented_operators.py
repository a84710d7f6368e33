"""ONNX operators that NVIDIA documents for TensorRT, with the types that they take.

The facts of `docs/operators.md` of onnx-tensorrt, as of TensorRT 10.15 (opsets 9 to 24)
(https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md). Restrictions on attributes and inputs are in
`documented.py`.
"""


def words(text: str) -> frozenset[str]:
    """``"A B"`` -> {"A", "B"}."""
    return frozenset(text.split())


VERSION = "10.15"
SOURCE = "onnx-tensorrt docs/operators.md"
OPSETS = range(9, 25)

_FLOATS = "FLOAT FLOAT16 BFLOAT16"
_NUMBERS = f"{_FLOATS} INT32 INT64"
_ANY = f"{_NUMBERS} BOOL"
_STORED = f"{_ANY} FLOAT8E4M3FN FLOAT4E2M1 INT4"
_QUANTIZED = "INT8 FLOAT8E4M3FN FLOAT4E2M1 INT4"

_BY_TYPES: dict[str, str] = {
    "BOOL": "And Not Or Xor",
    _FLOATS: (
        "Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos Cosh "
        "CumSum Dropout Einsum Elu Erf Exp Floor Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization "
        "GRU HardSigmoid HardSwish Hardmax ImageScaler InstanceNormalization IsInf LayerNormalization LeakyRelu Log "
        "LogSoftmax LRN LSTM LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization ParametricSoftplus PRelu "
        "QuantizeLinear RandomNormal RandomNormalLike RandomUniform RandomUniformLike Reciprocal Resize "
        "RMSNormalization RNN RotaryEmbedding Round ScaledTanh Scan Selu Sigmoid Sin Sinh Softmax Softplus Softsign "
        "Sqrt Tan Tanh ThresholdedRelu Upsample"
    ),
    "FLOAT FLOAT16": (
        "BlackmanWindow DeformConv GridSample HammingWindow HannWindow Mish NonMaxSuppression NonZero RoiAlign"
    ),
    "FLOAT": "STFT",
    _NUMBERS: (
        "Abs Add ArgMax ArgMin DepthToSpace Div Equal Greater GreaterOrEqual IsNaN Less LessOrEqual Max Min Mod Mul "
        "Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
        "ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum TopK"
    ),
    _ANY: (
        "Concat Expand EyeLike Flatten Gather GatherElements GatherND Identity If Loop OneHot Reshape ReverseSequence "
        "Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze Where"
    ),
    f"{_ANY} UINT8": "Cast CastLike",
    _STORED: "Constant ConstantOfShape",
    _QUANTIZED: "DequantizeLinear",
    f"{_FLOATS} INT8 FLOAT8E4M3FN": "Attention",
    f"{_NUMBERS} INT8": "Gelu",
    f"{_NUMBERS} FLOAT8E4M3FN": "Mean",
    f"{_FLOATS} INT32": "TensorScatter",
}

SUPPORTED: dict[str, frozenset[str]] = {
    operator: words(types) for types, operators in _BY_TYPES.items() for operator in operators.split()
}
"""Operator -> names of ONNX data types that it takes."""

UNSUPPORTED = words(
    "AffineGrid Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im Compress "
    "ConcatFromSequence ConvInteger DFT Det DynamicQuantizeLinear ImageDecoder MatMulInteger MaxRoiPool MaxUnpool "
    "MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement OptionalHasElement "
    "QLinearConv QLinearMatMul RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty SequenceErase "
    "SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence StringConcat "
    "StringNormalizer StringSplit TfIdfVectorizer Unique"
)
"""Operators that the list has with the answer no."""

PLUGINS = words("EfficientNMS_TRT BatchedNMS_TRT BatchedNMSDynamic_TRT EfficientNMS_ONNX_TRT ROIAlign_TRT")
"""Plugins that come with TensorRT (not with TensorRT-RTX) and that exporters write as operators."""

TENSOR_TYPES = words(f"{_STORED} DOUBLE INT8 UINT8")
"""Types that a tensor of TensorRT can have, UINT8 at the border only; DOUBLE is made FLOAT."""
