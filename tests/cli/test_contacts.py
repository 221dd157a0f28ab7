"""The contract of `msa contacts` and `msa evaluate-contacts`: from files to tables and pictures.

Precision is that of the written table, whatever the structure's residue numbers. Errors come before the model runs,
and leave nothing.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import typer
from families import make_known
from huggingface_hub.utils import are_progress_bars_disabled
from made_up import SHARED, real_data
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from modeling_msa import (
    bundled_family,
    direct_coupling_analysis,
    evaluate_contacts,
    list_families,
    load_model,
    mutual_information,
    predict_contacts,
    prepare_alignment,
    read_alignment,
    row_maps,
    write_enrichment,
)
from modeling_msa.cli.contacts import contacts_command
from modeling_msa.cli.evaluate_contacts import evaluate_contacts_command
from modeling_msa.cli.jacobian import jacobian_command
from modeling_msa.tasks.contact_evaluation import read_evaluation

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A model, families f0 .. f7 and contact maps of them in maps/, listed in families.tsv."""
    return make_known(tmp_path_factory.mktemp("evaluation"))


def run(command, *arguments):
    app = typer.Typer()
    app.command("contacts")(contacts_command)
    app.command("jacobian")(jacobian_command)
    app.command("evaluate-contacts")(evaluate_contacts_command)
    return CliRunner().invoke(app, [command, *map(str, arguments)])


@pytest.mark.parametrize("name", ["fn3", pytest.param("gb1.a2m", marks=real_data)])
def test_command_on_real_files(name, tmp_path):
    """Every residue of the query with a column is in the table; gb1's first two have none."""
    path = bundled_family() if name == "fn3" else SHARED / "msa" / name
    result = run("contacts", path, "-o", tmp_path / "c.tsv", "--rows", 4)
    assert result.exit_code == 0, result.output
    assert not are_progress_bars_disabled()  # downloads show theirs
    family = read_alignment(path)
    table = np.loadtxt(tmp_path / "c.tsv", skiprows=1)
    covered = np.flatnonzero(family.residue_columns >= 0) + 1
    assert set(table[:, :2].ravel()) == set(covered)
    assert (table[:, 1] - table[:, 0] >= 6).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.a3m"], "no such file"),
        (["FAMILY", "-o", "nowhere/c.tsv"], "the folder nowhere does not exist"),
        (["FAMILY", "--plot", "map.docx"], "unknown picture format"),
        (["FAMILY", "--device", "xyz"], "no device 'xyz'"),
        (["FAMILY", "--model", "BERT"], "'bert', not 'msa_transformer'"),
        (["FAMILY", "--model", "PARTIAL"], "26 tensors are missing"),
        (["FAMILY", "--model", "CUT"], "damaged"),
        (["FAMILY", "--input-format", "fasta"], "--input-format a3m"),
    ],
)
def test_errors_in_words_before_work(arguments, words, places, tmp_path, monkeypatch):
    folder = places / "model"
    monkeypatch.chdir(tmp_path)
    Path("family.a3m").write_text(">q\nMKVLA\n>r\nMKcVLA\n")
    Path("bert").mkdir()
    Path("bert/config.json").write_text('{"model_type": "bert"}')
    tensors = load_file(folder / "model.safetensors")
    partial = {name: tensor for name, tensor in tensors.items() if not name.startswith("msa.layers.1.")}
    for name in ("partial", "cut"):
        Path(name).mkdir()
        Path(name, "config.json").write_text((folder / "config.json").read_text())
    save_file(partial, "partial/model.safetensors", metadata={"format": "pt"})
    Path("cut/model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    names = {"FAMILY": "family.a3m", "BERT": "bert", "PARTIAL": "partial", "CUT": "cut"}
    given = [names.get(argument, argument) for argument in arguments]
    defaults = {"--model": str(folder), "-o": "c.tsv"}
    given += [each for option, value in defaults.items() if option not in given for each in (option, value)]
    result = run("contacts", *given)
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output
    assert not Path("c.tsv").exists()


def test_filters_reach_the_rows(places, tmp_path):
    family = tmp_path / "family.a3m"
    family.write_text(">q\nMKVLAWYC\n>copy\nMKVLAWYC\n>short\nMK------\n>other\nMRILGFYC\n")
    options = ("--model", places / "model", "-o", tmp_path / "c.tsv")
    assert "4 of 4 rows" in run("contacts", family, *options).output
    assert "2 of 4 rows" in run("contacts", family, *options, "--filter-coverage", 75, "--filter-identity", 90).output


def beta_carbons(path):
    """C-beta (glycine: C-alpha) positions of a PDB file with one chain, by its columns; author number and place."""
    atoms = {}
    for line in path.read_text().splitlines():
        wanted = "CA" if line[17:20] == "GLY" else "CB"
        if line.startswith("ATOM") and line[16] in " A" and line[12:16].strip() == wanted:
            atoms[line[22:27]] = [float(line[start : start + 8]) for start in (30, 38, 46)]
    return np.array(list(atoms.values()))


@real_data
def test_precision_of_the_written_table(tmp_path):
    """Counted from the table and the PDB's own lines; the first 5 and 9 others of its residues are cut out of it."""
    name = "6exz"
    source = (SHARED / "structure" / f"{name}.pdb").read_text().splitlines()
    numbers = list(dict.fromkeys(line[22:27] for line in source if line.startswith("ATOM")))
    cut = [*range(5), *range(30, 39)]
    # the others have the author numbers 901, 902 ... without a jump
    renumbered = {number: k for k, number in enumerate(n for i, n in enumerate(numbers) if i not in cut)}
    lines = [
        f"{line[:22]}{901 + renumbered[line[22:27]]:4} {line[27:]}"
        for line in source
        if line.startswith("ATOM") and line[22:27] in renumbered
    ]
    (tmp_path / "cut.pdb").write_text("\n".join([*lines, "END", ""]))

    options = ("--rows", 16, "--structure", tmp_path / "cut.pdb", "--plot", "png")
    alignment = SHARED / "msa" / f"{name}.a3m"
    result = run("contacts", alignment, "-o", tmp_path / "c.tsv", *options)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.png", "c.precision.tsv", "c.tsv", "cut.pdb"]

    beta = beta_carbons(SHARED / "structure" / f"{name}.pdb")
    length = len(beta)
    distances = np.sqrt(((beta[:, None] - beta) ** 2).sum(-1))
    touch = {}
    for i in range(length):
        for j in range(length):
            if i not in cut and j not in cut:
                touch[i + 1, j + 1] = distances[i, j] < 8
    table = [line.split("\t")[:2] for line in (tmp_path / "c.tsv").read_text().splitlines()[1:]]
    ranked = [(int(i), int(j)) for i, j in table if (int(i), int(j)) in touch]
    written = [line.split("\t") for line in (tmp_path / "c.precision.tsv").read_text().splitlines()]
    assert written[0] == ["contacts", "P@L", "P@L/2", "P@L/5"]
    ranges = {"all": (6, 999), "short": (6, 11), "medium": (12, 23), "long": (24, 999)}
    assert [row[0] for row in written[1:]] == list(ranges)
    for row in written[1:]:
        low, high = ranges[row[0]]
        chosen = [pair for pair in ranked if low <= pair[1] - pair[0] <= high]
        for cell, part in zip(row[1:], (1, 2, 5), strict=True):
            count = length // part
            expected = sum(touch[pair] for pair in chosen[:count]) / count
            assert float(cell) == pytest.approx(expected, abs=1e-6)
            assert f"{expected:.2f}" in result.output


def test_contacts_of_many(places, tmp_path):
    """A table and a picture each; f3 alone has a structure. One picture for all is refused, as is an odd ending."""
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "f3.npy").write_bytes((places / "labels/maps/f3.npy").read_bytes())
    inputs = [places / "families" / f"f{k}.a3m" for k in (1, 3)]
    options = ("--model", places / "model", "--structure", tmp_path / "maps")
    result = run("contacts", *inputs, "-o", tmp_path / "out", *options, "--plot", "svg", "--format", "rr")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith("."))
    assert names == ["f1.contacts.svg", "f1.rr", "f3.contacts.svg", "f3.precision.tsv", "f3.rr"]
    assert "no structure in" in result.output
    assert (tmp_path / "out" / "f3.rr").read_text().startswith("PFRMAT RR\nTARGET f3/0\n")
    for arguments, words in (
        ([*inputs, "-o", tmp_path / "more", "--plot", tmp_path / "a.png"], "--plot png for a picture"),
        ([inputs[0], "-o", tmp_path / "a.tsv", "--plot", "a.docx"], "unknown picture format"),
        ([inputs[0], "-o", tmp_path / "a.csv"], ".tsv, .npz or .rr"),
        ([inputs[0], "-o", tmp_path / "a.tsv", "--format", "rr"], "does not end with .rr"),
        ([inputs[0], "-o", tmp_path / "a.tsv", "--structure", "nowhere.pdb"], "no such file"),
        ([inputs[0], "-o", tmp_path / "a.tsv", "--structure", tmp_path / "maps"], "no structure named"),
    ):
        result = run("contacts", *arguments, "--model", places / "model")
        assert result.exit_code == 1
        assert words in result.output.replace("\n", " ")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["maps", "out"]
    result = run("contacts", inputs[1], "-o", tmp_path / "out", *options, "--plot", tmp_path / "maps", "--overwrite")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "maps" / "f3.contacts.png").is_file()


def test_baselines(places, tmp_path):
    """The table's scores are those of the rows that the model saw; P@L is counted from the table, chance from all."""
    path, known = places / "families/f3.a3m", places / "labels/maps/f3.npy"
    options = ("--model", places / "model", "--rows", 6, "--select", "random", "--seed", 2, "--structure", known)
    result = run("contacts", path, "-o", tmp_path / "c.tsv", *options, "--baseline", "mi,dca", "--plot", "png")
    assert result.exit_code == 0, result.output
    table = [line.split("\t") for line in (tmp_path / "c.tsv").read_text().splitlines()]
    assert table[0] == ["i", "j", "probability", "mutual_information", "dca"]
    pairs = np.array(table[1:], dtype=float)
    i, j = pairs[:, :2].T.astype(int) - 1
    seen = prepare_alignment(read_alignment(path), 6, "random", 2)
    for column, function in ((3, mutual_information), (4, direct_coupling_analysis)):
        assert pairs[:, column] == pytest.approx(function(seen.array)[i, j], abs=1e-6)
    true = np.load(known)
    assert (true >= 0).all()
    written = [line.split("\t") for line in (tmp_path / "c.precision.tsv").read_text().splitlines()]
    assert written[0][4:] == ["mutual_information P@L", "dca P@L", "chance P@L"]
    for row in written[1:]:
        low, high = {"all": (6, 999), "short": (6, 11), "medium": (12, 23), "long": (24, 999)}[row[0]]
        chosen = (j - i >= low) & (j - i <= high)
        hits, length = true[i[chosen], j[chosen]], len(true)
        if not chosen.any():
            assert row[1:] == [""] * 6
            continue
        for cell, column in ((row[1], 2), (row[4], 3), (row[5], 4)):
            ranked = hits[np.argsort(-pairs[chosen, column], kind="stable")]
            assert float(cell) == pytest.approx(ranked[:length].sum() / length, abs=1.5 / length)  # ties in 6 decimals
        assert float(row[6]) == pytest.approx(hits.mean(), abs=1e-6)
    lines = result.output.split("P@L by method")[1].splitlines()
    assert lines[0].split() == ["all", "short", "medium", "long"]
    assert [line.rsplit(None, 4)[0] for line in lines[1:5]] == [
        "MSA Transformer",
        "mutual information",
        "DCA",
        "chance",
    ]
    assert lines[2].split()[2] == f"{float(written[1][4]):.2f}"
    result = run("contacts", path, "-o", tmp_path / "c.npz", *options[:-2], "--baseline", "mi")
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "c.npz") as loaded:
        assert np.array_equal(loaded["mutual_information"], mutual_information(seen.array))
        assert "dca" not in loaded
    several = (path, places / "families/f1.a3m", "-o", tmp_path / "out", *options[:-1], known.parent)
    result = run("contacts", *several, "--baseline", "mi")
    assert f", mutual information {float(written[1][4]):.2f}, chance {float(written[1][6]):.2f}\n" in result.output
    for arguments, words in (
        (["-o", "d.tsv", "--baseline", "mi,plm"], "'plm' is not a method"),
        (["-o", "d.rr", "--baseline", "mi"], "pass --format tsv or npz"),
    ):
        result = run("contacts", path, *arguments, "--model", "nowhere")
        assert result.exit_code == 1
        assert words in result.output.replace("\n", " ")


def test_files_beside(places, tmp_path):
    """Enrichment and row maps are those of the functions; several alignments have a file each, named like theirs."""
    inputs = [places / "families" / f"f{k}.a3m" for k in (1, 3)]
    model, rows = ("--model", places / "model"), ("--rows", 6, "--select", "first")
    maps = ("--map-layers", "2", "--map-heads", "1-2")
    files = ("--enrichment", tmp_path / "e.tsv", "--row-maps", tmp_path / "m.safetensors")
    result = run("contacts", inputs[1], "-o", tmp_path / "c.tsv", *model, *rows, *files, *maps)
    assert result.exit_code == 0, result.output
    family, network = read_alignment(inputs[1]), load_model(places / "model")
    expected = row_maps(family, network, layers=[2], heads=[1, 2], rows=6, select="first")
    assert np.array_equal(load_file(tmp_path / "m.safetensors")["maps"].numpy(), expected.maps)
    write_enrichment(predict_contacts(family, network, rows=6, select="first"), tmp_path / "expected.tsv")
    assert (tmp_path / "e.tsv").read_text() == (tmp_path / "expected.tsv").read_text()
    words = ("--enrichment", "tsv", "--row-maps", "npz", *maps)
    result = run("contacts", *inputs, "-o", tmp_path / "out", *model, *rows, *words)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith("."))
    each = ["enrichment.tsv", "row_maps.npz", "tsv"]
    assert names == [f"f{k}.{ending}" for k in (1, 3) for ending in each]
    with np.load(tmp_path / "out" / "f3.row_maps.npz") as loaded:
        assert np.array_equal(loaded["maps"], expected.maps)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--viewer", "v.pml"], "--viewer draws on a structure: pass --structure too"),
        (["--viewer", "v.pml", "--structure", "map.npy"], "pass a PDB or mmCIF file"),
        (["--viewer", "v.py", "--structure", "map.npy"], "unknown output format '.py'; use .pml or .cxc"),
        (["--enrichment", "e.csv"], "unknown output format '.csv'"),
        (["--enrichment", "c.tsv"], "c.tsv is an input, or would have two results"),
        (["--enrichment", "nowhere/e.tsv"], "the folder nowhere does not exist"),
        (["--row-maps", "m.npy"], "unknown output format '.npy'; use .npz or .safetensors"),
        (["--row-maps", "m.npz", "--map-layers", "0-9"], "there is no layer 0; this model has layers 1 to 2"),
        (["--row-maps", "m.npz", "--map-heads", "1,7"], "there is no head 7"),
        (["--row-maps", "m.npz", "--map-heads", "first"], "--map-heads: 'first' is not a number or a range"),
        (["--map-layers", "1"], "pass --row-maps too"),
        (["--row-maps", "m.npz", "--window", "5"], "leave out --window and --overlap, or --row-maps"),
    ],
)
def test_files_that_cannot_be_written(arguments, words, places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("map.npy").write_bytes((places / "labels/maps/f3.npy").read_bytes())
    family = places / "families/f3.a3m"
    result = run("contacts", family, "-o", "c.tsv", "--model", places / "model", *arguments)
    assert result.exit_code == 1
    assert words in result.output.replace("\n", " ")
    assert [path.name for path in tmp_path.iterdir()] == ["map.npy"]


def test_one_file_for_several_alignments(places, tmp_path):
    inputs = [places / "families" / f"f{k}.a3m" for k in (1, 3)]
    options = ("--model", places / "model", "--enrichment", tmp_path / "e.tsv")
    result = run("contacts", *inputs, "-o", tmp_path / "out", *options)
    assert result.exit_code == 1
    assert "e.tsv is one file" in result.output.replace("\n", "")
    assert list(tmp_path.iterdir()) == []


@real_data
@pytest.mark.parametrize("command", ["contacts", "jacobian"])
def test_viewers(command, tmp_path):
    """Scripts of two families, beside their tables; the author numbers of 6exz start at 530."""
    inputs = [SHARED / "msa" / f"{name}.a3m" for name in ("6exz", "6e6r")]
    options = ("--rows", 4, "--model", "msa-tiny", "--structure", SHARED / "structure", "--viewer", "cxc")
    result = run(command, *inputs, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if path.suffix == ".cxc")
    assert names == [f"6e6r.{command}.cxc", f"6exz.{command}.cxc"]
    lines = (tmp_path / "out" / f"6exz.{command}.cxc").read_text().splitlines()
    table = [line.split("\t") for line in (tmp_path / "out" / "6exz.tsv").read_text().splitlines()[1:70]]
    drawn = {tuple(re.findall(r"/A:(\d+)@C[AB]", line)) for line in lines if line.startswith("pbond")}
    assert drawn == {(str(int(i) + 529), str(int(j) + 529)) for i, j, _ in table}
    result = run(command, inputs[0], "-o", tmp_path / "c.tsv", *options[:-1], tmp_path / "v.pml")
    assert result.exit_code == 0, result.output
    assert "v.pml: 69 pairs drawn on" in result.output.replace("\n", " ")
    blue = (tmp_path / "v.pml").read_text().count("distance msa_right")
    rows = (tmp_path / "c.precision.tsv").read_text().splitlines()
    assert blue == pytest.approx(69 * float(rows[1].split("\t")[1]), abs=0.01)


def test_evaluate_command(places, tmp_path):
    """A broken family is named and counted; the others are in the table; the next run does only what is left."""
    for name in ("families", "labels/maps"):
        (tmp_path / name).mkdir(parents=True)
        for path in (places / name).iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    (tmp_path / "families.tsv").write_bytes((places / "families.tsv").read_bytes())
    whole = (tmp_path / "labels/maps/f2.npy").read_bytes()
    np.save(tmp_path / "labels/maps/f2.npy", np.zeros((3, 3), dtype=np.int8))
    arguments = (tmp_path / "families.tsv", "-o", tmp_path / "table.tsv", "--model", places / "model", "--rows", 4)
    result = run("evaluate-contacts", *arguments)
    assert result.exit_code == 1
    assert "1 of 8 alignments failed" in result.output
    assert "3 x 3 entries" in result.output
    assert read_evaluation(tmp_path / "table.tsv").names == ("f0", "f1", "f3", "f4", "f5", "f6", "f7")
    (tmp_path / "labels/maps/f2.npy").write_bytes(whole)
    result = run("evaluate-contacts", *arguments)
    assert result.exit_code == 0, result.output
    assert re.findall(r"^f\d", result.output, re.MULTILINE) == ["f2"]

    written = read_evaluation(tmp_path / "table.tsv")
    expected = evaluate_contacts(list_families(places / "families.tsv"), load_model(places / "model"), rows=4)
    assert written.names == expected.names
    assert written.lengths.tolist() == expected.lengths.tolist()
    assert written.depths.tolist() == [4] * 8
    for name, values in expected.precisions.items():
        assert written.precisions[name] == pytest.approx(values, abs=1e-6, nan_ok=True)
    assert str(written) in result.output
    means = [line.split("\t") for line in (tmp_path / "table.means.tsv").read_text().splitlines()]
    assert means[0] == ["figure", "families", "mean", "low", "high"]
    assert means[1][:2] == ["P@L", "8"]
    assert float(means[1][2]) == pytest.approx(expected.precisions["P@L"].mean(), abs=1e-5)
    hidden = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert hidden == [".table.tsv.msa-evaluate-contacts.jsonl"]
