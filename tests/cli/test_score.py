"""The contract of `msa score`: the table comes back as it was, with scores beside it.

Rows that cannot be scored are kept and say why. Errors of a whole table end in words before the model is loaded, and
leave nothing. Several alignments require a folder; a second run continues where the first ended.
"""

import csv
import os
import re
from pathlib import Path

import families
import numpy as np
import pytest
import typer
from made_up import SHARED, real_data
from scipy.stats import spearmanr
from typer.testing import CliRunner

from modeling_msa import MsaForMaskedLM, load_model, read_alignment, score_sequences
from modeling_msa.cli.score import score_command
from modeling_msa.tasks.plotting import plot_substitutions
from modeling_msa.tasks.scoring import SubstitutionScores, score_all_singles, score_variants
from modeling_msa.tasks.strategies import PROTOCOLS

pytestmark = pytest.mark.usefixtures("one_thread")
APP = typer.Typer()
APP.command()(score_command)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return families.make_model(tmp_path_factory.mktemp("score") / "model")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with family.a3m, whose query is MKVLAWYC, residue 1 without a column."""
    monkeypatch.chdir(tmp_path)
    Path("family.a3m").write_text(">q\nmKVL-AWYC\n>r\nRVLGAWFC\n>s\nKILGAFYC\n>t\nKVIGSWYA\n>u\nK-LGA-YC\n")
    return tmp_path


def run(*arguments, ok=True):
    result = CliRunner().invoke(APP, list(map(str, arguments)))
    assert (result.exit_code == 0) == ok, result.output
    assert "Traceback" not in result.output
    return result.output


def table(path, delimiter=","):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=delimiter))


def test_the_table_comes_back_with_scores(here, model):
    text = 'id,mutant,"note, free"\r\n007,K2R,"a ""b"", c"\r\n\r\n1e3,K2R:A5C, x \r\n,M1V,\r\n4,V3*,é\r\n5,WT,n/a\r\n'
    Path("t.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    output = run("family.a3m", "t.csv", "-o", "out.csv", "--model", model)
    assert "out.csv: q, 3 of 5 variants, 5 of 5 rows" in output
    rows = table("out.csv")
    assert rows[0] == ["id", "mutant", "note, free", "score", "reason"]
    old = [
        ["007", "K2R", 'a "b", c'],
        ["1e3", "K2R:A5C", " x "],
        ["", "M1V", ""],
        ["4", "V3*", "é"],
        ["5", "WT", "n/a"],
    ]
    assert [row[:3] for row in rows[1:]] == old
    loaded = load_model(model, cls=MsaForMaskedLM)
    expected = score_variants(read_alignment("family.a3m"), ["K2R", "K2R:A5C"], loaded).score
    assert [float(row[3]) for row in rows[1:3]] == pytest.approx(expected, abs=1e-6)
    assert [row[3] for row in rows[3:]] == ["", "", "0.000000"]
    assert [row[4][:9] for row in rows[1:]] == ["", "", "residue 1", "a stop; a", ""]


def test_tabs_ensembles_offset_and_measured_values(here, model):
    measured = ["0.5", "0.5", "-1", "", "n/a", "2"]
    variants = ["K102R", "V103I", "A105S", "W106F", "Y107F", "C108A"]
    lines = [f"{variant}\t{value}" for variant, value in zip(variants, measured, strict=True)]
    Path("t.tsv").write_text("v\tfitness\n" + "\n".join(lines) + "\n")
    options = ("--variant-column", "v", "--measured-column", "fitness", "--offset", 100, "--score-column", "msa")
    ensemble = ("--seeds", "1-2,5", "--select", "random", "--rows", 3)
    output = run("family.a3m", "t.tsv", "-o", "out.tsv", "--model", model, *options, *ensemble)
    rows = table("out.tsv", "\t")
    assert rows[0] == ["v", "fitness", "msa", "msa_std", "reason"]
    loaded = load_model(model, cls=MsaForMaskedLM)
    expected = score_variants(
        read_alignment("family.a3m"), variants, loaded, rows=3, select="random", seed=(1, 2, 5), offset=100
    )
    assert [float(row[2]) for row in rows[1:]] == pytest.approx(expected.score, abs=1e-6)
    assert [float(row[3]) for row in rows[1:]] == pytest.approx(expected.score_std, abs=1e-6)
    both = [0, 1, 2, 5]
    value = spearmanr(expected.score[both], [float(measured[k]) for k in both]).statistic
    assert f"Spearman {value:.4f} (4 variants)" in output


def test_the_protocol_is_one_word_and_options_win(here, model):
    """The recipe's five seeds, weighted rows and filter: copies of the query, and a fragment, are left out."""
    with open("family.a3m", "a") as file:
        file.write(">copy\nKVL-AWYC\n>short\nK-------\n")
    Path("t.csv").write_text("mutant\nK2R\nL4A\n")
    common = ("family.a3m", "t.csv", "--model", model)
    assert "4 of 7 rows" in run(*common, "-o", "a.csv", "--protocol", "proteingym")
    run(*common, "-o", "b.csv", "--protocol", "proteingym", "--rows", 3, "--filter-coverage", 60)
    plain = ("--rows", 3, "--select", "weighted", "--filter-coverage", 60, "--filter-identity", 90, "--seeds", "1-5")
    run(*common, "-o", "c.csv", *plain)
    assert table("b.csv") == table("c.csv") != table("a.csv")
    assert table("b.csv")[0] == ["mutant", "score", "score_std", "reason"]


def test_fast_mode_goes_with_a_protocol_and_is_part_of_a_run(here, model):
    Path("t.csv").write_text("mutant\nK2R\nL4A\n")
    common = ("family.a3m", "t.csv", "--model", model, "--protocol", "proteingym", "--rows", 3)
    run(*common, "-o", "fast.csv", "--mode", "fast")
    run(*common, "-o", "exact.csv", "--mode", "exact")
    assert run(*common, "-o", "default.csv")
    recipe = PROTOCOLS["proteingym"] | {"rows": 3}
    loaded = load_model(model, cls=MsaForMaskedLM)
    expected = score_variants(read_alignment("family.a3m"), ["K2R", "L4A"], loaded, mode="fast", **recipe).score
    assert [float(row[1]) for row in table("fast.csv")[1:]] == pytest.approx(expected, abs=1e-6)
    assert table("exact.csv") == table("default.csv") != table("fast.csv")
    # several alignments: results of the other mode are made again
    Path("in").mkdir()
    for name in ("a", "b"):
        Path("in", f"{name}.a3m").write_bytes(Path("family.a3m").read_bytes())
    several = ("in", "t.csv", "-o", "out", "--model", model)
    run(*several, "--mode", "fast")
    assert "made again, because mode was fast, is now exact: a, b" in run(*several, "--mode", "exact")


def test_all_singles_with_a_picture(here, model):
    output = run("family.a3m", "--all-singles", "-o", "s.csv", "--plot", "s.png", "--model", model)
    assert "7 residues, 5 of 5 rows" in output
    rows = table("s.csv")
    assert rows[0] == ["mutant", "score"]
    assert len(rows) == 1 + 7 * 19
    result = score_all_singles(read_alignment("family.a3m"), load_model(model, cls=MsaForMaskedLM))
    expected = {
        f"{wild}{number}{letter}": result.score[i, j]
        for i, (wild, number) in enumerate(zip(result.wild_type, result.residues, strict=True))
        for j, letter in enumerate(result.amino_acids)
        if letter != wild
    }
    assert [row[0] for row in rows[1:]] == list(expected)
    assert [float(row[1]) for row in rows[1:]] == pytest.approx(list(expected.values()), abs=1e-6)
    assert Path("s.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_of_long_and_broken_queries(here):
    """Over 240 residues, with some that have no score; and a single residue."""
    random = np.random.default_rng(0)
    letters = "ACDEFGHIKLMNPQRSTVWY"
    for residues in (np.delete(np.arange(1, 300), slice(20, 50)), np.array([7])):
        score = random.normal(size=(len(residues), 20))
        score[len(residues) // 2 + 1 :][:3] = np.nan
        wild = "".join(random.choice(list(letters + "X"), len(residues)))
        plot_substitutions(SubstitutionScores("q", wild, residues, letters, score, None, (0,), 1), "p.svg")
        assert Path("p.svg").stat().st_size > 1000
    assert sorted(os.listdir()) == ["family.a3m", "p.svg"]


def test_several_alignments(here, model):
    """A table for each by its name; one without a table fails, the others are done, and the next run goes on."""
    made = families.make_folder(here / "in", count=3)
    Path("tables").mkdir()
    for name in ("f0", "f2"):
        Path("tables", f"{name}.csv").write_text(f"mutant\n{made[name].query[1]}2A\n")
    common = ("in", "--variants", "tables", "-o", "out", "--model", model)
    output = run(*common, ok=False)
    assert "1 of 3 alignments failed" in output
    assert "there is no file f1.csv or .tsv in tables" in output
    assert sorted(path.name for path in Path("out").glob("*.csv")) == ["f0.csv", "f2.csv"]
    first = Path("out/f0.csv").stat().st_mtime_ns
    Path("tables", "f1.tsv").write_text(f"mutant\n{made['f1'].query[1]}2A\n")
    run(*common)
    assert sorted(path.name for path in Path("out").glob("*.csv")) == ["f0.csv", "f1.csv", "f2.csv"]
    assert Path("out/f0.csv").stat().st_mtime_ns == first
    assert table("out/f1.csv")[0] == ["mutant", "score", "reason"]


def test_all_singles_of_several_go_on(here, model):
    families.make_folder(here / "in", count=3)
    common = ("in", "--all-singles", "-o", "out", "--plot", "pictures", "--model", model)
    run(*common)
    before = {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.csv")}
    assert len(before) == 3
    assert sorted(os.listdir("pictures")) == ["f0.score.png", "f1.score.png", "f2.score.png"]
    Path("out/f1.csv").unlink()
    assert "2 of them finished before" in run(*common)
    after = {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.csv")}
    assert {name for name in after if after[name] == before[name]} == {"f0.csv", "f2.csv"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["family.a3m"], "or --all-singles"),
        (["t.csv"], "Pass an alignment before the table t.csv"),
        (["family.a3m", "t.csv", "u.csv"], "Pass one table"),
        (["family.a3m", "t.csv", "--all-singles"], "cannot be used with a table"),
        (["family.a3m", "t.csv", "--plot", "p.png"], "column with --measured-column"),
        (["family.a3m", "--all-singles", "--measured-column", "x"], "a column of a table"),
        (["family.a3m", "t.csv", "--seed", "1", "--seeds", "1,2"], "cannot be used together"),
        (["family.a3m", "--all-singles", "--plot", "nowhere/p.png"], "nowhere"),
        (["family.a3m", "t.csv", "-o", "out.xlsx"], "unknown output format '.xlsx'; use .csv or .tsv"),
        (["family.a3m", "nowhere.csv"], "nowhere.csv: no such file"),
        (["nowhere.a3m", "t.csv"], "nowhere.a3m"),
        (["family.a3m", "t.csv", "--variant-column", "v"], "--variant-column); the columns are mutant, x"),
        (["family.a3m", "t.csv", "--measured-column", "y"], "no column 'y' (--measured-column)"),
        (["family.a3m", "t.csv", "--score-column", "x"], "t.csv: "),
        (["family.a3m", "t.csv", "--seeds", "1;2"], "--seeds: '1;2' is not a number or a range"),
        (["family.a3m", "t.csv", "--seeds", "1,2"], "select"),
        (["family.a3m", "t.csv", "--mode", "fast", "--strategy", "wt-marginals"], "has no fast mode"),
        (["family.a3m", "t.csv", "--offset", "1"], "t.csv: 2 of 2 variants"),
        (["family.a3m", "u.csv"], "offset 10"),
        (["family.a3m", "ragged.csv"], "ragged.csv: line 3"),
        (["family.a3m", "indels.csv"], "indels.csv: line 2 (A5del): an insertion"),
        (["family.a3m", "indels.csv", "--strategy", "wt-marginals"], "indels.csv: line 2 (A5del): an insertion"),
        (["family.a3m", "--per-residue", "t.csv"], "--per-residue requires --sequences"),
        (["family.a3m", "t.csv", "--sequences", "s.fasta"], "--sequences cannot be used with a table of variants"),
        (["family.a3m", "--all-singles", "--sequences", "s.fasta"], "cannot be used with --all-singles"),
        (["family.a3m", "--sequences", "none.fasta"], "none.fasta: no such file"),
        (["family.a3m", "--sequences", "s.fasta", "--strategy", "wt-marginals"], "requires the strategy pseudo"),
        (["family.a3m", "--sequences", "s.fasta", "--measured-column", "y"], "s.fasta: FASTA has no column 'y'"),
        (["family.a3m", "--sequences", "s.fasta", "--plot", "p.png"], "their column with --measured-column"),
        (["family.a3m", "--sequences", "empty.fasta"], "empty.fasta: is empty"),
        (["family.a3m", "--sequences", "twice.fasta"], "sequences 1 and 2 have the same name (a)"),
        (["family.a3m", "--sequences", "odd.fasta"], "odd.fasta: residue 3 of a is '*'"),
        (["family.a3m", "--sequences", "digit.fasta"], "digit.fasta: row 1 (a), line 2, column 2, is '1'"),
        (["family.a3m", "--sequences", "s.fasta"], "s.fasta: far: it does not align to the query"),
        (["family.a3m", "--sequences", "s.csv", "--variant-column", "protein"], "s.csv: line 3: it does not align"),
        (["family.a3m", "--sequences", "s.csv"], "(--variant-column); the columns are protein, y"),
    ],
)  # fmt: skip
def test_errors_in_words(arguments, words, here, model, monkeypatch):
    Path("t.csv").write_text("mutant,x\nK2R,1\nV3I,2\n")
    Path("u.csv").write_text("mutant\nK12R\nV13I:L14A\n")
    Path("ragged.csv").write_text("mutant,x\nK2R,1\nV3I,2,3\n")
    Path("indels.csv").write_text("mutant\nA5del\n")
    Path("s.fasta").write_text(">near\nMKVLWYC\n>far\nGGGGGGGG\n")
    Path("s.csv").write_text("protein,y\nMKVLWYC,1\nGGGGGGGG,2\n")
    for name, text in (("empty", ""), ("twice", ">a\nMK\n>a\nMK\n"), ("odd", ">a\nMK*VL\n"), ("digit", ">a\nM1\n")):
        Path(f"{name}.fasta").write_text(text)
    before = sorted(os.listdir())
    output = [] if "-o" in arguments else ["-o", "out.csv"]
    # but for what only the model can tell, it is not even loaded
    name = model if "--seeds" in arguments else "no/such/model"
    assert words in run(*arguments, *output, "--model", name, ok=False)
    assert sorted(os.listdir()) == before


def test_whole_sequences(here, model):
    """A row for each; residues beside them; the same numbers as in Python, in fast mode by default."""
    proteins = {"wild type": "MKVLAWYC", "shorter": "mkvlwyc", "longer": "MKVLAGGWYC", "other": "MKVIAWYC"}
    Path("s.fasta").write_text("".join(f">{name}\n{protein}\n" for name, protein in proteins.items()))
    common = ("family.a3m", "--sequences", "s.fasta", "--model", model)
    output = run(*common, "-o", "out.csv", "--per-residue", "--offset", 100)
    loaded = load_model(model, cls=MsaForMaskedLM)
    family = read_alignment("family.a3m")
    expected = score_sequences(family, list(proteins.values()), loaded)
    assert "4 of 4 sequences, 5 of 5 rows, the query's sum " in output.replace("\n", " ")
    rows = [dict(zip(table("out.csv")[0], row, strict=True)) for row in table("out.csv")[1:]]
    assert [row["name"] for row in rows] == list(proteins)
    assert [row["score_variant"] for row in rows] == ["WT", "A105del", "A105_W106insGG", "L104I"]
    for name in ("score", "sum", "mean", "difference"):
        column = name if name == "score" else f"score_{name}"
        assert [float(row[column]) for row in rows] == pytest.approx(getattr(expected, name), abs=1e-6)
    residues = table("out.residues.csv")
    assert len(residues) == 1 + 7 + 6 + 9 + 7
    assert residues[1][:5] == ["wild type", "2", "K", "102", "K"]
    run(*common, "-o", "exact.tsv", "--mode", "exact")
    variants = ["A5del", "A5_W6insGG", "L4I"]
    Path("t.csv").write_text("mutant\n" + "\n".join(variants) + "\n")
    pll = ("--strategy", "pseudo-log-likelihood")
    run("family.a3m", "t.csv", "-o", "variants.csv", "--model", model, *pll)
    exact = [float(row[1]) for row in table("exact.tsv", "\t")[2:]]
    assert [float(row[1]) for row in table("variants.csv")[1:]] == pytest.approx(exact, abs=2e-6)
    assert np.abs(exact).min() > 1e-3
    assert sorted(os.listdir()) == sorted(
        ["family.a3m", "s.fasta", "t.csv", "out.csv", "out.residues.csv", "exact.tsv", "variants.csv"]
    )


def test_whole_sequences_of_a_table(here, model):
    """As ProteinGym's assays of insertions and deletions are, with an unnamed column; measured values beside them."""
    Path("assay.csv").write_text(
        ",mutated_sequence,DMS_score\n0,MKVLWYC,0.5\n1,MKVLAGGWYC,0.1\n2,MKVLAWYC,1\n3,GGGGGGGG,2\n"
    )
    options = ("--variant-column", "mutated_sequence", "--measured-column", "DMS_score", "--skip-mismatches")
    ensemble = ("--protocol", "proteingym", "--rows", 3, "--seeds", "1-2", "--filter-coverage", 0)
    arguments = ("family.a3m", "--sequences", "assay.csv", "-o", "out.csv", "--plot", "p.svg", "--model", model)
    output = run(*arguments, *options, *ensemble).replace("\n", " ")
    rows = table("out.csv")
    added = ["score", "score_std", "score_sum", "score_mean", "score_difference", "score_residues", "score_variant"]
    assert rows[0] == ["", "mutated_sequence", "DMS_score", *added, "reason"]
    expected = score_sequences(
        read_alignment("family.a3m"),
        ["MKVLWYC", "MKVLAGGWYC", "MKVLAWYC"],
        load_model(model, cls=MsaForMaskedLM),
        rows=3,
        select="weighted",
        seed=(1, 2),
        coverage=0,
        identity=90,
    )
    assert [float(row[3]) for row in rows[1:4]] == pytest.approx(expected.score, abs=1e-6)
    assert [float(row[4]) for row in rows[1:4]] == pytest.approx(expected.score_std, abs=1e-6)
    value = spearmanr(expected.score, [0.5, 0.1, 1]).statistic
    assert f"Spearman {value:.4f} (3 variants); 1 sequence has no score: assay.csv, line 5: it does not" in output
    assert Path("p.svg").exists()


def test_whole_sequences_of_several_alignments(here, model):
    made = families.make_folder(here / "in", count=3)
    Path("sequences").mkdir()
    for name, ending in (("f0", "fasta"), ("f2", "fa")):
        query = made[name].query
        Path("sequences", f"{name}.{ending}").write_text(f">a\n{query[:4]}{query[5:]}\n")
    common = ("in", "--sequences", "sequences", "-o", "out", "--per-residue", "--model", model)
    assert "there is no file f1.fasta, .fa, .faa, .csv or .tsv in sequences" in run(*common, ok=False)
    Path("sequences", "f1.csv").write_text(f"mutant\n{made['f1'].query}\n")
    assert "2 of them finished before" in run(*common)
    names = [f"f{k}{ending}" for k in range(3) for ending in (".csv", ".residues.csv")]
    assert sorted(path.name for path in Path("out").glob("f*")) == names


def test_insertions_and_deletions_of_a_table(here, model):
    """Only pseudo-log-likelihood scores them; with the others the line says so."""
    Path("t.csv").write_text("mutant\nK2R\nA5del\np.Leu4_Ala5insGly\n")
    common = ("family.a3m", "t.csv", "-o", "out.csv", "--model", model)
    output = run(*common).replace("\n", " ")
    assert (
        "2 variants have no score, all like t.csv, line 3 (A5del): an insertion, deletion or frameshift; only"
        in output
    )
    assert "--strategy pseudo-log-likelihood scores insertions and deletions too" in output
    assert "3 of 3 variants" in run(*common, "--strategy", "pseudo-log-likelihood")
    assert all(row[1] for row in table("out.csv"))


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("mutant;score\nK2R;1,5\nV3A;0,1\n", ["--measured-column", "score"], "line 2: '1,5' in score .* a point"),
        ("mutant,score\nK2R,high\n", ["--measured-column", "score"], "line 2: 'high' in score is not a number"),
        ("mutant,y\nK2R,1\nK2A,-inf\n", ["--measured-column", "y"], "line 3: '-inf' in y is infinite; write a number"),
        ("mutant,y,y\nK2R,1,2\n", ["--measured-column", "y"], "2 columns are named 'y'; rename all but one"),
        ("mutant,mutant\nK2R,K2A\n", [], "2 columns are named 'mutant'"),
        ("K2R,0.5\nV3A,0.1\n", [], r"line 1 \(K2R, 0.5\) is not a header; add one, such as mutant"),
        ("p.Lys2Arg\nV3A\n", [], "is not a header"),
        ("variant,score\nK2R,0.5\n", [], "the columns are variant, score"),
    ],
)
def test_tables_that_would_be_read_wrongly(text, options, words, here, model):
    Path("t.csv").write_text(text)
    output = run("family.a3m", "t.csv", "-o", "out.csv", "--model", model, *options, ok=False)
    assert re.search(words, output.replace("\n", " "))
    assert not Path("out.csv").exists()


def test_a_scatter_of_measured_values(here, model):
    """For one alignment a file, for several a folder; titles have the correlations that are printed."""
    Path("t.csv").write_text("mutant,DMS\nK2R,1.5\nV3A,\nL4A,2\nA5C,1\n")
    options = ("--measured-column", "DMS", "--model", model)
    output = run("family.a3m", "t.csv", "-o", "out.csv", *options, "--plot", "p.svg")
    spearman = float(re.search(r"Spearman (\S+) \(3 variants\)", output)[1])
    svg = Path("p.svg").read_text()
    assert f"<!-- q, Spearman {spearman:.2f} (3 variants) -->" in svg
    assert "<!-- measured: DMS -->" in svg
    Path("in").mkdir()
    for name in ("a", "b"):
        Path("in", f"{name}.a3m").write_bytes(Path("family.a3m").read_bytes())
    run("in", "t.csv", "-o", "out", *options, "--plot", "pictures")
    assert sorted(os.listdir("pictures")) == ["a.score.png", "b.score.png"]


def test_values_that_were_not_measured_are_left_out(here, model):
    Path("t.csv").write_text("mutant,DMS\nK2R,1.5\nV3A,\nL4A,NA\nA5C,nan\nW6F,0.5\n")
    output = run("family.a3m", "t.csv", "-o", "out.csv", "--model", model, "--measured-column", "DMS")
    assert "(2 variants)" in output
    Path("t.csv").write_text("mutant,DMS\nK2R,1\nV3A,1\n")
    output = run("family.a3m", "t.csv", "-o", "out.csv", "--model", model, "--measured-column", "DMS")
    assert "Spearman not defined (2 variants)" in output


def test_residues_that_are_not_among_the_20_are_named(here, model):
    Path("odd.a3m").write_text(">q\nMKUVXB\n>r\nMRCVAD\n")
    output = run("odd.a3m", "--all-singles", "-o", "out.csv", "--model", model)
    assert "q, 3 residues (not U3, X5, B6: not one of the 20 amino acids), 2 of 2 rows" in output.replace("\n", " ")
    assert len(table("out.csv")) == 1 + 3 * 19


def test_an_alignment_of_one_row_is_said(here, model):
    Path("alone.a3m").write_text(">q\nMKVLAWYC\n")
    Path("t.csv").write_text("mutant\nK2R\n")
    assert "alone.a3m: has a single row" in run("alone.a3m", "t.csv", "-o", "out.csv", "--model", model)
    assert "single row" not in run("family.a3m", "t.csv", "-o", "out2.csv", "--model", model)


def test_mismatches_can_be_kept(here, model):
    Path("t.csv").write_text("mutant\nK2R\nA3I\n")
    output = run("family.a3m", "t.csv", "-o", "out.csv", "--model", model, "--skip-mismatches")
    assert table("out.csv")[2] == ["A3I", "", "residue 3 of the query is V, not A."]
    words = "5 of 5 rows; 1 variant has no score: t.csv, line 3 (A3I): residue 3 of the query is V, not A."
    assert words in output.replace("\n", " ")


def test_why_variants_have_no_score_is_printed(here, model):
    """The most frequent reason, whatever the residue, with the line of its first variant; blank lines count."""
    Path("t.csv").write_text("mutant,x\nK2*,1\n\nK2R,2\nA3I,3\nC4G,3\nL4A,4\n")
    options = ("--model", model, "--skip-mismatches", "--measured-column", "x")
    output = run("family.a3m", "t.csv", "-o", "out.csv", *options).replace("\n", " ")
    assert "2 of 5 variants, 5 of 5 rows, Spearman" in output
    words = "; 3 variants have no score, 2 of them like t.csv, line 5 (A3I): residue 3 of the query is V, not A."
    assert words in output
    Path("t.csv").write_text("mutant\nK2R\np.Lys2del\nNM_000546.6:p.Val3fs\n")
    output = run("family.a3m", "t.csv", "-o", "out.csv", "--model", model).replace("\n", " ")
    assert "2 variants have no score, all like t.csv, line 3 (p.Lys2del): an insertion, deletion or frame" in output
    Path("t.csv").write_text("mutant\nK2R\n")
    assert "no score" not in run("family.a3m", "t.csv", "-o", "out.csv", "--model", model)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "mutant,x\nK2R,1\n\nA3I,2\nA4C,2\n",
            r"t.csv: 2 of 3 variants do not fit the query, such as line 4 \(A3I\)\.",
        ),
        (
            "mutant\nK2*\nK2del\nV3del\n",
            r"t.csv: none of the 3 variants can be scored: 2 like line 3 \(K2del\): an ins",
        ),
        ("mutant\nWT:K2R\n", r"t.csv: line 2 \(WT:K2R\): not a substitution"),
    ],
)
def test_errors_about_variants_name_file_line_and_text(text, words, here, model):
    Path("t.csv").write_text(text)
    assert re.search(words, run("family.a3m", "t.csv", "-o", "out.csv", "--model", model, ok=False).replace("\n", " "))


@real_data
def test_gb1(tmp_path):
    """On the embedded model: every variant has a score, and Spearman is scipy's."""
    source = SHARED / "variants" / "gb1_four_site.csv"
    output = run(
        SHARED / "msa" / "gb1.a2m", source, "-o", tmp_path / "out.csv", "--measured-column", "fitness", "--rows", 32
    )
    rows = table(tmp_path / "out.csv")
    assert [row[:2] for row in rows] == table(source)
    assert not any(row[3] for row in rows[1:])
    value = spearmanr([float(row[1]) for row in rows[1:]], [float(row[2]) for row in rows[1:]]).statistic
    assert f"Spearman {value:.4f} (2,076 variants)" in output
