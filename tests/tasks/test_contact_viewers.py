"""The contract of viewer scripts: the right pairs between the right atoms, whatever the structure's numbers and path.

PyMOL runs its script here if it is installed; ChimeraX's is compared with lines worked out by hand.
"""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from made_up import contact_map

from modeling_msa import Alignment, Chain, ContactMap, structure_residues, write_viewer

gemmi = pytest.importorskip("gemmi")
PYMOL = shutil.which("pymol")
QUERY = "MKVLAWYCDE"
THREE = dict(zip(QUERY, ["MET", "LYS", "VAL", "LEU", "ALA", "TRP", "TYR", "CYS", "ASP", "GLU"], strict=True))
# author numbers of the query's residues 2 to 10; residue 1 is missing, 9 has no C-beta; 2 and 8 touch
NUMBERS = [(-5, ""), (-4, ""), (42, ""), (42, "A"), (42, "B"), (7, ""), (8, ""), (9, ""), (101, "")]
PLACES = [0, 10, 20, 30, 40, 50, 6, 70, 80]


def atom_line(number, code, name, residue, x, chain="A"):
    place = f"{chain}{number:4}{code or ' '}   {x:8.3f}   0.000   0.000"
    return f"ATOM      1  {name:<3} {residue:>3} {place}  1.00  0.00           C"


@pytest.fixture
def structure(tmp_path):
    lines = []
    for (number, code), letter, x in zip(NUMBERS, QUERY[1:], PLACES, strict=True):
        names = ("CA",) if letter == "D" else ("CA", "CB")
        lines += [atom_line(number, code, name, THREE[letter], x) for name in names]
    path = tmp_path / "odd.pdb"
    path.write_text("\n".join([*lines, "END", ""]))
    return path


@pytest.fixture
def contacts():
    """Pairs of residues 2-8 (in contact), 4-10 and 2-10 (not), 3-9 (no C-beta), 1-7 (missing), best first."""
    made = contact_map(10, p1_7=0.9, p3_9=0.8, p2_8=0.7, p0_6=0.6, p1_9=0.5)
    return ContactMap("odd", QUERY, made.residues, made.probabilities, 7)


def test_residues_have_the_authors_names(structure):
    residues, models = structure_residues(structure, QUERY)
    expected = [
        ("A", number, code, "" if letter == "D" else "CB")
        for (number, code), letter in zip(NUMBERS, QUERY[1:], strict=True)
    ]
    assert residues == [None, *expected]
    assert models == 1


def test_glycine_has_no_c_beta(tmp_path):
    lines = [atom_line(k, "", "CA", "GLY" if k == 2 else "ALA", 4 * k) for k in range(1, 5)]
    lines += [atom_line(k, "", "CB", "ALA", 4 * k) for k in (1, 3)]
    (tmp_path / "g.pdb").write_text("\n".join([*lines, "END", ""]))
    residues, _ = structure_residues(tmp_path / "g.pdb", "AGAA")
    assert [each.atom for each in residues] == ["CB", "CA", "CB", ""]


def test_lines_of_chimerax(contacts, structure, tmp_path):
    """Chain, number and insertion code of both atoms; blue is right, orange wrong."""
    assert write_viewer(contacts, structure, tmp_path / "v.cxc", count=5) == 3
    lines = (tmp_path / "v.cxc").read_text().splitlines()
    assert lines[0] == "# 3 pairs of the 5 most probable ones, 2 with a residue that the structure lacks"
    assert lines[2] == f'open "{structure}" id 1000'
    how = "radius 0.15 dashes 0 name"
    assert [line for line in lines if line.startswith("pbond")] == [
        f"pbond #1000/A:-5@CB #1000/A:8@CB color #0072b2 {how} right",
        f"pbond #1000/A:42@CB #1000/A:101@CB color #d55e00 {how} wrong",
        f"pbond #1000/A:-5@CB #1000/A:101@CB color #d55e00 {how} wrong",
    ]


def test_members_of_an_ensemble_are_submodels(contacts, structure, tmp_path):
    atoms = structure.read_text().removesuffix("END\n")
    structure.write_text(f"MODEL        1\n{atoms}ENDMDL\nMODEL        2\n{atoms}ENDMDL\nEND\n")
    assert write_viewer(contacts, structure, tmp_path / "v.cxc", count=5) == 3
    assert "pbond #1000.1/A:-5@CB #1000.1/A:8@CB " in (tmp_path / "v.cxc").read_text()


def in_pymol(script, folder):
    """What PyMOL has drawn: objects, colours, and the ends of the lines, from its own session."""
    ask = folder / "ask.py"
    ask.write_text(
        "import json\n"
        "def ends(name):\n"
        "    vertices = cmd.get_session(name, partial=1)['names'][0][5][2][0][1]\n"
        "    return [vertices[k:k + 6] for k in range(0, len(vertices), 6)]\n"
        "found = {name: [cmd.get_color_tuple(cmd.get_object_color_index(name)), ends(name)]\n"
        "         for name in cmd.get_names() if name in ('msa_right', 'msa_wrong')}\n"
        "print('FOUND', json.dumps([cmd.get_names(), cmd.count_atoms('msa_structure'), found]))\n"
    )
    path = os.pathsep.join(["/usr/bin", os.environ["PATH"]])  # Debian's wrapper needs Debian's Python
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PATH": path}
    result = subprocess.run(
        [PYMOL, "-cq", script, ask], capture_output=True, text=True, cwd="/", timeout=120, env=environment
    )
    lines = [line for line in result.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, result.stdout + result.stderr
    assert "Error" not in result.stdout
    return json.loads(lines[0].removeprefix("FOUND "))


@pytest.mark.skipif(PYMOL is None, reason="PyMOL is not installed")
@pytest.mark.parametrize("kind", ["plain", "hostile", "gzip", "cif", "blank chain", "ensemble", "two places"])
def test_pymol_draws_the_pairs(kind, contacts, structure, tmp_path):
    """Two objects; the ends are at the atoms' places, whatever the format, path and chain."""
    text = structure.read_text()
    if kind == "hostile":
        structure = tmp_path / "a b; delete all, 'x' \"y\"\\" / "1é.pdb"
        structure.parent.mkdir()
        structure.write_text(text)
    elif kind == "gzip":
        import gzip

        structure = structure.with_suffix(".pdb.gz")
        structure.write_bytes(gzip.compress(text.encode()))
    elif kind == "cif":
        made = gemmi.read_structure(str(structure))
        made.setup_entities()
        structure = structure.with_suffix(".cif")
        made.make_mmcif_document().write_file(str(structure))
    elif kind == "blank chain":
        structure.write_text(
            "\n".join(line[:21] + " " + line[22:] if line.startswith("ATOM") else line for line in text.splitlines())
        )
    elif kind == "ensemble":
        atoms = text.removesuffix("END\n")
        structure.write_text(f"MODEL        1\n{atoms}ENDMDL\nMODEL        2\n{atoms}ENDMDL\nEND\n")
    elif kind == "two places":  # of the C-beta of residue -5, the second of which is too far away
        lines = text.splitlines()
        place = next(k for k, line in enumerate(lines) if "CB  LYS A  -5" in line)
        far = lines[place].replace("   0.000   0.000   0.000", "  50.000   0.000   0.000")
        lines[place : place + 1] = [line[:16] + code + line[17:] for line, code in ((lines[place], "A"), (far, "B"))]
        structure.write_text("\n".join(lines))
    script = tmp_path / "v.pml"
    assert write_viewer(contacts, structure, script, count=5) == 3
    names, atoms, found = in_pymol(script, tmp_path)
    assert names == ["msa_structure", "msa_right", "msa_wrong"]
    assert atoms == 17 + (kind == "two places")
    right, wrong = found["msa_right"], found["msa_wrong"]
    assert np.array(right[0]) * 255 == pytest.approx([0x00, 0x72, 0xB2], abs=0.5)
    assert np.array(wrong[0]) * 255 == pytest.approx([0xD5, 0x5E, 0x00], abs=0.5)
    assert np.array(right[1])[:, [0, 3]].tolist() == [[0, 6]]
    assert np.array(wrong[1])[:, [0, 3]].tolist() == [[20, 80], [0, 80]]


def test_what_a_program_cannot_read_is_refused(contacts, structure, tmp_path):
    for name, script, words in (
        ("a$b.pdb", "v.pml", r"PyMOL cannot read a path with '\$'"),
        ("a$b.pdb", "v.cxc", r"ChimeraX cannot read a path with '\$'"),
        ('a"b.pdb', "v.cxc", "ChimeraX cannot read a path with"),
        ("a.cif.gz", "v.cxc", "ChimeraX does not read compressed mmCIF"),
        ("odd.pdb", "v.py", r"unknown output format '.py'; use .pml or .cxc"),
    ):
        path = tmp_path / name
        path.write_text(structure.read_text())
        with pytest.raises(ValueError, match=words):
            write_viewer(contacts, path, tmp_path / script)
    lines = structure.read_text().splitlines()
    made = gemmi.read_pdb_string("\n".join(lines))
    made[0][0].name = "A-2"
    made.setup_entities()
    made.make_mmcif_document().write_file(str(tmp_path / "copy.cif"))
    with pytest.raises(ValueError, match="ChimeraX cannot select a chain named 'A-2'"):
        write_viewer(contacts, tmp_path / "copy.cif", tmp_path / "v.cxc", count=5)
    assert write_viewer(contacts, tmp_path / "copy.cif", tmp_path / "v.pml", count=5) == 3
    assert not (tmp_path / "v.cxc").exists()


def test_a_complex(tmp_path):
    """Residues of each chain are those of its own chain in the structure, in the order that is passed."""
    lines = [
        atom_line(number + 10 * shift, "", name, THREE[letter], x + 2 * shift, chain)
        for shift, chain in enumerate("BA")
        for number, (letter, x) in enumerate(zip("MKVLAWYC", range(0, 80, 10), strict=True), start=1)
        for name in ("CA", "CB")
    ]
    (tmp_path / "two.pdb").write_text("\n".join([*lines, "END", ""]))
    made = contact_map(16, p0_8=0.9, p1_15=0.8, p0_7=0.7)
    chains = (Chain("X", 8), Chain("Y", 8))
    pair = ContactMap("pair", "MKVLAWYC" * 2, made.residues, made.probabilities, 7, chains)
    how = {"chain": "B,A", "count": 2}
    assert write_viewer(pair, tmp_path / "two.pdb", tmp_path / "v.cxc", between_chains=True, **how) == 2
    drawn = [line.split(" radius")[0] for line in (tmp_path / "v.cxc").read_text().splitlines() if "pbond" in line]
    assert drawn == [
        "pbond #1000/B:1@CB #1000/A:11@CB color #0072b2",
        "pbond #1000/B:2@CB #1000/A:18@CB color #d55e00",
    ]
    assert write_viewer(pair, tmp_path / "two.pdb", tmp_path / "v.pml", "B,A", 3) == 3
    with pytest.raises(ValueError, match="name 2 chains of the structure"):
        structure_residues(tmp_path / "two.pdb", Alignment.from_sequences(["MKVLAWYC" * 2], chains=chains))


def test_pairs_in_no_window_are_not_drawn(contacts, structure, tmp_path):
    """The best of the pairs that have a probability, and how many these are."""
    contacts.probabilities[1, 7] = contacts.probabilities[7, 1] = np.nan
    assert write_viewer(contacts, structure, tmp_path / "v.cxc", count=4) == 2
    text = (tmp_path / "v.cxc").read_text()
    assert "# 2 pairs of the 4 most probable ones, 2 with a residue that the structure lacks" in text
    contacts.probabilities[:] = np.nan
    assert write_viewer(contacts, structure, tmp_path / "v.cxc") == 0
    assert "pbond" not in (tmp_path / "v.cxc").read_text()
