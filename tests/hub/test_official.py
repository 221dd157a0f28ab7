"""The contract of `make verify-official`, on stand-ins: small checkpoints, made-up families and structures, loopback.

A table tells expected from measured, line by line; the exit status is 0 only if every check was made and passed. A
file whose checksum is not the recorded one is refused before it is unpickled. What cannot be fetched is said, and the
rest goes on; nothing is fetched twice. Contacts are those of fair-esm's contact notebook: C-beta atoms put by N,
C-alpha and C, 8 Angstrom. Figures are worked out here by fair-esm's model and plain loops.
"""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch
from fair_esm import random_model, read_a3m, read_published, tokens, write_published
from file_server import serving
from made_up import AMINO_ACIDS, SHARED
from notebook import notebook_rows

from modeling_msa import read_alignment
from modeling_msa.alignments.structure import _ideal_beta, structure_contacts
from modeling_msa.hub import conversion, downloads, fair_esm

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"msa-1b": "esm_msa1b_t12_100M_UR50S", "msa-1": "esm_msa1_t12_100M_UR50S"}
FAMILIES = ("1a3a", "5ahw", "1xcr")
MODEL = f"/models/{NAMES['msa-1b']}.pt"
REGRESSION = f"/regression/{NAMES['msa-1b']}-contact-regression.pt"
LENGTH = 40

pytestmark = pytest.mark.usefixtures("one_thread")


def hairpin():
    """C-alpha atoms (40, 3): 20 residues out, 4.2 Angstrom apart, and 20 back, 5 Angstrom beside them.

    Residues 24 or more apart are less than 8 Angstrom apart where i + j is 38, 39 or 40: 6.5 and 5; the next are 9.8.
    """
    steps = np.arange(LENGTH)
    x = 4.2 * np.minimum(steps, LENGTH - 1 - steps)
    return np.stack([x, np.where(steps < 20, 0.0, 5.0), np.zeros(LENGTH)], 1)


def long_range_contact(i, j):
    return j - i >= 24 and i + j in (38, 39, 40)


def structure_text(query):
    """mmCIF: the hairpin as chain A, from residue 501, after a straight chain B; C-beta atoms all in a wrong place."""
    straight = np.stack([4.0 * np.arange(LENGTH), np.full(LENGTH, 60.0), np.zeros(LENGTH)], 1)
    lines = []
    for chain, trace in (("B", straight), ("A", hairpin())):
        for index, (letter, alpha) in enumerate(zip(query, trace, strict=True)):
            residue = gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA)
            # all residues are turned alike: where an ideal C-beta lies, beside its C-alpha, is the same for all
            atoms = {"N": (-0.5, -1.3, 0.4), "CA": (0, 0, 0), "C": (1.5, 0.1, 0.2)}
            if letter != "G":
                atoms["CB"] = (0, 0, 30 * (index % 2))
            for name, offset in atoms.items():
                x, y, z = alpha + offset
                place = f"{chain}{501 + index:4}    {x:8.3f}{y:8.3f}{z:8.3f}"
                lines.append(f"ATOM      1  {name:<3} {residue} {place}  1.00  0.00           {name[0]}  ")
    structure = gemmi.read_pdb_string("\n".join([*lines, "END", ""]))
    structure.setup_entities()
    return structure.make_mmcif_document().as_string()


def family_text(seed):
    """A3M of 150 rows, some close to the query and some far, with insertions."""
    random = np.random.default_rng(seed)
    query = random.choice(AMINO_ACIDS, LENGTH)
    entries = [f">query\n{query.tobytes().decode()}\n"]
    for row in range(1, 150):
        changed = random.random(LENGTH) < random.choice([0.05, 0.3, 0.8])
        sequence = np.where(changed, random.choice(AMINO_ACIDS, LENGTH), query)
        sequence[random.random(LENGTH) < 0.1] = ord("-")
        text = sequence.tobytes().decode()
        entries.append(f">{row}\n{text[:10]}{'kv' if row % 3 else ''}{text[10:]}\n")
    return "".join(entries)


@torch.no_grad()
def notebook_figure(model, path):
    """The notebook's steps, by fair-esm: greedy rows, contacts, P@L of pairs 24 or more apart."""
    rows = read_a3m(path, 150)
    array = np.array([list(sequence.encode()) for _, sequence in rows], dtype=np.uint8)
    probabilities = model.predict_contacts(tokens([[rows[k] for k in notebook_rows(array, 128)]]))[0].tolist()
    pairs = [(probabilities[i][j], long_range_contact(i, j)) for i in range(LENGTH) for j in range(i + 24, LENGTH)]
    return sum(hit for _, hit in sorted(pairs, reverse=True)[:LENGTH]) / LENGTH


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """What a server gives, by its path, and the figures that fair-esm reaches on it."""
    folder = tmp_path_factory.mktemp("stand-ins")
    files, figures = {}, {}
    for seed, name in enumerate(NAMES.values()):
        write_published(random_model(2, 16, 4, 24, (16, 1)[seed], seed=seed), folder / f"{name}.pt")
        files[f"/models/{name}.pt"] = (folder / f"{name}.pt").read_bytes()
        regression = f"{name}-contact-regression.pt"
        files[f"/regression/{regression}"] = (folder / regression).read_bytes()
    model = read_published(folder / f"{NAMES['msa-1b']}.pt")
    for seed, family in enumerate(FAMILIES):
        path = folder / f"{family}_1_A.a3m"
        path.write_text(family_text(seed))
        files[f"/data/{path.name}"] = path.read_bytes()
        files[f"/download/{family}.cif"] = structure_text(read_a3m(path, 1)[0][1]).encode()
        figures[family] = round(notebook_figure(model, path), 3)
    assert 0 < min(figures.values()) < max(figures.values()) < 1
    return files, figures


@pytest.fixture
def official(stand_ins, tmp_path, monkeypatch):
    """The script, asking a loopback server, `official.server`, with an empty cache in `tmp_path`."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    import verify_official

    files, figures = stand_ins
    with serving(files, monkeypatch, tmp_path / "torch") as server:
        monkeypatch.setattr(downloads, "DOWNLOAD_URL", server.url)
        monkeypatch.setattr(verify_official, "ALIGNMENTS_URL", f"{server.url}/data")
        monkeypatch.setattr(verify_official, "STRUCTURES_URL", f"{server.url}/download")
        monkeypatch.setattr(verify_official, "FIGURES", dict(figures))
        monkeypatch.setattr(verify_official, "server", server, raising=False)
        monkeypatch.chdir(tmp_path)
        yield verify_official


def lines_of(folder):
    """The lines of the report by their check."""
    return {line["check"]: line for line in json.loads((folder / "report.json").read_text())["lines"]}


def results(folder):
    return {check: line["result"] for check, line in lines_of(folder).items()}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# The definitions


def test_published_figures(monkeypatch):
    """Long-range P@L of msa-1b in fair-esm's contact notebook."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    import verify_official

    assert verify_official.FIGURES == {"1a3a": 0.724, "5ahw": 0.896, "1xcr": 0.770}


def test_contacts_by_hand(tmp_path):
    """Of the made-up structure: by imputed C-beta atoms the hairpin's; the file's own lie elsewhere."""
    query = "".join("ACDEFGHIKLMNPQRSTVWY"[k % 20] for k in range(LENGTH))
    (tmp_path / "a.cif").write_text(structure_text(query))
    imputed = structure_contacts(tmp_path / "a.cif", query, chain="A", impute_beta=True)
    trace = hairpin()
    expected = np.sqrt(((trace[:, None] - trace) ** 2).sum(-1)) < 8
    assert np.array_equal(imputed, expected)
    for i in range(LENGTH):
        for j in range(i + 24, LENGTH):
            assert imputed[i, j] == long_range_contact(i, j)
    assert not np.array_equal(structure_contacts(tmp_path / "a.cif", query, chain="A"), expected)


def test_where_an_imputed_beta_lies():
    """1.522 Angstrom from C-alpha; N - CA - CB 1.927; C - N - CA - CB -2.143 radians."""
    random = np.random.default_rng(0)
    for n, alpha, c in random.normal(size=(20, 3, 3)) * 3:
        beta = _ideal_beta(n, alpha, c)
        places = [gemmi.Position(*place) for place in (c, n, alpha, beta)]
        assert places[2].dist(places[3]) == pytest.approx(1.522)
        assert gemmi.calculate_angle(*places[1:]) == pytest.approx(1.927)
        assert gemmi.calculate_dihedral(*places) == pytest.approx(-2.143)


def test_a_residue_without_its_backbone_is_unknown(tmp_path):
    """Without N no C-beta can be put; glycine gets one too."""
    query = "MKVLAWDCKAGGGHIKLMNP" * 2
    text = structure_text(query)
    (tmp_path / "a.cif").write_text(re.sub(r"^ATOM .* N \S* MET .* 501 .*\n", "", text, flags=re.MULTILINE))
    contacts = structure_contacts(tmp_path / "a.cif", query, chain="A", impute_beta=True)
    assert (np.diagonal(contacts) < 0).tolist() == [True] + [False] * (LENGTH - 1)


def notebook_contacts(path):
    """Contacts as in fair-esm's notebook (``extend``, ``contacts_from_pdb``; MIT licence), of a PDB file."""
    atoms = {"N": {}, "CA": {}, "C": {}}
    for line in path.read_text().splitlines():
        if line.startswith("ATOM") and line[16] in " A" and (name := line[12:16].strip()) in atoms:
            atoms[name][line[21:27]] = [float(line[start : start + 8]) for start in (30, 38, 46)]
    b, c, a = (np.array(list(atoms[name].values())) for name in ("N", "CA", "C"))

    def normalize(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    length, angle, dihedral = 1.522, 1.927, -2.143
    bc = normalize(b - c)
    n = normalize(np.cross(b - a, bc))
    m = [bc, np.cross(n, bc), n]
    d = [length * np.cos(angle), length * np.sin(angle) * np.cos(dihedral), -length * np.sin(angle) * np.sin(dihedral)]
    beta = c + sum(axis * part for axis, part in zip(m, d, strict=True))
    return np.linalg.norm(beta[:, None] - beta, axis=-1) < 8


# pairs 6 or more apart, and 24 or more apart, that the two definitions tell differently
@pytest.mark.parametrize(("name", "differ"), [("1prw", (8, 5)), ("6exz", (2, 0)), ("6e6r", (6, 4)), ("5trv", (8, 5))])
def test_real_structures(name, differ):
    path = SHARED / "structure" / f"{name}.pdb"
    if not path.is_file():
        pytest.skip("the shared structures are not here")
    family = read_alignment(SHARED / "msa" / f"{name}.a3m")
    imputed = structure_contacts(path, family, impute_beta=True)
    assert np.array_equal(imputed, notebook_contacts(path))
    by_file = structure_contacts(path, family)
    assert tuple(int((np.triu(imputed != by_file, least)).sum()) for least in (6, 24)) == differ


# The whole run


def test_all_matches_and_the_next_run_compares(official, stand_ins, tmp_path, capsys, monkeypatch):
    """21 checks; then again without a network, from what lies there, with the checksums that were recorded."""
    files, figures = stand_ins
    folder = tmp_path / "verified"
    assert official.main([]) == 0
    printed = capsys.readouterr().out
    assert (folder / "report.md").read_text() in printed
    assert "No checksums were known" in printed
    assert "11 pass, 0 FAIL, 10 recorded, 0 not run" in printed
    lines = lines_of(folder)
    assert len(lines) == 21
    for family, figure in figures.items():
        line = lines[f"msa-1b {family} long-range P@L"]
        assert line["expected"] == line["measured"] == f"{figure:.3f}"
        assert line["note"].startswith(f"{round(figure * LENGTH)} of 40 pairs; 40 of 40 residues")
        for checkpoint in NAMES:
            line = lines[f"{checkpoint} {family} beside fair-esm"]
            assert line["values"]["float64"].keys() == {"logits", "row maps", "contacts"}
            assert max(line["values"]["float64"].values()) < 1e-9
            assert max(line["values"]["float32"].values()) < 1e-3
            assert "128 rows, 40 residues" in line["note"]
    assert json.loads((folder / "checksums.json").read_text()) == {
        path.rsplit("/", 1)[1]: sha256(data) for path, data in files.items()
    }
    assert sorted(path for method, path, _ in official.server.log if method == "GET") == sorted(files)
    assert {path.name for path in (folder / "converted").iterdir()} == set(NAMES.values())

    official.server.log.clear()
    assert official.main(["--only", "msa-1b", "1a3a"]) == 0
    assert official.server.log == []
    assert "No checksums were known" not in capsys.readouterr().out
    assert set(results(folder).values()) == {"pass"}
    assert list(results(folder)) == [
        *("file 1a3a_1_A.a3m", "file 1a3a.cif", "msa-1b conversion"),
        *(f"file {path.rsplit('/', 1)[1]}" for path in (MODEL, REGRESSION)),
        *("msa-1b 1a3a beside fair-esm", "msa-1b 1a3a long-range P@L"),
    ]
    assert len(json.loads((folder / "checksums.json").read_text())) == len(files)  # those of other files stay


@pytest.mark.parametrize("away", [0.001, -0.025])
def test_a_figure_that_differs(official, tmp_path, capsys, away):
    official.FIGURES["5ahw"] += away
    assert official.main(["--only", "msa-1b", "5ahw", "1a3a", "figures", "--output-dir", "out"]) == 1
    assert re.search(r"^\| msa-1b 5ahw long-range P@L .*\| FAIL ", capsys.readouterr().out, flags=re.MULTILINE)
    failed = [check for check, result in results(tmp_path / "out").items() if result == "FAIL"]
    assert failed == ["msa-1b 5ahw long-range P@L"]


@pytest.mark.parametrize("spoilt", [MODEL, REGRESSION])
def test_another_checksum_is_refused_unread(official, stand_ins, tmp_path, monkeypatch, spoilt):
    """Recorded elsewhere, and given by --checksums; torch.load is never reached."""

    def load(*args, **kwargs):
        raise AssertionError("unpickled")

    name = spoilt.rsplit("/", 1)[1]
    recorded = sha256(stand_ins[0][spoilt])
    official.server.files[spoilt] = stand_ins[0][spoilt] + b"."
    (tmp_path / "known.json").write_text(json.dumps({name: recorded}))
    monkeypatch.setattr(torch, "load", load)
    assert official.main(["--only", "msa-1b", "1a3a", "--checksums", "known.json"]) == 1
    lines = lines_of(tmp_path / "verified")
    line = lines.pop(f"file {name}")
    assert line["result"] == "FAIL"
    for words in (recorded, sha256(official.server.files[spoilt]), "remove it and download it again"):
        assert words in line["note"]
    assert {lines.pop(f"file 1a3a{end}")["result"] for end in ("_1_A.a3m", ".cif")} == {"recorded"}
    assert {line["result"] for line in lines.values()} == {"not run"}
    assert {line["note"] for line in lines.values()} == {f"needs: file {name}"}
    assert set(json.loads((tmp_path / "verified" / "checksums.json").read_text())) == {"1a3a_1_A.a3m", "1a3a.cif"}


def test_another_alignment_is_refused(official, tmp_path):
    """A text's checksum counts too."""
    arguments = ["--only", "msa-1b", "1a3a", "figures"]
    assert official.main(arguments) == 0
    with (tmp_path / "verified" / "downloads" / "1a3a_1_A.a3m").open("a") as file:
        file.write(">more\n" + "A" * LENGTH + "\n")
    assert official.main(arguments) == 1
    assert results(tmp_path / "verified")["file 1a3a_1_A.a3m"] == "FAIL"
    assert results(tmp_path / "verified")["msa-1b 1a3a long-range P@L"] == "not run"


def test_what_is_not_there_is_said_and_the_rest_goes_on(official, tmp_path, capsys):
    """No regression of one checkpoint, no alignment of one family, no structure of another, a page for the third's."""
    del official.server.files[f"/regression/{NAMES['msa-1']}-contact-regression.pt"]
    del official.server.files["/data/5ahw_1_A.a3m"], official.server.files["/download/1xcr.cif"]
    official.server.files["/download/1a3a.cif"] = b"<html>Please log in</html>"
    assert official.main([]) == 1
    printed = capsys.readouterr().out
    lines = lines_of(tmp_path / "verified")
    for check in ("file 5ahw_1_A.a3m", "file 1xcr.cif", f"file {NAMES['msa-1']}-contact-regression.pt"):
        assert lines[check]["result"] == "not run"
        assert "404" in lines[check]["note"]
        assert lines[check]["note"] in printed
    assert lines["file 1a3a.cif"]["result"] == "FAIL"
    assert "not a structure" in lines["file 1a3a.cif"]["note"]
    assert "1a3a.cif" not in json.loads((tmp_path / "verified" / "checksums.json").read_text())
    for check, need in {
        "msa-1b 1a3a long-range P@L": "file 1a3a.cif",
        "msa-1b 5ahw long-range P@L": "file 5ahw_1_A.a3m",
        "msa-1b 1xcr long-range P@L": "file 1xcr.cif",
        "msa-1b 5ahw beside fair-esm": "file 5ahw_1_A.a3m",
        "msa-1 conversion": f"file {NAMES['msa-1']}-contact-regression.pt",
    }.items():
        assert (lines[check]["result"], lines[check]["note"]) == ("not run", f"needs: {need}")
    for check in ("msa-1b conversion", "msa-1b 1a3a beside fair-esm", "msa-1b 1xcr beside fair-esm"):
        assert lines[check]["result"] == "pass"
    asked = [path for _, path, _ in official.server.log]
    assert asked.count("/data/5ahw_1_A.a3m") == 1


def test_offline(official, tmp_path, monkeypatch, capsys):
    """Nothing passes, each file says so; files put in place by hand are taken."""
    (tmp_path / "verified" / "downloads").mkdir(parents=True)
    for path, data in official.server.files.items():
        if "5ahw" in path:
            (tmp_path / "verified" / "downloads" / path.rsplit("/", 1)[1]).write_bytes(data)
    for module, name in ((downloads, "DOWNLOAD_URL"), (official, "ALIGNMENTS_URL"), (official, "STRUCTURES_URL")):
        monkeypatch.setattr(module, name, "http://127.0.0.1:9")  # nobody listens there
    assert official.main([]) == 1
    found = results(tmp_path / "verified")
    assert {check for check, result in found.items() if result == "recorded"} == {
        "file 5ahw_1_A.a3m",
        "file 5ahw.cif",
    }
    assert set(found.values()) == {"recorded", "not run"}
    assert f"{NAMES['msa-1']}.pt could not be downloaded" in capsys.readouterr().out


def test_a_cut_download_goes_on(official, tmp_path):
    data = official.server.files[MODEL]
    official.server.cut_at = len(data) // 2
    arguments = ["--only", "msa-1b", "conversion"]
    assert official.main(arguments) == 1
    assert results(tmp_path / "verified")["msa-1b conversion"] == "not run"
    (part,) = (tmp_path / "torch").rglob("*.part")
    have = part.stat().st_size
    assert 0 < have <= len(data) // 2
    official.server.log.clear()
    official.server.cut_at, official.server.broken = None, False
    assert official.main(arguments) == 0
    assert ("GET", MODEL, have) in official.server.log


def test_interrupted(official, tmp_path, monkeypatch, capsys):
    """Ctrl-C leaves a report of what was done and a status that says so; the next run goes on."""
    arguments = ["--only", "msa-1b", "1a3a", "figures"]
    convert = conversion.convert_checkpoint

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(conversion, "convert_checkpoint", stop)
    assert official.main(arguments) == 130
    assert "interrupted before the end" in capsys.readouterr().out
    assert list(results(tmp_path / "verified")) == ["file 1a3a_1_A.a3m", "file 1a3a.cif"]
    official.server.log.clear()
    monkeypatch.setattr(conversion, "convert_checkpoint", convert)
    assert official.main(arguments) == 0
    assert official.server.log == []


def test_a_wrong_conversion_fails_beside_fair_esm(official, tmp_path, monkeypatch):
    """With rows and columns not swapped back, every tensor is there, and the outputs are others."""
    monkeypatch.setattr(fair_esm, "swap_row_and_column", lambda name: name)
    assert official.main(["--only", "msa-1b", "1a3a", "fair-esm"]) == 1
    found = results(tmp_path / "verified")
    assert found["msa-1b conversion"] == found["msa-1b 1a3a beside fair-esm"] == "FAIL"


# The command


def test_command(official, tmp_path, capsys):
    with pytest.raises(SystemExit) as info:
        official.main(["--help"])
    assert info.value.code == 0
    text = capsys.readouterr().out
    for words in ("--only", "--output-dir", "--checksums", "msa-1b", "1xcr", "figures", "exit status"):
        assert words in text
    with pytest.raises(SystemExit):
        official.main(["--only", "msa-2"])
    for content, words in (("{", "is not JSON"), ("[1]", "names and checksums")):
        (tmp_path / "known.json").write_text(content)
        with pytest.raises(ValueError, match=words):
            official.main(["--checksums", "known.json"])
    assert not list((tmp_path / "verified").glob("*"))
    assert official.server.log == []


def test_make_runs_it():
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    command = ["make", "--dry-run", "--always-make", "verify-official"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    # below another make it says which folder it leaves
    assert any(line.endswith("python examples/verify_official.py") for line in process.stdout.splitlines())
