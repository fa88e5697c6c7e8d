"""The text of `bench --help`: examples first, then the axes as they are in conf/, then the exit codes."""

from benchrunner.core.axes import GROUPS
from benchrunner.core.paths import config_dir

HELP = {
    "run": "run one cell (key=value …), a matrix (-m key=a,b …) or a sweep (+sweeps=NAME, FILE.yaml)",
    "plan": "list every cell with its verdict, reason, predicted memory and time; runs nothing (--json for programs)",
    "report": "rebuild all tables from the plan and records of one or more sweep directories",
    "resume": "run what is missing or failed in a sweep directory (--mix: even on other versions or devices;\n"
    "                 --only failed,timeout,skipped: those that ended so; --cells 'GLOB': those of that name or id)",
    "doctor": "what this machine is and which options it can run (--faults: the faults that BENCH_FAULT can plant)",
    "list": "the options of every group, or of one",
}
"""Command → a line."""

USAGES = {
    "run": "bench [-m] [--budget TIME] [--no-infer] [FILE.yaml | +sweeps=NAME] [key=value …]",
    "plan": "bench plan [-m] [--json] [FILE.yaml | +sweeps=NAME] [key=value …]",
    "report": "bench report DIR [DIR …]",
    "resume": "bench resume [--mix] [--budget TIME] [--no-infer] [--only STATUS,…] [--cells GLOB] DIR",
    "doctor": "bench doctor [--faults]",
    "list": "bench list [GROUP]",
}

EXAMPLES = """\
examples:
  bench                                             the debug model, one training cell
  bench model=llama2-7b strategy=fsdp seq_len=2048  one cell
  bench -m strategy=fsdp,ddp precision=bf16,fp8     a matrix: every combination of the lists
  bench -m 'model=glob(llama2*)' micro_batch_size='range(1,5)'
  bench +sweeps=smoke                               a sweep from sweeps/; add words to narrow it: strategy=single
  bench plan -m model=llama2-7b strategy=fsdp,ddp   what would run, and why not; needs no GPU
  bench plan hardware=h200-sxm-141gb devices=8 model=llama2-70b strategy=fsdp
  bench report outputs/latest                       the tables again"""

SCALARS = """\
keys (bench --cfg job prints all with their values):
  micro_batch_size=N    samples a device a forward pass        global_batch_size=N  samples an optimizer step
  seq_len=N             tokens a sample                        devices=N nodes=N    ranks
  measure.steps=N       the measured window                    timeout_s=S          limit of a cell
  limits.measure_s=S    limit of a phase without progress      exclusive=true       each cell alone on the machine
  retries=N             after a failure of infrastructure      brake=N              stop after N cells failed alike
  model.num_layers=N    any key of an option, as GROUP.KEY     out_dir=DIR          where results go (outputs)"""

EXIT_CODES = """\
exit codes:
  0   every cell has an expected verdict (ok, oom, unsupported, skipped) and at least one was attempted
  1   wrong words or a wrong directory; nothing was run
  2   some cell failed, timed out or is invalid, or the sweep was stopped early
  4   nothing failed and nothing was measured
  130, 143   interrupted; finished records are kept"""

FLAGS = """\
flags:
  -m, --multirun   the lists make a matrix        -h, --help   --version
  --budget 45m     most informative cells first, none that is expected not to fit the rest of the time
  --no-infer       run also larger micro-batches of a cell of which a smaller one ran out of memory
  answered by Hydra: --cfg job (the composed configuration), --info, --hydra-help
  completion in bash: eval "$(bench --shell-completion install=bash)\""""


def command_line(name: str) -> str:
    """How a command is called, e.g. `bench plan`."""
    return "bench" if name == "run" else f"bench {name}"


def help_text(name: str) -> str:
    """The help of one command; of `run`, the help of the program."""
    if name != "run":
        return f"usage: {USAGES[name]}\n\n{HELP[name]}"
    commands = [f"  {command_line(command):<13}  {line}" for command, line in HELP.items()]
    blocks = [
        f"usage: {USAGES[name]}\n       bench COMMAND …",
        "Which combinations of model, workload, strategy, precision, compiler and checkpointing work here, how fast,\n"
        "in how much memory, and is the number true.",
        EXAMPLES,
        "\n".join(["commands:", *commands]),
        "\n".join(["groups (bench list GROUP describes the options):", *map(_group_line, GROUPS)]),
        SCALARS,
        EXIT_CODES,
        FLAGS,
    ]
    return "\n\n".join(blocks)


def _group_line(group: str) -> str:
    names = sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))
    shown = names if len(names) <= 8 else [*names[:6], f"… {len(names) - 6} more"]
    return f"  {group + '=':<25}  {' | '.join(shown)}"
