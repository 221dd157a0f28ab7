"""The command ``msa report``: its page, and that the commands on it give its numbers."""

import csv
import html
import json
import re
import shlex

import numpy as np
import pytest
import torch
from families import family, make_folder, make_model
from straight_chains import chain_of, write
from typer.testing import CliRunner

from modeling_msa import write_alignment
from modeling_msa.cli import app, report

pytestmark = pytest.mark.usefixtures("one_thread")


def msa(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A family and its contacts, with names that a shell would take apart."""
    monkeypatch.chdir(tmp_path)
    write_alignment(family("f", 12, 30, seed=1), tmp_path / "a family's $HOME.a3m")
    known = np.zeros((30, 30), dtype=np.int8)
    known[2, 12] = known[12, 2] = known[5, 29] = known[29, 5] = 1
    np.save(tmp_path / "known contacts.npy", known)
    make_model(tmp_path / "a model")
    return tmp_path


def commands(page):
    """The commands on a page, by name, as a shell would pass them."""
    lines = [html.unescape(code) for code in re.findall(r"<code>(.*?)</code>", page, flags=re.DOTALL)]
    names = ("report", "info", "contacts", "profile", "score")
    return {next(word for word in words if word in names): words[1:] for words in map(shlex.split, lines)}


def cells(page):
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    return [
        [html.unescape(re.sub("<.*?>", "", cell)) for cell in re.findall(r"<t[dh].*?</t[dh]>", row)] for row in rows
    ]


OPTIONS = shlex.split("--rows 5 --select random --seed 2 --filter-coverage 60 --input-format a3m --dtype float32")


def test_the_commands_on_a_page_give_its_numbers(folder):
    """All of them, from the page's own text; the first makes the same page."""
    more = [*OPTIONS, "--structure", "known contacts.npy", "--model", "a model", "--baseline", "mi"]
    output = msa("report", "a family's $HOME.a3m", "-o", "page.html", *more)
    page = (folder / "page.html").read_text()
    lines = commands(page)
    assert list(lines) == ["report", "info", "contacts", "profile", "score"]
    for words in lines.values():
        msa(*words)
    assert (folder / "report.html").read_bytes() == (folder / "page.html").read_bytes()

    rows = cells(page)
    with open("contacts.tsv", newline="") as file:
        contacts = list(csv.DictReader(file, delimiter="\t"))
    start = rows.index(["rank", "i", "j", "|i\u2212j|", "probability", "rank, mutual information", "in contact"]) + 1
    for row, pair in zip(rows[start : start + 15], contacts, strict=False):
        assert (row[1][1:], row[2][1:], row[4]) == (pair["i"], pair["j"], f"{float(pair['probability']):.3f}")
    with open("contacts.precision.tsv", newline="") as file:
        precision = {line["contacts"]: line for line in csv.DictReader(file, delimiter="\t")}
    figures = [*(precision["all"][f"P@{top}"] for top in ("L", "L/2", "L/5")), precision["long"]["P@L"]]
    assert next(row for row in rows if row[0] == "MSA Transformer")[1:5] == [f"{float(each):.2f}" for each in figures]
    assert f"P@L {float(figures[0]):.2f}" in output

    with open("profile.tsv", newline="") as file:
        profile = sorted(csv.DictReader(file, delimiter="\t"), key=lambda line: float(line["entropy"]))
    start = rows.index(["residue", "entropy, model", "entropy, family", "the model expects"]) + 1
    best = [f"{line['wild_type']}{line['residue']}" for line in profile[:10]]
    assert [row[0] for row in rows[start : start + 10]] == best
    assert rows[start][1:3] == [f"{float(profile[0][name]):.2f}" for name in ("entropy", "family_entropy")]

    (info,) = json.loads((folder / "info.json").read_text())
    assert info["rows_seen"] == 5
    assert f"<dd>{info['neff']:.1f}" in page

    data = json.loads(re.search(r'id="data">(.*?)</script>', page, flags=re.DOTALL)[1])
    with open("scores.csv", newline="") as file:
        scores = [float(line["score"]) for line in csv.DictReader(file)]
    packed = data["scores"]["values"]
    assert (packed["low"], packed["high"]) == pytest.approx((min(scores), max(0.0, *scores)), abs=1e-5)


def numbers_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, flags=re.DOTALL)[1])


def table(name):
    with open(name, newline="") as file:
        return list(csv.DictReader(file, delimiter="," if name.endswith("csv") else "\t"))


def test_the_commands_of_a_complex(folder):
    """Chains from a table, chains of the structure, and windows: the commands still give the page's numbers."""
    alignment = family("f", 12, 30, seed=1)
    query = alignment.query
    lines = [*chain_of(query[:12], chain="X"), "TER", *chain_of(query[12:], chain="Y", y=6.0), "TER"]
    write(folder / "two chains.pdb", *lines, *chain_of("W" * 9, chain="Z", y=90.0))
    (folder / "chains.tsv").write_text("a family's $HOME\tH:12,L:18\n")
    more = ["--chains", "chains.tsv", "--structure", "two chains.pdb", "--chain", "X,Y", "--model", "a model"]
    more += ["--rows", 5, "--baseline", "mi", "--window", 20, "--overlap", 5]
    output = msa("report", "a family's $HOME.a3m", "-o", "page.html", *more)
    assert "in 2 windows of 20; 100 pairs are in no window" in " ".join(output.split())
    page = (folder / "page.html").read_text()
    lines = commands(page)
    for name, words in lines.items():
        assert words[words.index("--chains") + 1] == "H:12,L:18"
        assert ("--window" in words) == (name != "info")
        assert ("--overlap" in words) == (name in ("report", "contacts"))
        msa(*words)
    assert lines["contacts"][lines["contacts"].index("--chain") + 1] == "X,Y"
    assert (folder / "report.html").read_bytes() == (folder / "page.html").read_bytes()

    rows, contacts = cells(page), table("contacts.tsv")
    with_number = [pair for pair in contacts if pair["probability"]]
    assert len(contacts) - len(with_number) == 100
    head = ["rank", "i", "j", "|i\u2212j|", "probability", "rank, mutual information", "in contact"]
    first, second = (k + 1 for k, row in enumerate(rows) if row == head)
    third = rows.index([*head[:3], *head[4:]]) + 1
    between = [pair for pair in with_number if pair["i"][0] != pair["j"][0]]
    for start, pairs, count in ((first, with_number, 15), (second, with_number[15:], 15), (third, between, 15)):
        for row, pair in zip(rows[start : start + count], pairs[:count], strict=True):
            # A:K42 is the residue A:42
            assert [row[1][:2] + row[1][3:], row[2][:2] + row[2][3:]] == [pair["i"], pair["j"]]
            assert row[-3] == f"{float(pair['probability']):.3f}"
            apart = int(pair["j"][2:]) - int(pair["i"][2:])
            assert row[3:-3] == ([] if start == third else ["-" if pair["i"][0] != pair["j"][0] else str(apart)])
            # residues are 5 Angstrom apart in a chain, which lie side by side at a distance of 6
            assert row[-1] == ("yes" if pair["i"][0] != pair["j"][0] and abs(apart) <= 1 else "no")
    precision = {line["contacts"]: line for line in table("contacts.precision.tsv")}
    names = [("all", "L"), ("long", "L"), ("between", "L"), ("between", "L/5"), ("between", "10")]
    expected = [precision[name][f"P@{top}"] for name, top in names]
    (columns,) = (row for row in rows if row[:2] == ["method", "P@L"])
    figures = dict(zip(columns, next(row for row in rows if row[0] == "MSA Transformer"), strict=True))
    shown = [figures[name] for name in ("P@L", "long P@L", "between P@L", "between P@L/5", "between P@10")]
    assert shown == [f"{float(each):.2f}" if each else "-" for each in expected]
    chance = dict(zip(columns, next(row for row in rows if row[0] == "chance"), strict=True))
    assert chance["between P@L"] == f"{float(precision['between']['chance P@L']):.2f}"
    assert f"between P@L {shown[2]}" in output
    assert "H:X,L:Y" in page

    profile = sorted(table("profile.tsv"), key=lambda line: float(line["entropy"]))
    start = rows.index(["residue", "entropy, model", "entropy, family", "the model expects"]) + 1
    names = [row[0] for row in rows[start : start + 10]]
    assert [f"{name[:2]}{name[3:]}" for name in names] == [line["residue"] for line in profile[:10]]
    scores = [float(line["score"]) for line in table("scores.csv")]
    packed = numbers_of(page)["scores"]["values"]
    assert (packed["low"], packed["high"]) == pytest.approx((min(scores), max(0.0, *scores)), abs=1e-5)
    (info,) = json.loads((folder / "info.json").read_text())
    assert (info["chains"], info["residues"][11:13]) == ("H:12,L:18", ["H:12", "L:1"])


def test_options_that_change_numbers_are_in_the_commands(folder):
    msa(
        "--matmul-precision",
        "high",
        "report",
        "a family's $HOME.a3m",
        "-o",
        "x.html",
        "--model",
        "a model",
        "--baseline",
        "none",
    )
    try:
        lines = commands((folder / "x.html").read_text())
    finally:
        torch.set_float32_matmul_precision("highest")
    assert lines["contacts"][:4] == ["--matmul-precision", "high", "contacts", "a family's $HOME.a3m"]
    assert lines["info"][0] == "info"
    assert "--baseline" not in lines["contacts"]
    assert lines["report"][-9:] == [
        "none",
        "--rows",
        "128",
        "--select",
        "diverse",
        "--seed",
        "0",
        "--model",
        "a model",
    ]
    assert "is for tests" not in (folder / "x.html").read_text()
    msa("report", "fn3", "-o", "fn3.html", "--rows", 4, "--baseline", "none", "--model", "msa-tiny")
    page = (folder / "fn3.html").read_text()
    assert commands(page)["contacts"][1] == "fn3"
    assert "<li>msa-tiny is for tests and was trained on simulated families" in page


def test_dca_is_left_out_of_long_queries_unless_it_is_asked_for(folder, monkeypatch):
    """The limit is 150 residues; here 29, as DCA takes long."""
    arguments = ("report", "a family's $HOME.a3m", "-o", "x.html", "--model", "a model")
    for limit, methods in ((30, "mi,dca"), (29, "mi")):
        monkeypatch.setattr(report, "_LONGEST_FOR_DCA", limit)
        msa(*arguments)
        line = commands((folder / "x.html").read_text())["report"]
        assert line[line.index("--baseline") + 1] == methods
    msa(*arguments, "--baseline", "dca")
    assert "<h3>DCA</h3>" in (folder / "x.html").read_text()


def test_several_families_go_into_a_folder(folder):
    make_folder(folder / "families", count=3)
    output = msa("report", "families", "-o", "pages", "--model", "a model", "--baseline", "none")
    assert "pages: 3 alignments" in output
    names = {path.name for path in (folder / "pages").iterdir() if not path.name.startswith(".")}
    assert names == {"f0.html", "f1.html", "f2.html"}
    assert "3 of them finished before" in msa(
        "report", "families", "-o", "pages", "--model", "a model", "--baseline", "none"
    )


def test_wrong_options(folder):
    arguments = ("report", "a family's $HOME.a3m", "-o", "x.html", "--model", "a model")
    assert "--baseline: 'plm' is not a method" in msa(*arguments, "--baseline", "mi,plm", code=1)
    assert "no such file" in msa(*arguments, "--structure", "nowhere.pdb", code=1)
    np.save(folder / "small.npy", np.zeros((3, 3), dtype=np.int8))
    assert "3 x 3 entries" in msa(*arguments, "--structure", "small.npy", code=1)
    assert not (folder / "x.html").exists()
