"""ProteinGym's benchmark: rows as its script draws them, scores by hand, metrics and averages by other libraries."""

import csv
import random
import re
from pathlib import Path

import assays as made
import numpy as np
import pytest
import torch
from families import family, make_model

from modeling_msa import (
    Alignment,
    MsaForMaskedLM,
    MsaTokenizer,
    average_assays,
    load_model,
    read_alignment,
    read_assay,
    read_reference,
    score_assay,
    score_variants,
    select_rows,
)
from modeling_msa.alignments.sampling import redrawn_rows
from modeling_msa.alignments.tables import Table
from modeling_msa.tasks.proteingym import choose_benchmark_rows, write_summary
from modeling_msa.tasks.proteingym_files import PER_ASSAY, SUMMARY, Assay, write_assay

pytestmark = pytest.mark.usefixtures("one_thread")
METRICS = ["Spearman", "NDCG", "AUC", "MCC", "Top_recall"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(make_model(tmp_path_factory.mktemp("model") / "model"), cls=MsaForMaskedLM)


@pytest.fixture
def folder(tmp_path):
    made.make_benchmark(tmp_path)
    return tmp_path


def reference(folder):
    return {each.name: each for each in read_reference(folder / "reference.csv", folder / "msas", folder / "assays")}


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def drawn_by_the_script(names, rows, depth, theta, seed):
    """Names of the rows that ProteinGym's script would draw: filters, weights by definition, Python's random."""
    usual = [k for k, row in enumerate(rows) if k == 0 or (set(row) <= set("ACDEFGHIKLMNPQRSTVWY-"))]
    usual = [k for k in usual if k == 0 or rows[k].count("-") / len(rows[k]) <= 0.5]
    weights = []
    for k in usual:
        same = [sum(a == b != "-" for a, b in zip(rows[k], rows[other], strict=True)) for other in usual]
        length = sum(letter != "-" for letter in rows[k])
        weights.append(1 / sum(count / length >= 1 - theta - 1e-9 for count in same))
    others = np.array(weights[1:]) / np.sum(weights[1:])
    random.seed(seed)
    return [names[0], *random.choices([names[k] for k in usual[1:]], weights=others, k=depth - 1)]


@pytest.mark.parametrize("theta", [0.2, 0.5])
def test_rows_with_replacement_are_those_of_the_script(theta):
    """Also more rows than there are; a row of X, one that is mostly gaps, and one like another."""
    rows = [row.replace("-", "A") for row in family("q", 9, 20, 3).sequences]
    rows += ["X" + rows[4][1:], "-" * 11 + rows[5][11:], "-" * 10 + rows[6][10:], rows[7], rows[7]]
    names = [f"r{k}" for k in range(len(rows))]
    alignment = Alignment.from_sequences(rows, names)
    more = {"coverage": None, "identity": None, "theta": theta}
    for depth in (6, 40):
        chosen = choose_benchmark_rows(alignment, depth, (1, 2, 3), replacement=True, **more)
        wanted = [drawn_by_the_script(names, rows, depth, theta, seed) for seed in (1, 2, 3)]
        assert [list(each.names) for each in chosen] == wanted
        assert [[name for name, _ in each] for each in chosen] == wanted
    assert {"r9", "r10"}.isdisjoint(name for each in chosen for name in each.names)
    assert "r11" in {name for each in chosen for name in each.names}


def test_rows_without_replacement_and_alone():
    rows = family("q", 9, 20, 3).sequences
    alignment = Alignment.from_sequences(rows, [f"r{k}" for k in range(9)])
    more = {"coverage": None, "identity": None, "theta": 0.2}
    few = choose_benchmark_rows(alignment, 5, (1, 2), **more)
    assert [each.names for each in few] == [select_rows(alignment, 5, "weighted", seed).names for seed in (1, 2)]
    assert [each.depth for each in choose_benchmark_rows(alignment, 40, (1, 2), **more)] == [9, 9]
    assert redrawn_rows(np.array([1.0, 0.0]), 5).tolist() == [0]
    assert redrawn_rows(np.array([1.0]), 5).tolist() == redrawn_rows(np.ones(4), 1).tolist() == [0]
    with pytest.raises(ValueError, match="replacement by weight only"):
        choose_benchmark_rows(alignment, 5, (1,), select="random", replacement=True, **more)
    with pytest.raises(ValueError, match="All 2 seeds would choose the same"):
        choose_benchmark_rows(alignment, 5, (1, 2), select="diverse", **more)


def test_theta_of_viral_proteins():
    """Of two rows that differ in one residue of 14, theta 0.01 keeps both weights at 1."""
    base = "MKVLAACDEFGHIK"
    rows = [base, "W" + base[1:], "Y" + base[1:], "CCCCCCCCCCCCCC"]
    alignment = Alignment.from_sequences(rows, ["q", "a", "b", "c"])
    counts = {}
    for theta in (0.01, 0.2):
        chosen = choose_benchmark_rows(
            alignment, 3001, (0,), theta=theta, coverage=None, identity=None, replacement=True
        )[0]
        counts[theta] = chosen.names.count("c") / 3000
    assert counts[0.01] == pytest.approx(1 / 3, abs=0.03)
    assert counts[0.2] == pytest.approx(1 / (1 + 2 / 3), abs=0.03)  # the others are three neighbours, with the query


def test_theta_is_of_the_reference_file_or_of_the_taxon(folder):
    assert {name: each.theta for name, each in reference(folder).items()} == {"one_a": 0.2, "one_b": 0.2, "two": 0.01}
    edit(folder / "reference.csv", "MSA_theta", "other")
    edit(folder / "reference.csv", "ONE,Virus", "ONE,Human")
    assert [each.theta for each in reference(folder).values()] == [0.2, 0.01, 0.01]


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_scores_are_those_of_each_seed(folder, model, mode):
    """Assay `two` is numbered from 4; its rows are those of theta 0.01."""
    assay = reference(folder)["two"]
    table, alignment = read_assay(assay, "x"), read_alignment(assay.alignment, "fasta")
    result = score_assay(assay, alignment, table, model, rows=5, seed=(1, 2), mode=mode)
    kept = select_rows(alignment, 99, "first", coverage=75, identity=90)
    variants = [re.sub(r"\d+", lambda number: str(int(number[0]) - 3), cell) for cell in table.cells("mutant")]
    for seed, scores in zip((1, 2), result.per_seed, strict=True):
        seen = select_rows(kept, 5, "weighted", seed, theta=0.01)
        assert np.allclose(scores, score_variants(seen, variants, model, mode=mode).score, atol=1e-12)
    assert not np.allclose(*result.per_seed)
    assert np.allclose(result.score, result.per_seed.mean(axis=0))
    assert result.depth == 5
    assert result.reason == ("",) * len(variants)


def test_frequencies_are_those_of_the_whole_alignment(folder, model, monkeypatch):
    """As of score_variants, of which 0 and 1 are the model and the frequencies alone."""
    assay = reference(folder)["two"]
    table, alignment = read_assay(assay, "x"), read_alignment(assay.alignment, "fasta")
    options = {"rows": 5, "seed": (1, 2)}
    alone = score_assay(assay, alignment, table, model, **options)
    profile = score_variants(alignment, table.cells("mutant"), model, offset=3, rows=5, profile_weight=1).score
    monkeypatch.setattr(model.config, "profile_weight", 0.25)
    mixed = score_assay(assay, alignment, table, model, **options)
    assert (alone.profile_weight, mixed.profile_weight) == (0, 0.25)
    assert np.allclose(mixed.per_seed, 0.75 * alone.per_seed + 0.25 * profile)
    assert np.allclose(mixed.score_std, 0.75 * alone.score_std)


def test_a_long_protein_is_read_in_a_window_around_the_mutation(model):
    """Of 100 residues the model reads 63: those around residue 50, the first ones, the last ones."""
    alignment = family("long", 4, 100, 0)
    query = alignment.query
    names = [f"{query[k]}{k + 11}{'A' if query[k] != 'A' else 'W'}" for k in (49, 2, 98)]
    assay = made_assay("MMMMMMMMMM" + query, 11, 110)
    table = made_table(names)
    got = score_assay(assay, alignment, table, model, rows=4, seed=(1,), coverage=None, identity=None).score
    seen = choose_benchmark_rows(alignment, 4, (1,), theta=0.2, coverage=None, identity=None)[0]
    tokenizer = MsaTokenizer()
    for k, first, score in zip((49, 2, 98), (18, 0, 37), got, strict=True):
        ids = tokenizer([[row[first : first + 63] for row in seen.sequences]], return_tensors="pt")["input_ids"]
        mutant, wild = (
            tokenizer("A" if query[k] != "A" else "W")["input_ids"][0][0][1],
            ids[0, 0, 1 + k - first].item(),
        )
        ids[0, 0, 1 + k - first] = tokenizer.mask_token_id
        with torch.no_grad():
            logs = model.eval()(ids).logits[0, 0, 1 + k - first].double().log_softmax(-1)
        assert score == pytest.approx((logs[mutant] - logs[wild]).item(), abs=1e-5)


def made_assay(target, start, end, **more):
    fields = {
        "name": "a",
        "protein": "P",
        "function": "Activity",
        "theta": 0.2,
        "cutoff": None,
        "where": "r.csv: line 2",
    }
    fields |= {"table": Path("a.csv"), "alignment": Path("a.a2m"), **more}
    return Assay(target=target, start=start, end=end, **fields)


def made_table(mutants):
    return Table(["mutant", "DMS_score"], [[each, "0"] for each in mutants], list(range(2, 2 + len(mutants))))


def test_averages_by_hand():
    """Within protein and function, then function, then all; NaN left out."""
    values = [0.1, 0.3, 0.6, 0.5, np.nan, 0.9, 0.1]
    kinds = [("P", "A"), ("P", "A"), ("Q", "A"), ("P", "B"), ("R", "B"), ("R", "C"), ("S", "B")]
    listed = [made_assay("M", 1, 1, protein=protein, function=function) for protein, function in kinds]
    average = average_assays(values, listed)
    assert average.functions == pytest.approx({"A": 0.4, "B": 0.3, "C": 0.9})
    assert average.value == pytest.approx(1.6 / 3)
    assert average.assays == 6
    assert np.isnan(average.standard_error)  # C has one protein
    average = average_assays(values[:5] + values[6:], listed[:5] + listed[6:])
    assert average.value == pytest.approx(0.35)
    # means of two draws out of 0.2 and 0.6, and out of 0.1 and 0.5, halved
    assert average.standard_error == pytest.approx(np.sqrt(0.2**2 / 2 + 0.2**2 / 2) / 2, rel=0.03)
    assert np.isnan(average_assays([np.nan], listed[:1]).value)


def test_the_summary_by_other_libraries(folder):
    """Scores with ties against SciPy, scikit-learn and ProteinGym's definitions, written out."""
    from scipy.stats import spearmanr
    from sklearn.metrics import matthews_corrcoef, roc_auc_score

    rng, listed = np.random.default_rng(3), list(reference(folder).values())
    for assay in listed:
        table = read_assay(assay, "m")
        scores = rng.normal(size=(2, len(table.rows)))
        scores[:, :6] = scores[:, 6:7]
        write_assay(table, scores, (1, 2), "m", folder / f"{assay.name}.csv")
    write_summary(listed, folder, (1, 2), "m")
    by_assay = {(row["DMS_id"], row["Model_name"]): row for row in rows_of(folder / PER_ASSAY)}
    assert len(by_assay) == 9
    for (name, column), row in by_assay.items():
        found = rows_of(folder / f"{name}.csv")
        y, s, fit = (np.array([float(each[key]) for each in found]) for key in ("DMS_score", column, "DMS_score_bin"))
        top = y > np.percentile(y, 90)
        wanted = {
            "Spearman": spearmanr(y, s)[0],
            "AUC": roc_auc_score(fit, s),
            "MCC": matthews_corrcoef(fit, s >= np.median(s)),
            "Top_recall": (top & (s > np.percentile(s, 90))).sum() / top.sum(),
        }
        assert {key: float(row[key]) for key in wanted} == pytest.approx(wanted, abs=5e-5)
    summary = {(row["Model_name"], row["Metric"]): row for row in rows_of(folder / SUMMARY)}
    assert len(summary) == 3 * len(METRICS)
    for (column, metric), row in summary.items():
        a, b, c = (float(by_assay[name, column][metric]) for name in ("one_a", "one_b", "two"))
        assert float(row["Function_Activity"]) == pytest.approx((a + c) / 2, abs=1e-4)
        assert float(row["Function_Binding"]) == pytest.approx(b, abs=1e-4)
        assert float(row["Average"]) == pytest.approx(((a + c) / 2 + b) / 2, abs=1.5e-4)
        assert row["Number_of_assays"] == "3"


def test_fitness_is_told_by_the_cutoff_without_a_column(folder):
    path = folder / "assays" / "two.csv"
    path.write_text("mutant,DMS_score\nK4A,0.1\nK4W,0.1001\nK4Y,-3\n")
    assert read_assay(reference(folder)["two"], "m").cells("DMS_score_bin") == ["0", "1", "0"]
    edit(folder / "reference.csv", "LL,19,0.1", "LL,19,")
    with pytest.raises(
        ValueError, match=r"no column DMS_score_bin, and DMS_binarization_cutoff is empty \(.*line 4\)"
    ):
        read_assay(reference(folder)["two"], "m")


REFERENCE = {  # what is replaced in the reference file, by what, and what is said
    "column": ("target_seq", "sequence", "there is no column target_seq; the columns are DMS_id,"),
    "theta": ("MSA_theta", "x", None),
    "alignment": (",one.a2m", ",none.a2m", r"line 2 \(one_a\): alignment .*none.a2m. Remove these rows"),
    "assay": (
        "two.csv",
        "three.csv",
        r"1 file of the reference file do not exist: .*line 4 \(two\): assay .*three.csv",
    ),
    "empty": (",one.a2m", ",", "line 2: MSA_filename is empty"),
    "length": (",19,", ",18,", r"line 4 \(two\): seq_len is 18, but target_seq has 19 residues"),
    "end": (",4,17,", ",4,20,", r"line 4 \(two\): MSA_start 4 and MSA_end 20 are not residues of target_seq, 1 to 19"),
    "start": (",4,17,", ",x,17,", r"line 4 \(two\): 'x' in MSA_start is not a number"),
    "half": (",4,17,", ",4.5,17,", "MSA_start 4.5"),
    "big theta": ("0.01", "1.5", r"line 4 \(two\): MSA_theta is 1.5"),
    "twice": ("one_b,", "one_a,", "line 3: the same DMS_id as in line 2"),
    "file twice": ("one_b.csv", "one_a.csv", "line 3: the same DMS_filename as in line 2"),
    "name": ("one_b,", "../b,", "line 3: the DMS_id '../b' cannot be the name of a file"),
    "own name": ("one_b,", "proteingym_summary,", "cannot be the name of a file"),
    "letters": ("MKV", "MK1", r"line 4 \(two\): target_seq is not a sequence"),
}


@pytest.mark.parametrize("case", REFERENCE)
def test_what_is_wrong_in_the_reference_file(folder, case):
    old, new, words = REFERENCE[case]
    if words is None:
        edit(folder / "reference.csv", "taxon", "y")
        words = r"there is no column MSA_theta \(or taxon\)"
    edit(folder / "reference.csv", old, new)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        reference(folder)


ASSAY = {
    "column": ("mutant,", "variant,", "two.csv: there is no column mutant; the columns are variant"),
    "number": (",0\n", ",maybe\n", "two.csv: line .*'maybe' in DMS_score_bin is neither 0 nor 1"),
    "taken": ("mutated_sequence", "m_seed1", "there is a column m_seed1 already; pass another name with --score-col"),
}


@pytest.mark.parametrize("case", ASSAY)
def test_what_is_wrong_in_an_assay(folder, case):
    old, new, words = ASSAY[case]
    edit(folder / "assays" / "two.csv", old, new)
    with pytest.raises(ValueError, match=words):
        read_assay(reference(folder)["two"], "m")


@pytest.mark.parametrize("cell", ["", "nan", "inf", "high"])
def test_measured_values_are_numbers(folder, cell):
    path = folder / "assays" / "two.csv"
    lines = path.read_text().splitlines()
    lines[4] = ",".join([*lines[4].split(",")[:2], cell, "1"])
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=f"line 5: '{cell}' in DMS_score is not a number"):
        read_assay(reference(folder)["two"], "m")
    lines[4] = lines[3]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"line 5: .* is in line 4 already"):
        read_assay(reference(folder)["two"], "m")


def test_a_query_that_is_not_the_target(folder, model):
    assay = reference(folder)["two"]
    table, alignment = read_assay(assay, "m"), read_alignment(assay.alignment, "fasta")
    other = "W" if assay.target[8] != "W" else "A"
    for changed, words in (
        (
            {"target": assay.target[:8] + other + assay.target[9:]},
            f"has {assay.target[8]} at residue 9, the target {other}",
        ),
        ({"start": 5}, "has 14 residues, not 13"),
        ({"start": 5, "end": 18}, "at residue 5, the target"),
    ):
        wrong = Assay(**{**vars(assay), **changed})
        with pytest.raises(ValueError, match=f"two.a2m: the query is not residues .*line 4.*{words}"):
            score_assay(wrong, alignment, table, model)


@pytest.mark.parametrize(
    ("mutant", "words"),
    [
        ("{wrong}4A", r"two.csv: 1 of 3 variants do not fit the query, such as line 4 \(.4A\)"),
        (
            "L18A",
            r"two.csv: 1 variant cannot be scored: line 4 \(L18A\): there is no residue 18; the query has 4 to 17",
        ),
        ("{right}4*", r"two.csv: 1 variant cannot be scored: line 4 \(.4\*\): a stop"),
        ("{right}4del", r"line 4 \(.4del\): an insertion, deletion"),
        ("", r"line 4 \(''\): empty"),
    ],
)
def test_a_variant_that_does_not_fit(folder, model, mutant, words):
    assay = reference(folder)["two"]
    letter = assay.target[3]
    mutant = mutant.format(wrong="W" if letter != "W" else "A", right=letter)
    others = [each for each in "AWY" if each != letter][:2]
    table = made_table([*(f"{letter}4{each}" for each in others), mutant])
    with pytest.raises(ValueError, match=words):
        score_assay(assay, read_alignment(assay.alignment, "fasta"), table, model)
