"""ONNX operators that served graphs may use, per flavour.

A list of what is allowed, not of what is not: a new operator is looked at once, then added. Left out on purpose are
control flow (If, Loop, Scan), randomness, strings, sequences and everything that reads files.
"""

from __future__ import annotations

from typing import Literal

Flavour = Literal["onnxruntime", "tensorrt"]
"""Who runs a graph: ONNX Runtime alone, or TensorRT too."""

STANDARD = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "ArgMax",
        "ArgMin",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "CastLike",
        "Ceil",
        "Clip",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "CumSum",
        "DequantizeLinear",
        "Div",
        "Einsum",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "EyeLike",
        "Flatten",
        "Floor",
        "Gather",
        "GatherElements",
        "GatherND",
        "Gelu",
        "Gemm",
        "Greater",
        "GreaterOrEqual",
        "HardSigmoid",
        "Identity",
        "IsNaN",
        "LayerNormalization",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "LogSoftmax",
        "MatMul",
        "Max",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pad",
        "Pow",
        "QuantizeLinear",
        "Range",
        "Reciprocal",
        "ReduceL1",
        "ReduceL2",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "ReduceLogSumExp",
        "Relu",
        "Reshape",
        "Round",
        "ScatterElements",
        "ScatterND",
        "Shape",
        "Sigmoid",
        "Sign",
        "Size",
        "Slice",
        "Softmax",
        "Softplus",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Sum",
        "Tanh",
        "Tile",
        "TopK",
        "Transpose",
        "Trilu",
        "Unsqueeze",
        "Where",
        "Xor",
    ]
)
"""Of the domain ai.onnx; ONNX Runtime and the parser of TensorRT know all of them."""
CPU_ONLY = frozenset(["BitShift", "BitwiseAnd", "BitwiseOr", "DynamicQuantizeLinear", "MatMulInteger", "QLinearMatMul"])
"""Of the domain ai.onnx; TensorRT refuses them."""
CONTRIB = frozenset(
    [
        "GatherBlockQuantized",
        "MatMulNBits",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "QAttention",
        "FusedMatMul",
        "FusedGemm",
        "BiasGelu",
        "SkipLayerNormalization",
        "LayerNormalization",
        "SimplifiedLayerNormalization",
    ]
)
"""Of the domain com.microsoft; ONNX Runtime alone."""

ALLOWED: dict[Flavour, dict[str, frozenset[str]]] = {
    "onnxruntime": {"": STANDARD | CPU_ONLY, "com.microsoft": CONTRIB},
    "tensorrt": {"": STANDARD},
}
"""By flavour and domain."""


def domain_of(name: str) -> str:
    """ONNX writes its own domain in two ways."""
    return "" if name == "ai.onnx" else name
