"""A bare hand-written Llama training loop: the yardstick that a cell of the same work is held against.

No harness, no config system: model, strategy, loop, timers. `torchrun --standalone --nproc-per-node N bare.py --help`.
Prints one JSON line with the median step time, tokens/s/GPU, MFU and peak memory.
"""
import argparse, json, os, statistics, time
import torch, torch._dynamo, torch.nn as nn, torch.nn.functional as F
import torch.distributed as dist

MODELS = {  # layers, heads, kv heads, width, ffn, vocab
    "tiny": (4, 8, 8, 512, 1376, 32000),
    "llama2-7b": (32, 32, 32, 4096, 11008, 32000),
    "llama2-13b": (40, 40, 40, 5120, 13824, 32000),
    "llama3-8b": (32, 32, 8, 4096, 14336, 128256),
    "open-llama-3b": (26, 32, 32, 3200, 8640, 32000),
}

def rope(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin

class Block(nn.Module):
    def __init__(self, h, kv, d, f, linear):
        super().__init__()
        self.h, self.kv, self.hd = h, kv, d // h
        self.n1, self.n2 = nn.RMSNorm(d, eps=1e-5), nn.RMSNorm(d, eps=1e-5)
        self.qkv = linear(d, (h + 2 * kv) * self.hd)
        self.o = linear(d, d)
        self.gu, self.dn = linear(d, 2 * f), linear(f, d)

    def forward(self, x, cos, sin):
        B, T, D = x.shape
        q, k, v = self.qkv(self.n1(x)).view(B, T, -1, self.hd).transpose(1, 2).split([self.h, self.kv, self.kv], 1)
        q, k = rope(q, cos, sin), rope(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.h != self.kv)
        x = x + self.o(y.transpose(1, 2).reshape(B, T, D))
        g, u = self.gu(self.n2(x)).chunk(2, -1)
        return x + self.dn(F.silu(g) * u)

class Llama(nn.Module):
    def __init__(self, L, h, kv, d, f, V, T, linear):
        super().__init__()
        self.emb = nn.Embedding(V, d)
        self.blocks = nn.ModuleList(Block(h, kv, d, f, linear) for _ in range(L))
        self.norm, self.head = nn.RMSNorm(d, eps=1e-5), nn.Linear(d, V, bias=False)
        self.T, self.hd = T, d // h

    def tables(self, device, dtype):
        inv = 1.0 / 10000 ** (torch.arange(0, self.hd, 2, device=device).float() / self.hd)
        a = torch.arange(self.T, device=device).float()[:, None] * inv
        a = torch.cat((a, a), -1)
        self.cos, self.sin = a.cos().to(dtype), a.sin().to(dtype)

    def forward(self, x):
        x = self.emb(x)
        for b in self.blocks:
            x = b(x, self.cos, self.sin)
        return self.head(self.norm(x))

def parse(argv=None):
    p = argparse.ArgumentParser()
    p.add_argument("--model", default="llama2-7b"); p.add_argument("--strategy", default="single", choices=["single", "ddp", "fsdp_stage2", "fsdp_stage3"])
    p.add_argument("--precision", default="bf16"); p.add_argument("--compile", default="none")
    p.add_argument("--ac", default="none"); p.add_argument("--bs", type=int, default=1)
    p.add_argument("--seq", type=int, default=4096); p.add_argument("--steps", type=int, default=20)
    p.add_argument("--warmup", type=int, default=6); p.add_argument("--layers", type=int)
    p.add_argument("--lr", type=float, default=1e-4); p.add_argument("--peak", type=float, default=989.0)
    p.add_argument("--limit", type=int, default=0, help="torch._dynamo recompile limit")
    p.add_argument("--split-root", action="store_true", help="shard embedding and head apart from the root")
    p.add_argument("--zero-norm", action="store_true", help="leave the norm weights at zero, to see what that does to the speed")
    p.add_argument("--fresh-data", action="store_true", help="a new batch every step, drawn before the loop")
    p.add_argument("--timer", default="sync", choices=["sync", "events"], help="synchronise around each step, or CUDA events alone")
    return p.parse_args(argv)

def run(a):
    """One measurement with an existing process group or none; returns the row that `main` prints."""
    t_start = time.perf_counter()
    if a.limit: torch._dynamo.config.recompile_limit = a.limit
    rank, world, local = (int(os.environ.get(k, d)) for k, d in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    dev = torch.device("cuda", local); torch.cuda.set_device(dev)
    if a.strategy != "single" and not dist.is_initialized():
        dist.init_process_group("nccl", device_id=dev)
    L, h, kv, d, f, V = MODELS[a.model]; L = a.layers or L
    torch.manual_seed(0)
    if a.precision == "fp8te":
        import transformer_engine.pytorch as te
        from transformer_engine.common.recipe import DelayedScaling, Float8CurrentScaling
        linear = lambda i, o: te.Linear(i, o, bias=False, params_dtype=torch.bfloat16)
        ctx = lambda: te.fp8_autocast(enabled=True, fp8_recipe=DelayedScaling())
        init = dev
    else:
        import contextlib
        linear = lambda i, o: nn.Linear(i, o, bias=False); ctx = contextlib.nullcontext
        init = torch.device("meta")
    torch.set_default_dtype(torch.bfloat16)
    with init:
        m = Llama(L, h, kv, d, f, V, a.seq, linear)
    if a.precision == "fp8ao":
        from torchao.float8 import convert_to_float8_training, Float8LinearConfig
        m = convert_to_float8_training(m, config=Float8LinearConfig(), module_filter_fn=lambda _, n: n != "head")
    nparam = sum(q.numel() for q in m.parameters())
    if a.ac == "full":
        from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
        for i, b in enumerate(m.blocks): m.blocks[i] = checkpoint_wrapper(b)
    if a.compile == "block":
        for i, b in enumerate(m.blocks): m.blocks[i] = torch.compile(b)
    if a.compile == "inplace":
        for b in m.blocks: b.compile()
    if a.strategy.startswith("fsdp"):
        from torch.distributed.fsdp import fully_shard, MixedPrecisionPolicy
        kw = dict(reshard_after_forward=a.strategy == "fsdp_stage3", mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16))
        for b in m.blocks: fully_shard(b, **kw)
        if a.split_root:
            fully_shard(m.emb, **kw); fully_shard([m.norm, m.head], **kw)
        fully_shard(m, **kw)
    if init.type == "meta": m.to_empty(device=dev)
    for q in m.parameters(): nn.init.normal_(q, std=0.02) if q.ndim > 1 else nn.init.ones_(q)
    if a.zero_norm:
        for n, q in m.named_parameters():
            if q.ndim == 1: nn.init.zeros_(q)
    m.tables(dev, torch.bfloat16)
    if a.strategy == "ddp":
        m = nn.parallel.DistributedDataParallel(m, device_ids=[local], gradient_as_bucket_view=True)
    if a.compile == "full": m = torch.compile(m)
    opt = torch.optim.AdamW(m.parameters(), lr=a.lr, fused=True)
    torch.manual_seed(1 + rank)
    data = [torch.randint(0, V, (a.bs, a.seq + 1), device=dev) for _ in range(a.warmup + a.steps if a.fresh_data else 1)]
    t_ready = time.perf_counter()
    times, first, marks = [], None, []
    for i in range(a.warmup + a.steps):
        x = data[i % len(data)]
        if a.timer == "sync" or i in (0, a.warmup): torch.cuda.synchronize()
        t0 = time.perf_counter()
        if i == a.warmup: marks.append(torch.cuda.Event(enable_timing=True)); marks[-1].record()
        with ctx(): y = m(x[:, :-1])
        loss = F.cross_entropy(y.flatten(0, 1), x[:, 1:].flatten())
        loss.backward(); opt.step(); opt.zero_grad()
        if i >= a.warmup: marks.append(torch.cuda.Event(enable_timing=True)); marks[-1].record()
        if a.timer == "sync" or i == 0: torch.cuda.synchronize()
        dt = time.perf_counter() - t0
        if i == 0: first = dt
        if i >= a.warmup: times.append(dt)
        if i == a.warmup - 1: torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    if a.timer == "events": times = [b.elapsed_time(e) / 1e3 for b, e in zip(marks, marks[1:])]
    s = statistics.median(times)
    flop_tok = 6 * (nparam - V * d) + 6 * L * d * a.seq  # causal attention counted at half
    return (dict(vars(a), world=world, params=nparam, step_ms=round(s * 1e3, 2), min_ms=round(min(times) * 1e3, 2), first_s=round(first, 1),
            setup_s=round(t_ready - t_start, 1), tok_s_gpu=round(a.bs * a.seq / s), mfu=round(flop_tok * a.bs * a.seq / s / a.peak / 1e12, 4),
            peak_gb=round(torch.cuda.max_memory_allocated() / 2**30, 2), reserved_gb=round(torch.cuda.max_memory_reserved() / 2**30, 2), loss=round(loss.item(), 3), step_times_s=times))

def main():
    row = run(parse())
    if int(os.environ.get("RANK", 0)) == 0: print(json.dumps(row), flush=True)
    if dist.is_initialized(): dist.destroy_process_group()

if __name__ == "__main__": main()
