"""Time and memory compared with fair-esm: same weights, same inputs, alternating calls. `make bench` runs it.

    python benchmarks/bench.py [--only contacts training ...] [--repeats 3] [--device auto] [--layers 12]

Weights are random, in the published size. Ratios of times are medians over consecutive calls; columns count residues,
to which the models add <cls>. Memory is the peak of torch's allocator above the weights, measured once.
"fp32 medium" is torch.set_float32_matmul_precision("medium").
The table is printed and written to benchmarks/results/, with a description of the machine. On a GPU there is also a
grid of sizes, precisions and torch.compile (`--only grid --device cpu` runs a small one on the CPU).
"""

import argparse
import datetime
import gc
import json
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import esm
import numpy as np
import torch
import transformers
from side_by_side import (
    alternate,
    count_flops,
    make_fair_esm,
    make_ours,
    peak_allocated,
    random_msa,
    ratio,
    square_product,
)
from training_memory import training_model, training_step

from modeling_msa import Alignment, MsaConfig, MsaTokenizer, read_alignment, score_all_singles, score_variants

RESULTS = Path(__file__).parent / "results"
GIB = 2**30


@dataclass
class Line:
    """A line of the table; `goal` is a bound on `ratio`."""

    what: str
    ours: str
    other: str
    ratio: float | None
    goal: str = ""
    detail: str = ""

    @property
    def met(self) -> str:
        """Whether the goal is met: yes, no, or empty without a goal."""
        if not self.goal or self.ratio is None:
            return ""
        sign, bound = self.goal.split()
        return "yes" if (self.ratio <= float(bound) if sign == "<=" else self.ratio >= float(bound)) else "no"


@dataclass
class Settings:
    """Settings of all cases."""

    device: str
    config: MsaConfig
    repeats: int


def seconds(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} s"


def spread(above: list[float], below: list[float]) -> str:
    pairs = [a / b for a, b in zip(above, below, strict=True)]
    return f"{min(pairs):.2f} to {max(pairs):.2f}"


def beside(what: str, ours: list[float], theirs: list[float], goal: str, detail: str) -> Line:
    """A line on the seconds of alternating calls."""
    detail = f"pairs {spread(ours, theirs)}; {detail}"
    return Line(what, seconds(ours), seconds(theirs), ratio(ours, theirs), goal, detail)


def contacts(settings: Settings) -> Iterator[Line]:
    """Contacts at 128 x 256: time in float32 and bfloat16, memory, utilisation."""
    goals = {"fp32": "<= 0.55", "fp32 medium": "", "bf16": "<= 0.30"}
    yield from _forward(settings, "contacts", 128, 256, goals, memory="<= 0.10")


def logits(settings: Settings) -> Iterator[Line]:
    """Logits at 64 x 128, measured as `contacts`."""
    yield from _forward(settings, "logits", 64, 128, {"fp32": "<= 0.90", "fp32 medium": "", "bf16": ""}, memory="")


def _forward(
    settings: Settings, task: str, rows: int, columns: int, goals: dict[str, str], memory: str
) -> Iterator[Line]:
    tokens = random_msa(rows, columns, settings.device)
    models = {name: make_ours(settings.config, settings.device) for name in ("fp32", "bf16")}
    models["bf16"].bfloat16()
    theirs = make_fair_esm(settings.config, settings.device)
    if task == "contacts":
        work = {name: lambda model=model: model.predict_contacts(tokens) for name, model in models.items()}
        work["fair-esm"] = lambda: theirs.predict_contacts(tokens)
    else:
        work = {name: lambda model=model: model(tokens).logits for name, model in models.items()}
        work["fair-esm"] = lambda: theirs(tokens)["logits"]
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        work[f"product {name}"], product_flops = square_product(dtype, settings.device, 4096)
    for name in ("fp32", "fair-esm", "product fp32"):
        work[f"{name} medium"] = lambda function=work[name]: _medium(function)
    with torch.no_grad():
        results = {name: work[name]().float() for name in (*goals, "fair-esm")}
        taken = alternate(work, settings.repeats)
        peaks = {name: peak_allocated(work[name], settings.device) for name in ("fp32", "fair-esm")}
    size = f"{task} {rows} x {columns}"
    for name, goal in goals.items():
        away = (results[name] - results["fair-esm"]).abs().max().item()
        detail = f"largest difference {away:.1e}"
        if name == "fp32 medium":
            detail += f"; {ratio(taken[name], taken['fair-esm medium']):.3f} of fair-esm's with the same setting"
        yield beside(f"{size} {name}, time / fair-esm fp32", taken[name], taken["fair-esm"], goal, detail)
    yield Line(
        f"{size} fp32, peak memory above the weights / fair-esm",
        f"{peaks['fp32'] / GIB:.2f} GiB",
        f"{peaks['fair-esm'] / GIB:.2f} GiB",
        peaks["fp32"] / peaks["fair-esm"],
        memory,
    )
    flops = count_flops(settings.config, rows, columns, task == "contacts")
    for name, goal in (("fp32", ">= 0.92"), ("fp32 medium", ""), ("bf16", ">= 0.80")):
        rate = product_flops / statistics.median(taken[f"product {name}"])
        reached = [flops / each for each in taken[name]]
        yield Line(
            f"{size} {name}, utilisation of the matrix product",
            f"{statistics.median(reached) / 1e9:.0f} GFLOP/s",
            f"{rate / 1e9:.0f} GFLOP/s",
            statistics.median(reached) / rate,
            goal,
            f"{flops / 1e12:.2f} TFLOP counted, product of two 4096 x 4096 matrices in turn",
        )


def _medium(function: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Call with torch.set_float32_matmul_precision("medium"): float32 products are oneDNN's."""
    torch.set_float32_matmul_precision("medium")
    try:
        return function()
    finally:
        torch.set_float32_matmul_precision("highest")


def forward_memory(settings: Settings) -> Iterator[Line]:
    """Peak memory of a forward pass above the weights, in units of the hidden states, at several sizes and depths."""
    for layers, rows, columns in (
        (2, 16, 128),
        (2, 64, 128),
        (12, 64, 128),
        (2, 128, 256),
        (2, 512, 256),
        (2, 1024, 128),
    ):
        config = _with(settings.config, num_hidden_layers=layers)
        model, tokens = make_ours(config, settings.device).msa, random_msa(rows, columns, settings.device)
        hidden = tokens.numel() * config.hidden_size * 4
        for maps in (False, True):
            asked = layers * config.num_attention_heads * (columns + 1) ** 2 * 4 * maps
            with torch.no_grad():
                peak = peak_allocated(lambda m=model, t=tokens, a=maps: m(t, output_attentions=a), settings.device)
            yield Line(
                f"forward {rows} x {columns}, {layers} layers{', row maps asked for' * maps}, (peak - maps) / hidden",
                f"{peak / GIB:.3f} GiB",
                f"{hidden / GIB:.3f} GiB",
                (peak - asked) / hidden,
                "<= 2.5",
            )


def training(settings: Settings) -> Iterator[Line]:
    """A step of masked language modelling at 16 x 128 with dropout: forward, backward, AdamW."""
    config = settings.config
    steps = {name: _with_optimizer(name, settings) for name in ("fair-esm", "plain")}
    steps["medium"] = lambda: _medium(steps["plain"])
    taken = alternate(steps, settings.repeats + 2)
    for name, what, goal in (("plain", "fp32", "<= 0.85"), ("medium", "fp32 medium", "")):
        what = f"training step 16 x 128 {what}, time / fair-esm fp32"
        yield beside(what, taken[name], taken["fair-esm"], goal, "torch.optim.AdamW(fused=True) for both")
    steps.clear()
    gc.collect()
    peaks = {}
    for name in ("fair-esm", "checkpointed"):
        model = training_model(name, config).to(settings.device)
        peaks[name] = peak_allocated(training_step(name, config, 16, 128, model), settings.device)
    yield Line(
        "training step 16 x 128, activation memory with checkpointing / fair-esm without",
        f"{peaks['checkpointed'] / GIB:.2f} GiB",
        f"{peaks['fair-esm'] / GIB:.2f} GiB",
        peaks["checkpointed"] / peaks["fair-esm"],
        "<= 0.25",
    )


def _with_optimizer(name: str, settings: Settings) -> Callable[[], None]:
    model = training_model(name, settings.config).to(settings.device)
    step = training_step(name, settings.config, 16, 128, model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def whole() -> None:
        optimizer.zero_grad(set_to_none=False)
        step()
        optimizer.step()

    return whole


def reading(settings: Settings) -> Iterator[Line]:
    """Read and tokenise an A3M of 20,000 rows and 300 columns, with insertions."""
    generator = np.random.default_rng(0)
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY-", dtype=np.uint8)
    rows = letters[generator.integers(0, 21, (20_000, 300))]
    texts = [bytes(row).decode() for row in rows]
    texts = [text[:100] + "acdef"[: k % 6] + text[100:] if k else text for k, text in enumerate(texts)]
    convert = esm.data.Alphabet.from_architecture("msa_transformer").get_batch_converter()
    tokenizer = MsaTokenizer()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "family.a3m")
        path.write_text("".join(f">row{k}\n{text}\n" for k, text in enumerate(texts)))

        def ours() -> torch.Tensor:
            # verbose=False: it is deeper than the model's limit, on purpose
            return tokenizer(read_alignment(path), return_tensors="pt", verbose=False)["input_ids"]

        def theirs() -> torch.Tensor:
            # as fair-esm's notebook reads an A3M: lines, lower case removed
            removed = str.maketrans("", "", "abcdefghijklmnopqrstuvwxyz.*")
            names, sequences = [], []
            for name, sequence in esm.data.read_fasta(str(path), keep_gaps=True, keep_insertions=True):
                names.append(name)
                sequences.append(sequence.translate(removed))
            return convert([list(zip(names, sequences, strict=True))])[2]

        assert torch.equal(ours(), theirs())
        taken = alternate({"ours": ours, "fair-esm": theirs}, settings.repeats)
    what = "read and tokenise an A3M of 20,000 x 300, time / fair-esm"
    yield beside(what, taken["ours"], taken["fair-esm"], "<= 0.02", "the same tokens")


def scoring(settings: Settings) -> Iterator[Line]:
    """Masked marginals of a protein of 256 residues and 128 rows: exact, fast, fair-esm's predict.py."""
    tokens = random_msa(128, 256, settings.device)
    alphabet = "".join(MsaTokenizer().convert_ids_to_tokens(list(range(4, 24))))
    sequences = ["".join(alphabet[token - 4] for token in row[1:]) for row in tokens[0].tolist()]
    family = Alignment.from_sequences(sequences)
    model, theirs = make_ours(settings.config, settings.device), make_fair_esm(settings.config, settings.device)
    places = [64, 128]  # every residue costs the same
    query = sequences[0]
    variants = [f"{query[k - 1]}{k}{'A' if query[k - 1] != 'A' else 'C'}" for k in places]
    options = {"rows": 128, "select": "first"}

    def script() -> list[float]:
        scores = []
        for place in places:
            masked = tokens.clone()
            masked[0, 0, place] = theirs.mask_idx
            with torch.no_grad():
                log = torch.log_softmax(theirs(masked)["logits"], dim=-1)[0, 0, place]
            mutant = alphabet.index("A" if query[place - 1] != "A" else "C") + 4
            scores.append((log[mutant] - log[tokens[0, 0, place]]).item())
        return scores

    work = {
        "fast": lambda: score_all_singles(family, model, mode="fast", **options),
        "exact": lambda: score_variants(family, variants, model, **options).score.tolist(),
        "fair-esm": script,
    }
    away = max(abs(a - b) for a, b in zip(work["exact"](), script(), strict=True))
    taken = alternate(work, settings.repeats)
    exact, fair_esm = ([each / len(places) for each in taken[name]] for name in ("exact", "fair-esm"))
    yield beside(
        "masked marginals 128 x 256, exact, time per residue / fair-esm's script",
        exact,
        fair_esm,
        "<= 0.6",
        f"two residues of 256, each costs the same; largest difference {away:.1e}",
    )
    yield beside(
        "masked marginals 128 x 256, whole protein, fast / exact",
        taken["fast"],
        [256 * each for each in exact],
        "<= 0.02",
        "exact: 256 times its time per residue; for Spearman see fast_scoring.md",
    )


def grid(settings: Settings) -> Iterator[Line]:
    """Tokens per second, memory and utilisation over sizes, precisions and torch.compile, without goals."""
    on_gpu = settings.device == "cuda"
    sizes = [(64, 128), (128, 256), (256, 512), (512, 1023), (1024, 1023)] if on_gpu else [(16, 64), (64, 128)]
    theirs = make_fair_esm(settings.config, settings.device)
    for rows, columns in sizes:
        tokens = random_msa(rows, columns, settings.device)
        for precision in ("fp32", "tf32", "bf16") if on_gpu else ("fp32", "bf16"):
            for compiled in (False, True) if on_gpu else (False,):
                yield _grid_line(settings, tokens, precision, compiled, theirs)
    torch.set_float32_matmul_precision("highest")


def _grid_line(
    settings: Settings, tokens: torch.Tensor, precision: str, compiled: bool, theirs: torch.nn.Module
) -> Line:
    rows, columns = tokens.shape[1], tokens.shape[2] - 1
    what = f"logits {rows} x {columns} {precision}{', torch.compile' * compiled}, time / fair-esm fp32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = make_ours(settings.config, settings.device).to(dtype)
    torch._dynamo.reset()  # each line compiles for itself
    forward = torch.compile(model) if compiled else model

    def ours() -> torch.Tensor:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        return forward(tokens).logits

    def fair_esm() -> torch.Tensor:
        torch.set_float32_matmul_precision("highest")
        return theirs(tokens)["logits"]

    with torch.no_grad():
        taken = _where_it_fits({"ours": ours, "fair-esm": fair_esm}, settings.repeats) or _where_it_fits(
            {"ours": ours}, settings.repeats
        )
        if taken is None:
            return Line(what, "out of memory", "out of memory", None)
        peak = peak_allocated(ours, settings.device)
    middle = statistics.median(taken["ours"])
    ours()  # sets the precision for the product
    product, product_flops = square_product(dtype, settings.device, 8192 if settings.device == "cuda" else 2048)
    rate = product_flops / min(alternate({"": product}, 5)[""])
    reached = count_flops(settings.config, rows, columns) / middle / rate
    detail = f"{tokens.numel() / middle:.3g} tokens/s; {peak / GIB:.2f} GiB; utilisation {reached:.2f}"
    if "fair-esm" not in taken:
        return Line(what, seconds(taken["ours"]), "out of memory", None, "", detail)
    return beside(what, taken["ours"], taken["fair-esm"], "", detail)


def _where_it_fits(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]] | None:
    try:
        return alternate(functions, repeats)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


def _with(config: MsaConfig, **changes: object) -> MsaConfig:
    return MsaConfig(**{**config.to_diff_dict(), **changes})


CASES = {case.__name__: case for case in (contacts, logits, forward_memory, training, reading, scoring, grid)}


def machine(device: str) -> dict[str, str]:
    """The machine and the versions that the table is about."""
    name = platform.processor() or platform.machine()
    if device == "cuda":
        name = torch.cuda.get_device_name()
    elif Path("/proc/cpuinfo").exists():
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        name = found[1].strip() if found else name
    return {
        "device": name,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def table(lines: list[Line], about: dict[str, str], config: MsaConfig, repeats: int) -> str:
    """The page of results in Markdown."""
    head = ", ".join(f"{key} {value}" for key, value in about.items())
    text = [
        "# Time and memory beside fair-esm",
        "",
        f"`make bench`: {head}. Random weights, {config.num_hidden_layers} layers, width {config.hidden_size}; "
        f"times are medians of {repeats} or more, memory is counted once. "
        "medium: with `torch.set_float32_matmul_precision('medium')`.",
        "",
        "| what | ours | beside | ratio | goal | met | |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        cells = (line.what, line.ours, line.other, _number(line.ratio), line.goal, line.met, line.detail)
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only",
        nargs="+",
        choices=CASES,
        help="cases to run (default: all, grid only on a GPU); they replace their lines in the table",
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each (default: 3)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument(
        "--layers", type=int, default=12, help="number of layers (default: 12); a trial with fewer has other ratios"
    )
    parser.add_argument("--output", type=Path, help="folder for the tables (default: benchmarks/results)")
    options = parser.parse_args()
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = Settings(device, MsaConfig(num_hidden_layers=options.layers), options.repeats)
    chosen = options.only or [name for name in CASES if name != "grid" or device == "cuda"]
    about, lines = machine(device), []
    for name in chosen:
        for line in CASES[name](settings):
            lines.append(line)
            shown = f"{line.what}: {line.ours} beside {line.other}: {_number(line.ratio)} {line.goal} {line.met}"
            print(shown.rstrip(), flush=True)
        gc.collect()
    folder = options.output or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / f"{re.sub(r'[^a-z0-9]+', '-', about['device'].lower()).strip('-')}.json"
    if options.only and record.exists():  # a part replaces its lines in the table
        new = {line.what: line for line in lines}
        old = [Line(**line) for line in json.loads(record.read_text())["lines"]]
        lines = [new.pop(line.what, line) for line in old] + list(new.values())
    page = table(lines, about, settings.config, options.repeats)
    print(f"\n{page}")
    if options.layers != 12 and not options.output:
        return  # a trial
    record.with_suffix(".md").write_text(page)
    record.write_text(json.dumps({"about": about, "lines": [asdict(line) for line in lines]}, indent=1) + "\n")
    missed = [line.what for line in lines if line.met == "no"]
    print(f"{len(lines)} lines, {len(missed)} short of their goal", file=sys.stderr)


if __name__ == "__main__":
    main()
