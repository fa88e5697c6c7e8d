"""fp8 by torchao: linears that cast their operands to float8, scaled by what is in them at that moment."""

from typing import Any

import torch
from torch import Tensor, nn

from benchrunner.core.cell import Cell
from benchrunner.core.rank_result import Choices
from benchrunner.worker.axes.precision import float8
from benchrunner.worker.model.decoder import Decoder


def convert(decoder: Decoder, cell: Cell, device: torch.device) -> Choices:
    """Swap the linears in place (names and parameters stay); returns the choices to record.

    Weights are gathered in their own dtype under FSDP and cast after: a float8 gather would need its own scales
    before every step and changes what the optimizer's parameters are.

    Raises:
        Unsupported: a size that fp8 cannot take on this device.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    needs_multiples = device.type == "cuda"
    linears = float8.float8_linears(decoder, cell)
    if needs_multiples or not linears:
        float8.check_sizes(linears, cell)
    config = Float8LinearConfig.from_recipe_name(cell.config.precision.recipe)
    convert_to_float8_training(decoder, config=config, module_filter_fn=lambda module, name: name in linears)
    pads = needs_multiples and bool(cell.config.precision.pad)
    for name, linear in linears.items() if pads else ():
        float8.replace_module(decoder, name, padding_linear(linear, config))
    return {"fp8": float8.describe(decoder, linears, cell, padded=pads)}


def padding_linear(linear: nn.Linear, config: Any) -> nn.Module:
    """A float8 linear with the parameters of `linear` that pads its operands to multiples in every call."""
    from torchao.float8.float8_linear import Float8Linear, matmul_with_hp_or_float8_args

    class PaddingFloat8Linear(Float8Linear):  # type: ignore[misc, unused-ignore]
        """Parameters keep their true shape; zeros are added for the product and cut off after it."""

        def forward(self, input: Tensor) -> Tensor:
            def multiply(rows: Tensor) -> Tensor:
                weight = float8.pad_matrix(self.weight).t()
                product: Tensor = matmul_with_hp_or_float8_args.apply(rows, weight, self.linear_mm_config, self.config)
                return product

            y = float8.call_padded(input, self.out_features, multiply)
            return y if self.bias is None else y + self.bias.to(y.dtype)

    padding: nn.Module = PaddingFloat8Linear.from_float(linear, config=config)
    return padding
