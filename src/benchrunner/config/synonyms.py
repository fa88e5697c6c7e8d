"""What people write who know other tools, and what it is called here: asked before any guess by spelling."""

import difflib
import re
from collections.abc import Iterable, Mapping

MOST_SHOWN = 5
"""Alternatives that a message names."""

CUTOFF = 0.6
"""How alike two words are, at least, that one is taken for a misspelling of the other."""

OPTIONS: Mapping[str, Mapping[str, str]] = {
    "strategy": {
        "zero2": "fsdp_stage2", "zero3": "fsdp_stage3", "deepspeed": "fsdp_stage3", "deepspeedstage2": "fsdp_stage2",
        "deepspeedstage3": "fsdp_stage3", "fsdp2": "fsdp_stage3", "fsdp1": "fsdp_stage3", "fullyshard": "fsdp_stage3",
        "fullshard": "fsdp_stage3", "shardgradop": "fsdp_stage2", "stage2": "fsdp_stage2", "stage3": "fsdp_stage3",
        "dp": "ddp", "dataparallel": "ddp", "distributeddataparallel": "ddp", "none": "single", "auto": "single",
        "singledevice": "single", "false": "single", "modelparallel": "fsdp_stage3",
    },
    "precision": {
        "fp16": "fp16-mixed", "16": "fp16-mixed", "half": "fp16-mixed", "float16": "fp16-mixed",
        "16mixed": "fp16-mixed",
        "fp16true": "fp16-mixed", "16true": "fp16-mixed", "amp": "fp16-mixed", "bf16true": "bf16", "bfloat16": "bf16",
        "bfloat16mixed": "bf16-mixed", "32": "fp32", "32true": "fp32", "float32": "fp32", "float": "fp32",
        "full": "fp32",
        "transformerengine": "fp8", "te": "fp8", "float8": "fp8", "fp8te": "fp8", "torchao": "fp8-torchao",
        "ao": "fp8-torchao", "int4": "nf4", "4bit": "nf4", "qlora": "nf4", "bnb": "nf4", "bitsandbytes": "nf4",
        "bnbnf4": "nf4", "bnbnf4dq": "nf4-dq", "nf4double": "nf4-dq",
    },
    "compile": {
        "true": "inductor", "yes": "inductor", "on": "inductor", "1": "inductor", "torch": "inductor",
        "torchcompile": "inductor", "dynamo": "inductor", "default": "inductor", "triton": "inductor", "jit": "thunder",
        "lightningthunder": "thunder", "false": "eager", "no": "eager", "off": "eager", "none": "eager", "0": "eager",
        "null": "eager", "maxautotune": "inductor", "reduceoverhead": "inductor",
    },
    "workload": {
        "finetune": "lora", "finetuning": "lora", "sft": "lora", "peft": "lora", "qlora": "lora", "training": "train",
        "pretrain": "train", "pretraining": "train", "inference": "generate", "decode": "generate", "infer": "generate",
        "generation": "generate", "serve": "generate", "prefill": "forward", "eval": "forward",
        "evaluation": "forward", "adapterv2": "adapter_v2", "llamaadapter": "adapter", "correctness": "parity",
    },
    "activation_checkpointing": {
        "true": "full", "on": "full", "yes": "full", "all": "full", "false": "none", "off": "none", "no": "none",
        "null": "none", "perop": "selective", "sac": "selective", "partial": "selective",
    },
    "engine": {
        "lightning": "fabric", "lightningfabric": "fabric", "pytorch": "native", "torch": "native",
        "fsdp2": "fabric-model-parallel", "modelparallel": "fabric-model-parallel",
    },
    "optimizer": {
        "adam": "adamw", "fusedadamw": "adamw", "adamw8bit": "paged-adamw", "pagedadam": "paged-adamw",
        "pagedadamw8bit": "paged-adamw",
    },
    "launcher": {"torchrun": "local", "sbatch": "slurm", "submitit": "slurm"},
    "hardware": {
        "h200": "h200-sxm-141gb", "h100": "h100-sxm-80gb", "b200": "b200-sxm-180gb", "a100": "a100-sxm-80gb",
        "v100": "v100-sxm2-16gb", "4090": "rtx-4090",
    },
    "model": {
        "llama2": "llama2-7b", "llama": "llama-7b", "llama3": "llama3-8b", "gpt2": "gpt2-125m", "gpt2xl": "gpt2-1.5b",
        "phi": "phi-1.5", "falcon": "falcon-7b", "openllama": "open-llama-7b", "codellama": "codellama-34b",
        "stablelm": "stablelm-3b", "tiny": "debug", "small": "debug",
    },
}  # fmt: skip
"""Group → another tool's word, without case and punctuation → the option."""

MORE: Mapping[tuple[str, str], str] = {
    ("workload", "qlora"): "workload=lora precision=nf4",
    ("precision", "qlora"): "workload=lora precision=nf4",
    ("compile", "maxautotune"): "compile=inductor compile.mode=max-autotune",
    ("compile", "reduceoverhead"): "compile=inductor compile.mode=reduce-overhead",
    ("activation_checkpointing", "perop"): "activation_checkpointing=selective activation_checkpointing.every=per_op",
}
"""(group, word) → the overrides that it means, where one option is not enough."""

KEYS: Mapping[str, str] = {
    "batch": "micro_batch_size", "batchsize": "micro_batch_size", "bs": "micro_batch_size", "mbs": "micro_batch_size",
    "microbatch": "micro_batch_size", "gbs": "global_batch_size", "globalbatch": "global_batch_size",
    "sequencelength": "seq_len", "seqlength": "seq_len", "seq": "seq_len", "maxlength": "seq_len", "ctx": "seq_len",
    "context": "seq_len", "contextlength": "seq_len", "blocksize": "seq_len", "gpus": "devices", "gpu": "devices",
    "numgpus": "devices", "ngpus": "devices", "numdevices": "devices", "worldsize": "devices",
    "nprocpernode": "devices", "numnodes": "nodes", "nnodes": "nodes", "dtype": "precision",
    "quantization": "precision",
    "quantize": "precision", "optim": "optimizer", "opt": "optimizer", "ac": "activation_checkpointing",
    "checkpointing": "activation_checkpointing", "activationcheckpoint": "activation_checkpointing",
    "gradientcheckpointing": "activation_checkpointing", "recompute": "activation_checkpointing",
    "layers": "model.num_layers", "nlayers": "model.num_layers", "lr": "optimizer.lr",
    "learningrate": "optimizer.lr", "steps": "measure.steps", "numsteps": "measure.steps",
    "warmup": "measure.warmup_steps", "warmupsteps": "measure.warmup_steps", "timeout": "timeout_s",
    "outputdir": "out_dir", "output": "out_dir", "outdir": "out_dir", "attn": "attention",
    "parallelism": "strategy", "parallel": "strategy", "task": "workload", "mode": "workload", "compiler": "compile",
    "torchcompile": "compile", "machine": "hardware", "device": "hardware", "dp": "strategy", "peft": "workload",
}  # fmt: skip
"""Another tool's key, without case and punctuation → the group or key."""

FLAGS: Mapping[str, str] = {
    "dryrun": "bench plan lists the cells and runs nothing", "list": "bench list shows the options",
    "resume": "write bench resume DIR", "report": "write bench report DIR", "config": "write FILE.yaml, a sweep file",
    "configname": "write FILE.yaml, a sweep file", "sweep": "write +sweeps=NAME", "sweeps": "write +sweeps=NAME",
    "plan": "write bench plan", "time": "--budget 45m limits a sweep", "timelimit": "--budget 45m limits a sweep",
}  # fmt: skip
"""A flag of other tools, without dashes → what is meant."""


def bare(word: str) -> str:
    """A word without case and punctuation: `BF16-true` → `bf16true`."""
    return re.sub(r"[^a-z0-9]", "", word.lower())


TENSOR = (
    "no cell runs tensor or pipeline parallelism; bench plan … predict.formula=llm-analysis-2023 predict.tensor=2 asks "
    "what it would cost"
)
FEW_BITS = "of weights in few bits there is nf4"
SHAPES = "another shape is one file: docs/add-an-axis-value.md"
NOT_HERE: Mapping[str, Mapping[str, str]] = {
    "strategy": dict.fromkeys(("tp", "tensorparallel", "pp", "pipelineparallel", "pipeline", "megatron", "3d"), TENSOR),
    "precision": dict.fromkeys(("int8", "8bit", "llmint8", "awq", "gptq"), FEW_BITS),
    "model": dict.fromkeys(("mistral", "mistral7b", "mixtral", "qwen", "gemma", "phi2", "phi3"), SHAPES),
}
"""Group → what people look for there → why there is no such option."""


def option_meant(group: str, word: str) -> str | None:
    """The override that another tool's word for an option means, e.g. `strategy=fsdp_stage2`."""
    name = OPTIONS.get(group, {}).get(bare(word))
    return MORE.get((group, bare(word)), f"{group}={name}") if name else None


def key_meant(word: str) -> str | None:
    """The group or key that another tool's word means."""
    return KEYS.get(bare(word))


def flag_meant(word: str) -> str | None:
    """What a flag of other tools means here."""
    return FLAGS.get(bare(word))


def nearest(word: str, allowed: Iterable[str]) -> list[str]:
    """At most five of `allowed`, the likeliest first: the same but for case and punctuation, beginning so, alike."""
    names, wanted = list(allowed), bare(word)
    same = [name for name in names if bare(name) == wanted]
    begins = sorted((name for name in names if len(wanted) > 1 and bare(name).startswith(wanted)), key=len)
    alike = difflib.get_close_matches(word.lower(), names, n=MOST_SHOWN, cutoff=CUTOFF)
    return list(dict.fromkeys([*same, *begins, *alike]))[:MOST_SHOWN]


def option_hint(group: str, word: str, options: Iterable[str]) -> str:
    """The end of a message about a wrong option: what is meant, and at most five alternatives."""
    names = list(options)
    if bare(word) == "all" or word == "*":
        return f" (every one: -m '{group}=glob(*)')"
    if why := NOT_HERE.get(group, {}).get(bare(word)):
        return f" ({why}); allowed: {listed(names, f'bench list {group}')}"
    meant, near = option_meant(group, word), nearest(word, names)
    likely = [name for name in near if bare(name) == bare(word)] or near[:2]
    guess = meant or " or ".join(likely)
    known = listed([*near, *(name for name in names if name not in near)], f"bench list {group}")
    return f"{f' (did you mean {guess}?)' if guess else ''}; allowed: {known}"


def listed(names: list[str], command: str) -> str:
    """At most five names, and the command that lists the others."""
    if not names:
        return "(none)"
    more = f", … ({command} shows all {len(names)})" if len(names) > MOST_SHOWN else ""
    return ", ".join(sorted(names[:MOST_SHOWN]) if not more else names[:MOST_SHOWN]) + more
