"""``msa proteingym``: one table of scores per assay and a summary, resumed, by several processes, on real assays."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import assays
import numpy as np
import pytest
from families import make_model
from made_up import LAUNCH, SHARED, real_data
from scipy.stats import spearmanr
from sklearn.metrics import matthews_corrcoef, roc_auc_score
from typer.testing import CliRunner

from modeling_msa import MsaForMaskedLM, load_model, read_alignment, score_variants, select_rows, write_alignment
from modeling_msa.cli import app

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
OPTIONS = "--rows 5 --seeds 1,2 --model model"
FILES = {"one_a.csv", "one_b.csv", "two.csv", "proteingym_assays.csv", "proteingym_summary.csv"}


def msa(arguments, code=0):
    result = CliRunner().invoke(app, f"proteingym {arguments}".split())
    assert result.exit_code == code, (result.output, result.exception)
    return " ".join(result.output.split())


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def files(folder="out"):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    assays.make_benchmark(folder)
    make_model(folder / "model")
    return folder


@pytest.fixture
def folder(start, tmp_path, monkeypatch):
    shutil.copytree(start, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_files_and_columns(folder):
    """The assay's own columns, one per seed, and their mean; what was printed is the ensemble's average."""
    shown = msa(f"{assays.ARGUMENTS} {OPTIONS}")
    assert set(files()) == FILES
    assert "out/two.csv: 43 variants, 5 of 12 rows, theta 0.01" in shown
    for name in assays.ASSAYS:
        before, after = rows_of(f"assays/{name}.csv"), rows_of(f"out/{name}.csv")
        added = [f"MSA_Transformer_{each}" for each in ("seed1", "seed2", "ensemble")]
        assert list(after[0]) == [*before[0], *added]
        assert [{key: row[key] for key in before[0]} for row in after] == before
        values = np.array([[float(row[key]) for key in added] for row in after])
        assert np.allclose(values[:, :2].mean(axis=1), values[:, 2], atol=1e-6)
    average = next(row for row in rows_of("out/proteingym_summary.csv") if row["Model_name"] == added[2])
    assert f"3 of 3 assays: Spearman {float(average['Average']):.3f}, NDCG" in shown
    msa(f"{assays.ARGUMENTS} {OPTIONS} --score-column esm --overwrite")
    assert "esm_ensemble" in rows_of("out/two.csv")[0]


def test_replacement_and_mode_change_the_scores(folder):
    msa(f"{assays.ARGUMENTS} {OPTIONS}")
    exact = files()
    assert "replacement was False, is now True" in msa(f"{assays.ARGUMENTS} {OPTIONS} --replacement")
    again = files()
    assert "mode was exact, is now fast" in msa(f"{assays.ARGUMENTS} {OPTIONS} --mode fast")
    assert len({each["two.csv"] for each in (exact, again, files())}) == 3


def test_an_assay_that_fails_and_the_next_run(folder):
    """The others and their summary are there; the next run makes the one that is left."""
    good = Path("assays/two.csv").read_text()
    Path("assays/two.csv").write_text(good.replace("mutant", "variant"))
    shown = msa(f"{assays.ARGUMENTS} {OPTIONS}", code=1)
    assert "1 of 3 assays failed, the others are finished" in shown
    assert "two.csv: there is no column mutant" in shown
    assert "2 of 3 assays: Spearman" in shown
    assert {row["DMS_id"] for row in rows_of("out/proteingym_assays.csv")} == {"one_a", "one_b"}
    made = Path("out/one_a.csv").stat().st_mtime_ns
    Path("assays/two.csv").write_text(good)
    assert "3 assays, 2 of them finished before" in msa(f"{assays.ARGUMENTS} {OPTIONS}")
    assert Path("out/one_a.csv").stat().st_mtime_ns == made
    assert set(files()) == FILES
    Path("out").rename("resumed")
    msa(f"{assays.ARGUMENTS} {OPTIONS}")
    assert files("resumed") == files()
    Path("assays/two.csv").write_text(good.replace("mutant", "variant"))
    msa(f"{assays.ARGUMENTS} {OPTIONS} --strict", code=1)
    assert "proteingym_summary.csv" not in files()  # it would be of scores that are not there


def test_what_is_made_again(folder):
    """Assays that share an alignment; one whose theta changed; for another function only the summary."""
    msa(f"{assays.ARGUMENTS} {OPTIONS}")
    path = Path("msas/one.a2m")
    path.write_text(path.read_text().rstrip()[:-1] + "C\n")
    assert "made again, because the alignment has changed: one_a, one_b" in msa(f"{assays.ARGUMENTS} {OPTIONS}")
    reference = Path("reference.csv")
    reference.write_text(reference.read_text().replace("0.01", "0.1"))
    assert "made again, because theta was 0.01, is now 0.1: two" in msa(f"{assays.ARGUMENTS} {OPTIONS}")
    before = files()
    reference.write_text(reference.read_text().replace("Binding", "Activity"))
    assert "made again" not in msa(f"{assays.ARGUMENTS} {OPTIONS}")
    changed = {name for name, content in files().items() if before[name] != content}
    assert changed == {"proteingym_assays.csv", "proteingym_summary.csv"}
    assert "Function_Binding" not in rows_of("out/proteingym_summary.csv")[0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("-o out", "-o out.csv", "out.csv looks like a file, but there is one file per assay"),
        ("-o out", "-o assays", "assays has input files that would be replaced"),
        ("-o out", "-o nowhere/out", "nowhere"),
        ("--msas msas", "--msas none", "none: no such file or folder"),
        ("reference.csv", "none.csv", "none.csv: no such file"),
        ("--seeds 1,2", "--seeds 1,1", "--seeds 1,1: a seed is there twice"),
        ("--seeds 1,2", "--seeds one", "--seeds: 'one' is not a number or a range"),
        ("--rows 5", "--select diverse", "All 2 seeds would choose the same rows"),
        ("--rows 5", "--select random --replacement", "with replacement by weight only"),
        ("--model model", "--model assays", "config.json"),
    ],
)
def test_bad_options(folder, old, new, words):
    shown = msa(f"{assays.ARGUMENTS} {OPTIONS}".replace(old, new), code=1)
    assert words in shown
    assert not Path("out").exists() or files() == {}


def test_two_processes_leave_the_files_of_one(folder):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    arguments = ["proteingym", *f"{assays.ARGUMENTS} {OPTIONS}".split()]
    result = subprocess.run(
        [sys.executable, *LAUNCH, "-m", "modeling_msa.cli", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("rows, theta") == 3
    assert result.stdout.count("3 of 3 assays: Spearman") == 1
    Path("out").rename("two")
    msa(f"{assays.ARGUMENTS} {OPTIONS}")
    assert files("two") == files()


@real_data
def test_two_real_assays(tmp_path, monkeypatch):
    """TEM-1 (residues 24 to 286, lower case in the query) and GB1, cut to 40 variants and 60 rows; two reference rows.

    Scores as by the functions, metrics by SciPy and scikit-learn, averages written out.
    """
    monkeypatch.chdir(tmp_path)
    model = load_model(make_model(tmp_path / "model"), cls=MsaForMaskedLM)
    for name in ("msas", "assays"):
        Path(name).mkdir()
    sources = {
        "BLAT_ECOLX": (SHARED / "fitness" / "blat_ecolx.a2m", SHARED / "fitness" / "blat_ecolx_singles.csv", 24),
        "GB1": (SHARED / "msa" / "gb1.a2m", SHARED / "variants" / "gb1_four_site.csv", 1),
    }
    lines = [assays.COLUMNS]
    for name, (source, table, start) in sources.items():
        alignment = read_alignment(source, "fasta")
        write_alignment(alignment.take(range(60)), f"msas/{name}.a2m", "fasta")
        cells = [[float(each) if "." in each else each for each in row.values()] for row in rows_of(table)]
        cells = [row for row in cells if row[1] == row[1]]
        text = "".join(f"{mutant},{value}\n" for mutant, value in cells[:: len(cells) // 40][:40])
        Path(f"assays/{name}.csv").write_text("mutant,DMS_score\n" + text)
        target = "M" * (start - 1) + alignment.query
        more = (
            f"{len(target)},-0.5,{name}.a2m,{start},{len(target)},0.2" if start > 1 else f"56,0.1,{name}.a2m,1,56,0.2"
        )
        lines.append(f"{name},{name}.csv,{name},Prokaryote,{target},{more},{'Stability' * (start == 1) or 'Activity'}")
    Path("reference.csv").write_text("\n".join(lines) + "\n")
    msa(f"{assays.ARGUMENTS} --model model --rows 6 --seeds 3 --mode fast")
    found = {}
    for name, (_, _, start) in sources.items():
        alignment = select_rows(read_alignment(f"msas/{name}.a2m", "fasta"), 99, "first", coverage=75, identity=90)
        rows = rows_of(f"out/{name}.csv")
        seen = select_rows(alignment, 6, "weighted", 3)
        direct = score_variants(seen, [row["mutant"] for row in rows], model, mode="fast", offset=start - 1)
        score, measured, fit = (
            np.array([float(row[key]) for row in rows])
            for key in ("MSA_Transformer_ensemble", "DMS_score", "DMS_score_bin")
        )
        assert np.allclose(score, direct.score, atol=1e-6)
        assert (fit == (measured > (-0.5 if start > 1 else 0.1))).all()
        assert 0 < fit.mean() < 1
        found[name] = {
            "Spearman": spearmanr(score, measured)[0],
            "AUC": roc_auc_score(fit, score),
            "MCC": matthews_corrcoef(fit, score >= np.median(score)),
        }
    summary = {(row["Model_name"], row["Metric"]): row for row in rows_of("out/proteingym_summary.csv")}
    for metric in found["GB1"]:
        row = summary["MSA_Transformer_ensemble", metric]
        a, b = found["BLAT_ECOLX"][metric], found["GB1"][metric]
        assert float(row["Function_Activity"]) == pytest.approx(a, abs=1e-4)
        assert float(row["Average"]) == pytest.approx((a + b) / 2, abs=1e-4)
        assert row["Bootstrap_standard_error"] == ""  # one protein for each function
