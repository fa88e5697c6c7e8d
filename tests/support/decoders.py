"""Small decoders that several tests share."""

from typing import Any

import torch
import yaml
from torch import Tensor, nn

from benchrunner.core.paths import config_dir
from benchrunner.core.schema import ModelConfig
from benchrunner.worker.model.decoder import Decoder

SMALL = {
    "num_layers": 2,
    "d_model": 64,
    "num_heads": 4,
    "num_kv_heads": 4,
    "d_ff": 80,
    "vocab_size": 96,
    "max_seq_len": 32,
    "num_parameters": None,
}
CPU = torch.device("cpu")


def load_model(name: str, **changes: Any) -> ModelConfig:
    shape = yaml.safe_load((config_dir() / "model" / f"{name}.yaml").read_text())
    return ModelConfig(**(shape | changes))


def randomize(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for _, parameter in sorted(module.named_parameters()):
        offset = 1.0 if parameter.ndim == 1 else 0.0
        parameter.data.normal_(offset, 0.2, generator=generator)


def make_decoder(model: ModelConfig, **options: Any) -> Decoder:
    decoder = Decoder(model, **options)
    randomize(decoder)
    return decoder.eval()


def draw_tokens(batch: int, length: int, vocab_size: int = 96, *, seed: int = 0) -> Tensor:
    return torch.randint(vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))
