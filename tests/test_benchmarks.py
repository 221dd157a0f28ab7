"""The benchmarks measure what they say, and the README's figures on speed are what they measured.

Operations are counted as by hand, memory peaks are those of tensors of known size, and each figure of the README's
table is in the table that `make bench` wrote. Tables of contact precision have every method.
"""

import functools
import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import SEED, SHARED, contact_map, real_data

from modeling_msa import (
    Alignment,
    MsaConfig,
    load_model,
    precision,
    predict_contacts,
    read_alignment,
    structure_contacts,
)

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import bench  # noqa: E402
import gpu  # noqa: E402
import jacobian  # noqa: E402
import pairing as pairing_benchmark  # noqa: E402
import real_families  # noqa: E402
import side_by_side  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("contacts", [False, True])
def test_operations_are_counted_as_by_hand(contacts):
    rows, columns, layers, width = 6, 9, 3, 32
    config = MsaConfig(hidden_size=width, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=64)
    tokens = rows * (columns + 1)
    projection = 2 * tokens * width**2
    row_products = 2 * rows * (columns + 1) ** 2 * width  # logits, or the update
    column_products = 2 * rows**2 * (columns + 1) * width
    layer = 8 * projection + 2 * 2 * tokens * width * 64 + 2 * row_products + 2 * column_products
    head = projection + 2 * tokens * width * 33
    expected = layers * layer + head
    if contacts:  # of the last layer the map alone; and the regression
        pairs = columns**2
        regression = layers * (2 * 4 * pairs + 2 * 4 * pairs)  # weighted sum over heads, and the correction
        expected = (layers - 1) * layer + 2 * projection + row_products + regression
    assert side_by_side.count_flops(config, rows, columns, contacts) == expected


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts resident memory there")
def test_peak_memory_is_that_of_known_tensors():
    def work():
        first = torch.ones(1000, 1000)
        second = first + 1
        del first
        return second * 2

    assert side_by_side.peak_allocated(work) == pytest.approx(2 * 4 * 1000**2, rel=1e-4)  # and two scalars
    assert side_by_side.peak_resident(lambda: torch.ones(50_000_000)) == pytest.approx(2e8, rel=0.1)


def test_a_pass_holds_two_tensors_of_hidden_states_and_a_block():
    """Of 16 blocks, whose inner tensors are 8 times their states; the embeddings are freed after the first layer."""
    config = MsaConfig(hidden_size=192, num_hidden_layers=3, intermediate_size=768)
    model, tokens = side_by_side.make_ours(config).msa, side_by_side.random_msa(128, 127)
    hidden = tokens.numel() * 192 * 4
    with torch.no_grad():
        for work in (lambda: model(tokens), lambda: model.contact_logits(tokens)):
            assert 2.0 < side_by_side.peak_allocated(work) / hidden < 2.6


def test_ratios_are_of_calls_that_followed_each_other():
    assert side_by_side.ratio([1, 10, 6], [2, 5, 3]) == 2
    calls = []
    seconds = side_by_side.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3  # the first pair is not counted
    assert {name: len(each) for name, each in seconds.items()} == {"a": 2, "b": 2}


def test_a_part_of_the_table(tmp_path, monkeypatch):
    """The grid, on a small model and with a small product for the utilisation."""
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    monkeypatch.setattr(bench, "MsaConfig", functools.partial(MsaConfig, **sizes))
    monkeypatch.setattr(bench, "square_product", lambda *how: side_by_side.square_product(*how[:2], 64))
    options = ["--only", "grid", "--device", "cpu", "--layers", "1", "--repeats", "1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["bench.py", *options])
    bench.main()
    (page,) = tmp_path.glob("*.md")
    (record,) = tmp_path.glob("*.json")
    lines = json.loads(record.read_text())["lines"]
    assert len(lines) == 4
    for line in lines:
        assert f"| {line['what']} |" in page.read_text()
        assert line["ratio"] > 0


def test_the_gpu_script_runs(tmp_path, monkeypatch, capsys):
    """With tiny sizes on the CPU; what compiles is left out."""
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--trial", "--only", "parity", "logits", "scoring"])
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    gpu.main()
    (page,) = tmp_path.iterdir()
    assert page.read_text() in capsys.readouterr().out
    for what in ("padded to 40 x 80", "16 MSAs of 32 x 96", "logits 256 x 512, share", "400 x 300, exact"):
        assert what in page.read_text()


def test_kernels_of_a_gpu_are_counted():
    """Two layers more are twice the kernels and operations of a layer more; operations as counted for the CPU."""
    totals = []
    for layers in (1, 2, 4):
        config = MsaConfig(num_hidden_layers=layers)
        cells = [cell.strip() for cell in gpu.counted(config).splitlines()[4].split("|")]
        totals.append((int(cells[2]), float(cells[4])))
        assert float(cells[4]) == pytest.approx(side_by_side.count_flops(config, 256, 512) / 1e12, rel=0.01)
    (kernels, _), (more, _), (most, _) = totals
    assert most - more == 2 * (more - kernels)


def test_figures_in_the_readme_are_measured():
    section = (ROOT / "README.md").read_text().split("## Speed")[1].split("\n## ")[0]
    source = re.search(r"benchmarks/results/[\w-]+", section)[0]
    lines = {line["what"]: line for line in json.loads((ROOT / f"{source}.json").read_text())["lines"]}
    rows = re.findall(r"^\| (?!what|---)([^|]+) \| ([\d.]+) \|$", section, flags=re.MULTILINE)
    assert rows
    for what, figure in rows:
        digits = len(figure.split(".")[1])
        assert f"{lines[what]['ratio']:.{digits}f}" == figure, what


def test_the_cost_of_proteingym_is_counted_as_by_hand(tmp_path):
    """Operations of exact and fast mode, and the windows of a long protein beside those that the scorer places."""
    import proteingym_cost as cost

    from modeling_msa.tasks.windows import windows_around

    config, columns, rows = MsaConfig(), 10, 400
    width, layers, ff = config.hidden_size, config.num_hidden_layers, config.intermediate_size
    tokens = columns + 1
    # of one row: projections, feed-forward, row products, column products with all rows, and the head
    layer = (
        tokens * (8 * 2 * width**2 + 2 * 2 * width * ff) + 2 * 2 * tokens**2 * width + 2 * 2 * rows * tokens * width
    )
    head = tokens * (2 * width**2 + 2 * width * 33)
    assert cost.version_flops(columns) == layers * layer + head
    (tmp_path / "reference.csv").write_text(
        "DMS_id,MSA_start,MSA_end,region_mutated,DMS_total_number_mutants,MSA_num_seqs,MSA_N_eff\n"
        "short,4,13,5-8,70,900,30.5\nlong,1,2000,all,9,900,30.5\n"
    )
    short, long = cost.read(tmp_path / "reference.csv")
    assert (short.residues, short.mutated, long.residues, long.mutated, long.width) == (10, 4, 2000, 2000, 1023)
    passed = side_by_side.count_flops(config, rows, columns)
    assert cost.flops(short, "exact") == 5 * 4 * passed
    assert cost.flops(short, "fast") == 5 * (passed + 4 * cost.version_flops(columns))
    assert long.windows == len(windows_around(2000, range(2000), 1023, 1023 // 8))
    assert short.windows == 1
    assert cost.gpu_seconds(short, "exact", lambda width: width / 10) == 5 * 4
    share = cost.version_flops(columns) / passed
    assert cost.gpu_seconds(short, "fast", lambda width: 1.0) == pytest.approx(5 * (1 + 4 * share))
    kept = 1.4 * 30.5
    assert cost.rows_seconds(short, (2.0, 3.0)) == pytest.approx(10 * (2 * 900 * kept + 3 * kept**2))


@real_data
def test_the_table_of_supervised_fitness(tmp_path, monkeypatch, capsys):
    """With few variants, rows and labels."""
    import supervised_fitness as benchmark

    monkeypatch.setattr(benchmark, "ROWS", 4)
    monkeypatch.setattr(benchmark, "LABELS", (10, 20))
    monkeypatch.setattr(benchmark, "DRAWS", 2)
    methods = ("zero-shot", "one-hot, ridge", "all three, GP")
    monkeypatch.setattr(benchmark, "METHODS", {name: benchmark.METHODS[name] for name in methods})
    options = ["--model", "msa-tiny", "--most", "40", "--exact", "10", "--output", str(tmp_path / "a.md")]
    monkeypatch.setattr(sys, "argv", ["supervised_fitness.py", *options, "--picture", str(tmp_path / "p.png")])
    benchmark.main()
    page = (tmp_path / "a.md").read_text()
    assert "## TEM-1: 40 variants" in page
    assert "| contiguous | all three, GP | " in page
    rows = [line.split("|") for line in page.splitlines() if re.match(r"\| [0-4] \| (all|mutated) residues", line)]
    assert [float(row[3]) for row in rows[:2]] == [1, 1]  # the embedding layer reads no other row
    assert len(rows) == 6
    assert (tmp_path / "p.png").stat().st_size > 1000
    assert "TEM-1: zero-shot: random" in capsys.readouterr().err


@real_data
def test_table_of_real_families(tiny, tmp_path, monkeypatch, capsys):
    """A line for each number of rows and method; probable pairs are counted for models alone."""
    for folder, ending in (("msa", "a3m"), ("structure", "pdb")):
        (tmp_path / folder).mkdir()
        for name in ("6e6r", "6exz"):
            (tmp_path / folder / f"{name}.{ending}").symlink_to(SHARED / folder / f"{name}.{ending}")
    options = ["--rows", "8,32", "--model", str(tiny), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "msa"), str(tmp_path / "structure"), *options])
    real_families.main()
    out, err = capsys.readouterr()
    first, second = ([line.split(" | ") for line in part.splitlines()] for part in out.split("Pairs with"))
    rows = [line for line in first if line[0] in ("| 8", "| 32")]
    assert [line[1] for line in rows] == ["mutual information", tiny.name] * 2
    assert [line[1] for line in second if line[0] in ("| 8", "| 32")] == [tiny.name] * 2
    of_family = [float(line.split("mutual information ")[1][:5]) for line in err.splitlines() if ", 32 of" in line]
    assert float(rows[2][2][:5]) == pytest.approx(np.mean(of_family), abs=1e-3)


def test_sure_pairs_of_a_map():
    """By hand: of pairs 6 apart with 0.5 or more, two of three are in contact, and one of these is not known."""
    found = contact_map(9, p0_6=0.9, p0_7=0.5, p1_7=0.6, p2_8=0.4, p0_1=0.9)
    contacts = np.zeros((len(found.query),) * 2, dtype=int)
    for i, j, state in ((0, 6, 1), (0, 7, 1), (1, 7, -100)):
        contacts[i, j] = contacts[j, i] = state
    assert real_families.calibration(found, contacts).tolist() == pytest.approx([2, 1.4, 2])


@real_data
def test_table_of_jacobians(tiny, tmp_path, monkeypatch):
    """Two figures of each method, and their means; the regression's are those of the package."""
    for folder, ending in (("msa", "a3m"), ("structure", "pdb")):
        (tmp_path / f"6e6r.{ending}").symlink_to(SHARED / folder / f"6e6r.{ending}")
    options = ["--rows", "4", "--exact", "0", "--model", str(tiny), "--output", str(tmp_path / "table.md")]
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path), *options])
    jacobian.main()
    lines = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[:3] for row in cells] == [["6e6r", "4", "56"], [f"mean of 1 ({tmp_path.name})", "", ""]]
    values = np.array([row[3:] for row in cells], dtype=float)
    assert values.shape == (2, 6)
    assert np.abs(values[0] - values[1]).max() <= 0.006
    family = read_alignment(tmp_path / "6e6r.a3m")
    found = predict_contacts(family, load_model(tiny), rows=4)
    expected = precision(found, structure_contacts(tmp_path / "6e6r.pdb", family))
    assert values[0, 0] == pytest.approx(expected, abs=0.005)


def test_halves_of_a_family_are_shuffled_within_species():
    family = read_alignment(SEED).drop_query_gaps()
    a, b, species, kind = pairing_benchmark.halves(family, 4, 40, 2, seed=0)
    rows = dict(zip(b.names, b.sequences, strict=True))
    whole = [family.sequences[int(name.removeprefix("row"))] for name in a.names]
    assert [row + rows[name] for name, row in a] == whole
    assert (a.names[0], b.names[0]) == ("row0", "row0")
    assert a.names != b.names
    # its headers have entry names: species with one row, at most two, and such with several, at most 40 rows
    entries = {name: family.names[int(name[3:])].split("_")[1].split("/")[0] for name in a.names[1:]}
    assert (kind, species) == ("headers", entries)
    sizes = Counter(species.values())
    assert sum(size == 1 for size in sizes.values()) <= 2
    assert 2 <= sum(size for size in sizes.values() if size > 1) <= 40
    bare = Alignment.from_sequences(family.sequences[:9])
    *_, dealt, kind = pairing_benchmark.halves(bare, 4, 40, 2, seed=0)
    assert (kind, sorted(Counter(dealt.values()).values())) == ("groups of 4", [4, 4])


def test_windows_are_compared_over_the_pairs_that_they_cover():
    """Of 9 residues, 6 pairs count; of the 5 that are covered, one probability differs. Rows lie side by side."""
    import windows

    whole = contact_map(9, p0_6=0.9, p1_7=0.5, p0_8=0.8)
    parts = contact_map(9, p0_6=0.7, p1_7=0.5, p0_8=np.nan)
    known = np.zeros((9, 9), dtype=np.int8)
    known[0, 6] = known[0, 8] = known[6, 0] = known[8, 0] = 1
    cells = windows.compare(whole, parts, known)
    pairs = np.array([[0.9, 0.7], [0, 0], [0.5, 0.5], [0, 0], [0, 0]])
    assert cells[0] == f"{5 / 6:.3f}"
    assert cells[1] == f"{np.corrcoef(pairs.T)[0, 1]:.3f}"
    assert cells[2:] == ["-", "1.000", f"{5 / 9:.2f}", f"{2 / 9:.3f}", f"{1 / 9:.3f}", f"{1 / 9:.3f}"]
    both = windows.side_by_side(
        [Alignment.from_sequences(["MK", "RV", "AA"]), Alignment.from_sequences(["LLL", "GGG"])], "two"
    )
    assert (both.sequences, both.names) == (["MKLLL", "RVGGG"], ("two", "two_2"))
