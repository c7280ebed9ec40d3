"""Dense layers in int8: symmetric static QDQ by ranges seen on real requests, and training that rounds as it serves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.candidate import Unchanged
from core.errors import CompressionError

LARGEST = 127
CLIP_QUANTILE = 0.9999
"""Share of the inputs' magnitudes within the range; the rest is held at its ends."""
SMALLEST_SCALE = 1e-8
SAMPLE = 1 << 16
"""Numbers per call that ranges are taken from."""
ONNX_INT8, ONNX_FLOAT = 3, 1
"""Element types of onnx.TensorProto."""


class QuantLinear(nn.Module):
    """A linear layer over int8 inputs and weights with zero point 0: one scale for inputs, one per output for weights.

    Args:
        inputs: Width.
        outputs: Width.
        bias: Whether it has one.
    """

    weight: Tensor
    weight_scale: Tensor
    input_scale: Tensor
    bias: Tensor | None

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(outputs, inputs, dtype=torch.int8))
        self.register_buffer("weight_scale", torch.ones(outputs))
        self.register_buffer("input_scale", torch.ones(()))
        self.register_buffer("bias", torch.zeros(outputs) if bias else None)

    @classmethod
    def of(cls, layer: nn.Linear, input_scale: float) -> QuantLinear:
        """The layer in int8."""
        found = cls(layer.in_features, layer.out_features, bias=layer.bias is not None)
        scale = weight_scales(layer.weight.detach())
        found.weight.copy_(torch.round(layer.weight.detach() / scale.unsqueeze(1)).clamp(-LARGEST, LARGEST))
        found.weight_scale.copy_(scale)
        found.input_scale.fill_(input_scale)
        if found.bias is not None:
            found.bias.copy_(layer.bias.detach())
        return found

    def forward(self, inputs: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return self._as_nodes(inputs)
        codes = torch.clamp(torch.round(inputs / self.input_scale), -LARGEST - 1, LARGEST)
        weight = self.weight.to(torch.float32) * self.weight_scale.unsqueeze(1)
        return F.linear(codes * self.input_scale, weight, self.bias)

    def _as_nodes(self, inputs: Tensor) -> Tensor:
        zero = torch.zeros((), dtype=torch.int8)
        zeros = torch.zeros(len(self.weight_scale), dtype=torch.int8)
        node = torch.onnx.ops.symbolic
        codes = node(
            "QuantizeLinear", (inputs, self.input_scale, zero), dtype=ONNX_INT8, shape=inputs.shape, version=20
        )
        rounded = node(
            "DequantizeLinear", (codes, self.input_scale, zero), dtype=ONNX_FLOAT, shape=inputs.shape, version=20
        )
        weight = node(
            "DequantizeLinear", (self.weight.T.contiguous(), self.weight_scale, zeros), {"axis": 1},
            dtype=ONNX_FLOAT, shape=self.weight.T.shape, version=20,
        )  # fmt: skip
        product = rounded @ weight
        return product if self.bias is None else product + self.bias


class RoundedLinear(nn.Linear):
    """A linear layer that learns with the rounding of :class:`QuantLinear`; gradients pass straight through.

    Args:
        layer: What it takes its parameters from.
        input_scale: Scale of its inputs.
    """

    def __init__(self, layer: nn.Linear, input_scale: float) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None)
        self.weight, self.bias = layer.weight, layer.bias
        self.input_scale = input_scale

    def forward(self, inputs: Tensor) -> Tensor:
        scale = weight_scales(self.weight.detach()).unsqueeze(1)
        return F.linear(_rounded(inputs, self.input_scale), _rounded(self.weight, scale), self.bias)


def weight_scales(weight: Tensor) -> Tensor:
    """Scale of each output's weights ``(outputs,)``."""
    return weight.abs().amax(1).clamp(min=SMALLEST_SCALE) / LARGEST


def input_scales(network: nn.Module, run: Callable[[], None]) -> dict[str, float]:
    """Scale of the inputs of each linear layer, by name, over what ``run`` sends through.

    Raises:
        CompressionError: A layer saw no input, or one that is not finite.
    """
    seen: dict[str, list[Tensor]] = {name: [] for name, _ in linear_layers(network)}
    generator = torch.Generator().manual_seed(0)

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            flat = inputs[0].detach().abs().flatten()
            drawn = torch.randint(len(flat), (min(SAMPLE, len(flat)),), generator=generator)
            seen[name].append(torch.cat([flat[drawn], flat.amax().unsqueeze(0)]))

        return keep

    handles = [layer.register_forward_pre_hook(look(name)) for name, layer in linear_layers(network)]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return {name: _scale(name, parts) for name, parts in seen.items()}


def quantize_layers(network: nn.Module, scales: dict[str, float]) -> tuple[Unchanged, ...]:
    """Puts every linear layer into int8 in place; tells of those that are left alone."""
    left = []
    for name, layer in linear_layers(network):
        if not bool(layer.weight.detach().any()):
            left.append(Unchanged(name, "all its weights are 0"))
            continue
        replace_layer(network, name, QuantLinear.of(layer, scales[name]))
    return tuple(left)


def linear_layers(network: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Names and layers, in order."""
    return [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]


def replace_layer(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Puts ``layer`` where ``name`` is."""
    *path, last = name.split(".")
    network.get_submodule(".".join(path))._modules[last] = layer


def _rounded(values: Tensor, scale: Tensor | float) -> Tensor:
    codes = torch.clamp(torch.round(values.detach() / scale), -LARGEST, LARGEST)
    return values + (codes * scale - values).detach()


def _scale(name: str, parts: list[Tensor]) -> float:
    if not parts:
        raise CompressionError(
            "a dense layer saw no input while its range was measured",
            where=name,
            expected="requests that reach it",
            found="none",
        )
    values = torch.cat(parts)
    if not bool(torch.isfinite(values).all()):
        raise CompressionError(
            "a dense layer's inputs are not finite", where=name, expected="finite numbers", found="NaN or Inf"
        )
    largest = float(_quantile(values))
    return max(largest / LARGEST, SMALLEST_SCALE)


def _quantile(values: Tensor) -> Tensor:
    """The clip quantile; torch.quantile ends at 2^24 values."""
    at = min(len(values) - 1, int(CLIP_QUANTILE * len(values)))
    return torch.kthvalue(values, at + 1).values
