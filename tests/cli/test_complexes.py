"""Each command that reads an alignment takes the chains of a complex, or says that it does not."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from families import make_model
from straight_chains import chain_of, write
from typer.main import get_command
from typer.testing import CliRunner

from modeling_msa import (
    MsaForSequenceClassification,
    MsaForTokenClassification,
    bundled_family,
    read_alignment,
    write_alignment,
)
from modeling_msa.cli import app

pytestmark = pytest.mark.usefixtures("one_thread")
COMMANDS = get_command(app).commands
# what each command makes of a family, and the file to look at
TAKES = {
    "contacts": "contacts FAMILY -o out.tsv --rows 4",
    "jacobian": "jacobian FAMILY -o out.tsv --rows 4 --pairs 3",
    "profile": "profile FAMILY -o out.tsv --rows 4 --mode fast",
    "score": "score FAMILY -o out.csv --rows 4 --all-singles --strategy wt-marginals",
    "embed": "embed FAMILY -o out.npz --rows 4",
    "generate": "generate FAMILY -o out.a3m --rows 4 --iterations 1",
    "report": "report FAMILY -o out.html --rows 4 --baseline mi",
    "info": "info FAMILY -o out.json --rows 4",
    "predict": "predict HEAD FAMILY -o out.tsv --rows 4",
    "distances": "distances FAMILY -o out.phy --rows 12",
    "fit-distances": "fit-distances FAMILY -o out.json --rows 12",
    "fit-fitness": "fit-fitness FAMILY TABLE -o out.safetensors --rows 4 --features one-hot --folds none",
}
REFUSES = {
    "evaluate-contacts": "evaluate-contacts LIST -o out.tsv",
    "fit-contacts": "fit-contacts LIST -o out",
    "pair": "pair FAMILY partner.fasta -o out.a3m --method species",
    "proteingym": "proteingym REFERENCE --msas . --assays . -o out --seeds 1 --mode fast",
}
SIDE_BY_SIDE = {"pack", "train"}  # as one protein, which their help says
READS_NONE = {"search", "export", "push", "convert"}  # no alignment
LENGTHS = "38,42"


def msa(*arguments, code=0):
    """Run a command, with the smallest model unless another is named."""
    if arguments[0] in ("contacts", "score", "embed", "generate") and "--model" not in arguments:
        arguments = (*arguments, "--model", "msa-tiny")
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Files of the commands above: a family without chains, and the same with ColabFold's header."""
    monkeypatch.chdir(tmp_path)
    family = read_alignment(bundled_family()).drop_query_gaps().take(range(12))
    write_alignment(family, "one.fasta")
    write_alignment(family.take([0, *range(11, 0, -1)]), "partner.fasta")
    (tmp_path / "two.a3m").write_text("#38,42\t1,1\n" + (tmp_path / "one.fasta").read_text())
    return family


def run(command, family, *more, code=0):
    words = {"FAMILY": family, "LIST": "list.tsv", "TABLE": "table.csv", "REFERENCE": "reference.csv"}
    if "HEAD" in command:
        words["HEAD"] = Path("head")
        if not words["HEAD"].exists():
            make_model(_fresh("head"), MsaForTokenClassification, max_position_embeddings=512)
    model = [] if command.startswith(("info", "predict")) else ["--model", "msa-tiny"]
    return msa(*(words.get(word, word) for word in command.split()), *model, *more, code=code)


def _fresh(name):
    Path(name).mkdir(exist_ok=True)
    return Path(name)


def by_chain(number):
    return f"A:{number}" if number <= 38 else f"B:{number - 38}"


def test_every_command_is_here():
    found = {name for name, each in COMMANDS.items() if "chains" in {parameter.name for parameter in each.params}}
    assert found == set(TAKES)
    assert set(COMMANDS) == {*TAKES, *REFUSES, *SIDE_BY_SIDE, *READS_NONE}
    for name in REFUSES:
        assert "omplexes are not read" in " ".join(COMMANDS[name].help.split())
    for name in SIDE_BY_SIDE:
        assert "chains of a complex side by side" in msa(name, "--help").replace("│ ", "")


@pytest.mark.parametrize("name", TAKES)
def test_chains_of_the_file_and_of_the_option(name, places, tmp_path):
    """Both give the same files; numbers are by chain; wrong lengths are refused before anything is written."""
    query = places.query
    lines = [f"{by_chain(k)[0]}:{query[k - 1]}{by_chain(k)[2:]}W,{k % 7}\n" for k in range(30, 60)]
    (tmp_path / "table.csv").write_text("mutant,value\n" + "".join(lines))
    run(TAKES[name], "two.a3m")
    out = tmp_path / TAKES[name].split()[TAKES[name].split().index("-o") + 1]
    found = _content(out)
    run(TAKES[name], "one.fasta", "--chains", LENGTHS)
    assert _content(out) == found
    if name in ("contacts", "jacobian", "profile", "score", "predict", "report", "info"):
        assert {"A:", "B:"} <= set(re.findall(r"\b[AB]:", out.read_text()))
    if name == "embed":
        assert {key.rpartition("/")[2] for key in found} >= {"A", "B"}
    if name == "generate":
        assert out.read_text().startswith(("#38,42", "#chains A:"))
    if name == "fit-fitness":  # what was learned of a complex is applied to it
        msa("score", "two.a3m", "--all-singles", "-o", "singles.csv", "--fitness", out)
        names = [line.split(",")[0] for line in (tmp_path / "singles.csv").read_text().splitlines()]
        assert names[1:2] + names[-1:] == [f"A:{query[0]}1{'C' if query[0] == 'A' else 'A'}", f"B:{query[-1]}42Y"]
    before = [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert "chains of 38 and 43 residues have 81 together, but the query has 80" in run(
        TAKES[name], "one.fasta", "--chains", "38,43", code=1
    )
    assert "the file announces the chains A:38,B:42, not A:42,B:38" in run(
        TAKES[name], "two.a3m", "--chains", "42,38", code=1
    )
    assert "'forty' is not a length of a chain" in run(TAKES[name], "one.fasta", "--chains", "forty,42", code=1)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == before
    assert _content(out) == found


def _content(path):
    if path.suffix in (".html", ".json"):  # they name the file, and the options of commands
        text = re.sub(r"<code>.*?</code>|<th scope=.row.>SHA-256.*", "", path.read_text(), flags=re.DOTALL)
        return text.replace("two.a3m", "one.fasta").replace('"two"', '"one"')
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {key.replace("two", "one"): arrays[key].tobytes() for key in arrays if key != "__metadata__"}
    if path.suffix == ".safetensors":
        described = json.loads(path.with_suffix(".json").read_text())
        return [described["query"], len(path.read_bytes())]
    return path.read_bytes()


@pytest.mark.parametrize("name", REFUSES)
def test_complexes_are_refused(name, places, tmp_path):
    np.save(tmp_path / "known.npy", np.zeros((80, 80), dtype=np.int8))
    (tmp_path / "list.tsv").write_text("two.a3m\tknown.npy\n")
    (tmp_path / "assay.csv").write_text(f"mutant,mutated_sequence,DMS_score,DMS_score_bin\n{places.query[0]}1W,,1,1\n")
    (tmp_path / "reference.csv").write_text(
        "DMS_id,DMS_filename,target_seq,MSA_filename,MSA_start,MSA_end,MSA_theta,DMS_binarization_cutoff,"
        "UniProt_ID,coarse_selection_type\n"
        f"a,assay.csv,{places.query},two.a3m,1,80,0.2,0,X,Activity\n"
    )
    output = run(REFUSES[name], "two.a3m", code=1)
    assert "is for one protein, but this is a complex of A:38,B:42" in output


def test_a_chain_of_no_structure_is_refused(places):
    """--chain is taken for --chains."""
    words = msa("contacts", "one.fasta", "-o", "c.tsv", "--chain", "38,42", code=1)
    assert "pass --structure too. Lengths of the alignment's chains are passed with --chains." in words
    np.save("known.npy", np.zeros((80, 80), dtype=int))
    words = msa("contacts", "one.fasta", "-o", "c.tsv", "--structure", "known.npy", "--chain", "A", code=1)
    assert "--chain names a chain of a structure, but known.npy has only contact maps." in words


def test_a_table_of_chains(places, tmp_path):
    (tmp_path / "chains.tsv").write_text("# comment\none\tH:38,L:42\n")
    msa("contacts", "one.fasta", "-o", "a.tsv", "--rows", 4, "--chains", "chains.tsv")
    assert "\tL:" in (tmp_path / "a.tsv").read_text()
    (tmp_path / "chains.tsv").write_text("one.fasta\tH:38,L:42\n")
    msa("contacts", "one.fasta", "-o", "b.tsv", "--rows", 4, "--chains", "chains.tsv")
    assert (tmp_path / "b.tsv").read_text() == (tmp_path / "a.tsv").read_text()
    (tmp_path / "chains.tsv").write_text("other\tH:38,L:42\n")
    for command in ("contacts", "info", "fit-distances"):
        output = msa(command, "one.fasta", "-o", "c.json", "--chains", "chains.tsv", code=1)
        assert "chains.tsv: the table of chains has no alignment named one" in output
    msa("info", "one.fasta", "two.a3m", "-o", "c.tsv", "--chains", "chains.tsv", code=1)
    (tmp_path / "chains.tsv").write_text("two\tH:38,L:42\n")  # one may be one protein
    msa("info", "one.fasta", "two.a3m", "-o", "c.tsv", "--chains", "chains.tsv")
    (tmp_path / "chains.tsv").write_text("one 38,42\n")
    assert "chains.tsv, line 1: write the name of each alignment once" in msa(
        "contacts", "one.fasta", "-o", "c.tsv", "--chains", "chains.tsv", code=1
    )


def test_results_are_made_again_with_other_chains(places, tmp_path):
    (tmp_path / "families").mkdir()
    (tmp_path / "one.fasta").rename(tmp_path / "families" / "one.fasta")
    arguments = ["contacts", "families", "-o", "out", "--rows", 4]
    msa(*arguments, "--chains", "38,42")
    assert "1 of them finished before" in msa(*arguments, "--chains", "38,42")
    assert "made again" in msa(*arguments, "--chains", "42,38")
    assert "B:38" in (tmp_path / "out" / "one.tsv").read_text()
    assert "made again" in msa(*arguments)
    assert ":" not in (tmp_path / "out" / "one.tsv").read_text()


def test_contacts_between_chains(places, tmp_path):
    """The toy structure has the query's halves side by side; what is printed is what the table of precisions says."""
    query = places.query
    lines = [*chain_of(query[:38], chain="X"), "TER", *chain_of(query[38:], chain="Y", y=6.0)]
    write(tmp_path / "two.pdb", *lines)
    output = msa(
        *["contacts", "two.a3m", "-o", "c.tsv", "--rows", 4, "--between-chains", "--structure", "two.pdb"],
        *["--plot", "c.png"],
    )
    assert "chains of the alignment and the structure: A:X,B:Y" in output
    assert re.search(r"medium 12-23 \S+ \S+ \S+ \S+ \S+ long >=24 ", output)
    assert "999" not in output + (tmp_path / "c.precision.tsv").read_text()
    pairs = [line.split("\t")[:2] for line in (tmp_path / "c.tsv").read_text().splitlines()[1:]]
    assert len(pairs) == 38 * 42
    right = [abs(int(i[2:]) - int(j[2:])) <= 1 for i, j in pairs[:10]]
    rows = [line.split("\t") for line in (tmp_path / "c.precision.tsv").read_text().splitlines()]
    assert rows[5][0] == "between"
    assert float(rows[5][5]) == pytest.approx(sum(right) / 10)
    assert (tmp_path / "c.png").stat().st_size > 10_000
    for option in (["--between-chains"], ["--chain-gap", "5"]):
        words = f"{option[0]} requires the chains of a complex"
        assert words in msa("contacts", "one.fasta", "-o", "d.tsv", *option, code=1)
    msa("contacts", "two.a3m", "-o", "e.tsv", "--rows", 4, "--chain-gap", 50)
    assert (tmp_path / "e.tsv").read_text() != (tmp_path / "c.tsv").read_text()


def test_variants_of_a_complex(places, tmp_path):
    query = places.query
    (tmp_path / "v.csv").write_text(f"mutant\nA:{query[0]}1W\nB:{query[43]}6W\nA:{query[0]}1W:B:{query[43]}6W\n")
    make_model(_fresh("fitness"), MsaForSequenceClassification, max_position_embeddings=512, num_labels=1)
    msa("score", "two.a3m", "v.csv", "-o", "s.csv", "--rows", 4, "--strategy", "wt-marginals")
    scores = [float(line.split(",")[1]) for line in (tmp_path / "s.csv").read_text().splitlines()[1:]]
    assert scores[2] == pytest.approx(scores[0] + scores[1], abs=2e-6)
    msa("embed", "two.a3m", "-o", "e.npz", "--rows", 4, "--variants", "v.csv")
    msa("predict", "fitness", "two.a3m", "-o", "p.csv", "--rows", 4, "--variants", "v.csv")
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 4
    (tmp_path / "v.csv").write_text(f"mutant\n{query[0]}1W\n")
    assert f"'{query[0]}1W' has no chain; in a complex a substitution is written like A:A42V" in msa(
        "score", "two.a3m", "v.csv", "-o", "s.csv", code=1
    )


def test_generation_of_one_chain(places, tmp_path):
    msa(
        "generate", "two.a3m", "-o", "g.a3m", "--rows", 4, "--iterations", 2, "--chain", "B", "--mask-probability", 0.5
    )
    made = read_alignment(tmp_path / "g.a3m")
    natural = {row[:38] for row in places.sequences}
    assert {row[:38] for row in made.sequences} <= natural
    assert [each.name for each in made.chains] == ["A", "B"]
    assert "there is no chain 'C'; the chains are A, B" in msa(
        "generate", "two.a3m", "-o", "h.a3m", "--chain", "C", code=1
    )
    assert "--chain requires the chains of a complex" in msa(
        "generate", "one.fasta", "-o", "h.a3m", "--chain", "B", code=1
    )
    assert "cannot be used together" in msa(
        "generate", "two.a3m", "-o", "h.a3m", "--chain", "B", "--only-residues", "A:3", code=1
    )
    assert not (tmp_path / "h.a3m").exists()
