"""Contract of one MSA over several processes (`split_rows`).

Two processes (gloo, on the CPU, started by accelerate) and four equal one process on the same weights and inputs, to
1e-5 in float32 and to 1e-10 in float64: hidden states, logits, row maps, contacts, losses, and every parameter's
gradient in every process. So do depths and lengths that do not divide, fewer rows or columns than processes, MSAs of
different size in a batch, all classes and forms of attention, inference in place and in pieces, training with and
without gradient checkpointing. Wrong use is refused by every process in the same words. After the context the model is
as it was. What the cost model says is moved is what goes through the collectives.

tests/sharded.py has the cases; it runs once in each number of processes, and here its figures are read.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import random_tokens, small_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from modeling_msa import MsaForMaskedLM, MsaModel, split_rows
from modeling_msa.tasks import sharding

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import row_sharding  # noqa: E402

CASES = {"training": 23, "exact": 7, "inference": 26, "half_precision": 2, "optimising": 3, "errors": 1, "moved": 3}


def start(processes, program, *arguments):
    """Start a program in several processes on the CPU: two as users do, more as forks, which take less time."""
    command = [sys.executable]
    if processes == 2:
        command += ["-m", "accelerate.commands.accelerate_cli", "launch", "--config_file"]
        command += [str(ROOT / "configuration" / "accelerate" / "ddp.yaml"), "--num_processes", "2"]
        command += ["--mixed_precision", "no", "--main_process_port", "0"]
    else:
        arguments = (*arguments, processes)
    command += [str(program), *map(str, arguments)]
    path = os.pathsep.join([*map(str, (ROOT, ROOT / "tests", ROOT / "benchmarks")), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    try:
        printed, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-5000:]
    return printed


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Figures by number of processes, part, case and kind."""
    folder = tmp_path_factory.mktemp("sharded")
    files = {size: folder / f"{size}.json" for size in (2, 4)}
    running = [start(size, ROOT / "tests" / "sharded.py", file) for size, file in files.items()]
    for process in running:
        finish(process)
    return {size: json.loads(file.read_text()) for size, file in files.items()}


@pytest.fixture(params=[2, 4])
def figures(request, everything):
    found = everything[request.param]
    pairs = {"training": request.param == 4}  # a case more: two groups of two
    assert {part: len(cases) for part, cases in found.items()} == {
        part: count + pairs.get(part, False) for part, count in CASES.items()
    }
    return found


def all_below(cases, limits):
    above = {
        (name, kind): value
        for name, values in cases.items()
        for kind, value in values.items()
        if not value < limits.get(kind, limits["all"])
    }
    assert above == {}


def test_training_equals_one_process(figures):
    all_below(figures["training"], {"all": 1e-5})


def test_training_is_exact(figures):
    """In float64; the losses of transformers are float32 all the same."""
    all_below(figures["exact"], {"all": 1e-10, "loss": 1e-6})


def test_inference_equals_one_process(figures):
    all_below(figures["inference"], {"all": 1e-5})


def test_half_precision(figures):
    """The bound for bfloat16 is the package's: contacts within 0.02 of float32's."""
    all_below(figures["half_precision"], {"all": 1e-5, "half": 0.02})


def test_optimising_keeps_processes_in_step(figures):
    all_below(figures["optimising"], {"all": 1e-5})


def test_wrong_use_is_refused_by_all(figures):
    assert figures["errors"]


# ------------------------------------------------------------------------------------------------------ one process


def test_one_process_runs_the_plain_model():
    model, tokens = small_model(MsaForMaskedLM), random_tokens(5, 9)
    expected = model(tokens).logits
    with split_rows(model) as split:
        assert (split.rank, split.size, split.rows(5)) == (0, 1, slice(0, 5))
        logits = model(tokens).logits
        assert torch.equal(logits, expected)
        assert split.gather(logits, 5) is logits
        with pytest.raises(ValueError, match="holds 6, but the tensor has 5"):
            split.gather(logits, 6)


@pytest.mark.parametrize(("depth", "size"), [(7, 4), (8, 4), (3, 4), (1, 2), (1024, 3)])
def test_rows_are_shared_out_evenly(depth, size):
    parts = [sharding.RowSplit().rows(depth, rank, size) for rank in range(size)]
    assert [row for part in parts for row in range(depth)[part]] == list(range(depth))
    counts = [part.stop - part.start for part in parts]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] - counts[-1] <= 1


def test_refuses_what_is_no_model_of_its_own():
    for wrapped in (
        nn.DataParallel(small_model(MsaForMaskedLM)),
        torch.compile(small_model(MsaForMaskedLM)),
        nn.ReLU(),
    ):
        with pytest.raises(ValueError, match="do not wrap it"), split_rows(wrapped):
            pass


def test_refuses_sharded_parameters():
    model = small_model(MsaForMaskedLM)
    next(model.parameters()).full_tensor = None  # what FSDP's parameters have
    with pytest.raises(ValueError, match="sharded"), split_rows(model):
        pass


# ------------------------------------------------------------------------------------------------------- cost model


def test_bytes_are_those_that_are_moved(figures):
    """Of 37 rows and 19 columns, which do not divide: forward, backward, checkpointed."""
    assert figures["moved"].keys() == row_sharding.PASSES.keys()
    assert {value for values in figures["moved"].values() for value in values.values()} == {0}


def test_operations_are_those_of_the_model():
    rows, columns = 7, 11
    model = small_model(MsaModel, num_hidden_layers=3)
    model.set_attn_implementation("eager")  # torch does not count its kernel's products
    sizes = {"layers": 3, "hidden": 16, "inner": 32, "heads": 2}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(random_tokens(rows, columns))
    assert counter.get_total_flops() == 3 * row_sharding.Split(rows, columns, 1, **sizes).operations()
    parts = [row_sharding.Split(8, 12, 4, **sizes).operations(rank) for rank in range(4)]
    assert sum(parts) == row_sharding.Split(8, 12, 1, **sizes).operations()


def test_where_it_pays():
    """By hand: 2 bytes x 400e12 / (16 x 2 ranks x 25e9) = 1,000, so with D = 768 from R + C = 1,856 on.

    A map of 16 columns shifts that a little.
    """
    split = row_sharding.Split(1, 16, 2)
    depth = row_sharding.pays_from(split, 400e12, 25e9)
    assert 1856 - 16 <= depth <= 1856 + 16
    assert row_sharding.pays_from(split, 400e12, 1e6) is None


def test_the_page_has_the_model_s_figures():
    page = (ROOT / "docs" / "sharding.md").read_text()
    for ranks in (1, 2, 4, 8):
        split = row_sharding.Split(*row_sharding.LARGE, ranks)
        sent = f"{split.layers * split.sent() / 2**30:.0f} GiB |" if ranks > 1 else "|"
        assert f"| {ranks} | {split.states() / 2**30:.0f} GiB | {split.peak() / 2**30:.1f} GiB | {sent}" in page
