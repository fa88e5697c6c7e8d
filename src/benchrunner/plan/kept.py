"""What a cell's tensors weigh: the bytes of its number formats, and what a block keeps for its backward pass.

Checked tensor by tensor against the decoder (worker/model); `benchmarks/predictions.py` compares with measured peaks.
"""

from dataclasses import dataclass

from benchrunner.core import arithmetic
from benchrunner.core.cell import Sizes
from benchrunner.core.schema import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """Bytes an element of what a step handles."""

    activation: int
    residual: int
    """Of the residual stream: fp32 under autocast."""
    stored: int
    """Of trainable parameters, their gradients and moments as they rest."""
    computed: int
    """Of parameters and gradients as the passes see them."""
    copied: int
    """Of the copies of weights that autocast or Transformer Engine casts and keeps until the backward pass; 0: none.

    Under FSDP the gathered ones are kept."""
    linear_input: int
    """Of what a linear keeps of its input; 0: a compiler makes it anew from what is kept anyway."""
    reduced: int
    """Of gradients on their way between ranks."""


def widths_of(config: Config) -> Widths:
    """The number formats of a cell, in bytes."""
    precision, is_fsdp = config.precision, config.strategy.kind == "fsdp"
    activation = arithmetic.DTYPE_BYTES.get(precision.compute_dtype, 2)
    stored = arithmetic.DTYPE_BYTES.get(precision.param_dtype, activation)
    mixed = stored != activation
    by_policy = mixed and (config.strategy.mixed_precision_by or ("policy" if is_fsdp else "autocast")) == "policy"
    autocast, is_eager = mixed and not by_policy, config.compile.name == "eager"
    is_te, is_thunder = precision.backend == "transformer_engine", config.compile.name == "thunder"
    makes_anew = is_thunder or (precision.backend == "torchao" and not is_eager)
    casts = 2 if is_te and not is_fsdp else activation if autocast and not is_thunder else 0
    return Widths(
        activation=activation,
        residual=stored if autocast else activation,
        stored=stored,
        computed=activation if by_policy else stored,
        copied=casts,
        linear_input=1 if is_te else 0 if makes_anew else activation,
        reduced=arithmetic.DTYPE_BYTES.get(precision.reduce_dtype, activation),
    )


def attends_by_formula(config: Config, *, on_cpu: bool) -> bool:
    """Whether no fused kernel runs: none is allowed, or none takes fp32 in groups of heads (CUDA, torch 2.11)."""
    is_grouped = config.model.num_heads != config.model.num_kv_heads
    is_refused = config.attention == "auto" and is_grouped and widths_of(config).activation == 4 and not on_cpu
    return config.attention == "math" or (is_refused and config.compile.name != "thunder")  # repeats keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block's bytes, for the micro-batch of a device."""

    input: float
    """The residual stream."""
    saved: float
    """What it keeps for its backward pass, its input included."""
    mlp_saved: float
    """Of that, what is free once the MLP's gradients are there."""
    wide: float
    """One tensor of the MLP's width."""
    thin: float
    """One tensor of the model's width, in the compute dtype."""
    scores: float
    """The attention of every token to every other, where it is written out; 0: a kernel keeps it to itself."""
    score_gradients: float
    """What its backward pass makes of that."""
    parameters: int
    mlp_parameters: int
    trained: int
    """Parameters that get a gradient."""


class Model:
    """Everything about a cell that the walk asks for."""

    def __init__(self, config: Config, sizes: Sizes, *, on_cpu: bool = False) -> None:
        self.config, self.sizes, self.on_cpu = config, sizes, on_cpu
        self.shape, self.width = config.model, widths_of(config)
        self.tokens = sizes.micro_batch_size * sizes.seq_len
        self.is_compiled = config.compile.name != "eager"
        self.is_fsdp = config.strategy.kind == "fsdp" and sizes.world_size > 1
        self.is_thunder = config.compile.name == "thunder"
        self.is_one_program = self.is_thunder and config.compile.scope == "model"
        """Thunder cuts a whole model into pieces around each attention; what a piece is given stays until it ends."""
        self.casts_in_graph = self.is_compiled and not self.is_thunder and self.width.residual != self.width.activation
        """Inductor under autocast: a graph keeps its cast weights, each until its last use in the backward pass."""
        self.has_buckets = (
            config.strategy.kind == "ddp"
            and sizes.world_size > 1
            and not self.is_one_program  # thunder's own DDP has none
        )
        """Gradients live in DDP's buckets, all the time."""
        self.accumulates = sizes.accumulation_steps > 1
        self.adds_gradients = not self.is_fsdp and (self.has_buckets or self.accumulates)
        """A gradient is added to what is there, so that it is a temporary itself."""
        self.ranks = sizes.world_size if self.is_fsdp else 1
        """Over which parameters, gradients and state are spread."""
        self.trains = config.workload.name in arithmetic.GRADIENT_WORKLOADS
        self.is_peft = config.workload.name in arithmetic.PEFT_WORKLOADS
        self.checkpointed = set(arithmetic.checkpointed_blocks(self.shape.num_layers, config.activation_checkpointing))
        """Blocks that are computed again in the backward pass."""
        self.first = config.workload.adapter_start_layer if config.workload.name == "adapter" else 0
        """The first block with a backward pass: below the first prompt of an adapter nothing trains."""
        self.per_op = config.activation_checkpointing.every == "per_op"
        self.block = self._block()

    def _block(self) -> Block:
        shape, tokens, width = self.shape, self.tokens, self.width
        d, f = shape.d_model, shape.d_ff
        kv = arithmetic.kv_width(shape)
        e, r, kept = width.activation, width.residual, width.linear_input
        gated = shape.mlp == "swiglu"
        frozen = self.is_peft
        inputs = 0 if frozen else kept
        norms = 1 if shape.parallel_residual and shape.shared_norm else 2
        kept_by_norm = self.kept_by_norm()
        # residual before each norm, the norms' outputs as the linears keep them, qkv's output (values are a view of
        # it), rotated queries and keys, attention's output and its logarithms of sums.
        attention = kept_by_norm + tokens * (r * d + inputs * d + e * (d + 2 * kv) + 4 * shape.num_heads + e * d)
        if shape.positions == "rotary":
            attention += tokens * e * (d + kv)
        if width.linear_input not in (0, e) and not frozen:
            attention += tokens * kept * d
        scores, gradients = self._scores()
        attention += scores  # the weights
        if self.config.attention == "explicit" and shape.dropout:  # what is left of them, and a mask
            attention += scores * (e + 1) / e
        mlp = kept_by_norm * (norms - 1) + tokens * (
            (r * d if norms == 2 and not shape.parallel_residual else 0) + (inputs * d if norms == 2 else 0)
        )
        activated = 0 if self.is_compiled else 1
        mlp += tokens * f * ((2 * e + activated * e if gated else e) + inputs)
        if self.config.workload.name == "lora" and not self.is_compiled:
            attention += tokens * e * 2 * self.config.workload.lora_rank + self._dropped()
        if self.config.workload.name == "adapter" and not self.is_compiled:
            attention += tokens * e * d  # what the gate multiplies
        if shape.dropout and not self.is_compiled:
            attention, mlp = attention + tokens * d, mlp + tokens * d  # masks
        if self.config.workload.name == "adapter_v2":
            attention += tokens * e * ((0 if self.is_compiled else 3 * d) + 2 * kv)
            mlp += tokens * e * (d + (2 * f if gated else f))
        parameters = arithmetic.block_matmul_parameters(shape)
        mlp_parameters = (3 if gated else 2) * d * f
        return Block(
            input=tokens * r * d,
            saved=attention + mlp,
            mlp_saved=mlp,
            wide=tokens * f * e,
            thin=tokens * d * e,
            scores=scores,
            score_gradients=gradients,
            parameters=parameters,
            mlp_parameters=mlp_parameters,
            trained=0 if frozen else parameters,
        )

    def _scores(self) -> tuple[float, float]:
        """Bytes of all scores, and of what is made of them in the backward pass; torch's own formula is in fp32."""
        size = float(self.sizes.micro_batch_size * self.shape.num_heads * self.sizes.seq_len**2)
        if self.config.attention == "explicit":
            return self.width.activation * size, 2 * self.width.activation * size
        made = 4 * size if self.is_compiled else 3 * 4 * size
        return (4 * size, made) if attends_by_formula(self.config, on_cpu=self.on_cpu) else (0.0, 0.0)

    def _dropped(self) -> float:
        """What LoRA keeps of its input: what dropout left of it, and its mask."""
        return float(self.tokens * self.shape.d_model * (self.width.activation + (1 if self._drops else 0)))

    @property
    def _drops(self) -> bool:
        return self.config.workload.lora_dropout > 0

    def _spared(self) -> float:
        """What the first block with a backward pass needs not keep, since its input is frozen.

        Under LoRA that, its mask, and an MLP beside the attention; under an adapter all of the attention but the
        queries, which the prompt sees. A compiler keeps less of it anyway.
        """
        if self.config.workload.name == "adapter":
            kv = self.tokens * arithmetic.kv_width(self.shape) * self.width.activation
            return self.block.input + (2 * kv if self.is_compiled else 2 * self.block.thin + 3 * kv)
        if self.config.workload.name != "lora" or self.is_compiled:
            return 0.0
        mask = self.tokens * self.shape.d_model if self._drops else 0
        return self.block.input + mask + (self.block.mlp_saved if self.shape.parallel_residual else 0.0)

    def kept_by_norm(self) -> float:
        """Bytes that a norm keeps beside its input: a CPU has no kernel for RMSNorm.

        It is computed in float32 step by step there, and the input as well as the result before the scale are kept so.
        """
        if not self.on_cpu or self.shape.norm != "rmsnorm" or self.is_compiled:
            return 0.0
        result = 0 if self.is_peft else 4  # what only the gradient of the scale needs
        return float(self.tokens * self.shape.d_model * (4 + result - self.width.residual))

    def kept(self, index: int) -> float:
        """Bytes that block `index` keeps from forward to backward."""
        if index < self.first:
            return 0.0
        if index not in self.checkpointed:
            spared = self._spared() if index == self.first else 0.0
            return self.block.saved + self.copies(self.block.parameters) - spared
        if self.per_op:
            products = (
                self.tokens
                * self.width.activation
                * (
                    3 * self.shape.d_model
                    + 2 * arithmetic.kv_width(self.shape)
                    + self.shape.d_ff * (2 if self.gated else 1)
                )
            )
            return self.block.input + products
        return self.block.input

    @property
    def records_graphs(self) -> bool:
        """A peak without gradients that begins where CUDA graphs are recorded, among Inductor's work."""
        return self.config.compile.replays_graphs and not self.trains and not self.on_cpu

    @property
    def is_tuned_at_its_peak(self) -> bool:
        """Whether steps in which Inductor works count: graphs are recorded in them, or the longest sample may be."""
        is_first = self.config.workload.lengths != "fixed" and not self.on_cpu
        return self.config.compile.name == "inductor" and (self.records_graphs or is_first)

    @property
    def casts_eagerly(self) -> bool:
        """Eager autocast; where there are gradients it keeps the casts of weights until the forward pass is over."""
        return self.width.residual != self.width.activation and not self.is_compiled

    @property
    def gated(self) -> bool:
        """Whether the MLP has three matrices."""
        return bool(self.shape.mlp == "swiglu")

    def copies(self, parameters: int) -> float:
        """Bytes of cast copies of so many weights."""
        return float(self.width.copied * parameters)

    @property
    def root_parameters(self) -> int:
        """Those outside of the blocks: embeddings, last norm, head."""
        return arithmetic.num_parameters(self.shape) - self.shape.num_layers * self.block.parameters

    @property
    def num_logits(self) -> float:
        """Elements of the logits, of a chunk where they are chunked."""
        return float(min(self.tokens, self.config.workload.loss_chunk_tokens or self.tokens) * self.shape.vocab_size)

    @property
    def head_parameters(self) -> int:
        """Elements of the head's matrix."""
        return arithmetic.head_matmul_parameters(self.shape)
