"""Structures of straight chains, whose contacts are known without computing them; a real one, cut in two."""

import gemmi
import numpy as np

THREE = {letter: gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA) for letter in "ACDEFGHIKLMNPQRSTVWY"}


def atom(name, residue, number, x, chain="A", code=" ", y=0.0, altloc=" "):
    kind = "HETATM" if residue == "MSE" else "ATOM  "
    place = f"{chain}{number:4}{code}   {x:8.3f}{y:8.3f}{0:8.3f}"
    return f"{kind}    1  {name:<3}{altloc}{residue:>3} {place}  1.00  0.00           {name[0]}  "


def chain_of(sequence, step=5.0, start=1, chain="A", y=0.0):
    """A straight chain with C-alpha and C-beta every `step` Angstrom."""
    lines = []
    for index, letter in enumerate(sequence):
        names = ["CA"] if letter == "G" else ["CA", "CB"]
        lines += [atom(name, THREE[letter], start + index, step * index, chain, y=y) for name in names]
    return lines


def write(path, *lines):
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def near(length, reach):
    """Contacts of a straight chain, up to `reach` residues apart."""
    numbers = np.arange(length)
    return (np.abs(numbers[:, None] - numbers) <= reach).astype(np.int8)


def cut_calmodulin(source, target, names=("A", "B")):
    """Write the structure of 1prw with its two domains, up to K77 and from D78 of the query, as chains."""
    polymer = list(gemmi.read_structure(str(source))[0]["A"])
    last = next(k for k in range(70, 90) if (polymer[k].name, polymer[k + 1].name) == ("LYS", "ASP"))
    model, structure = gemmi.Model("1"), gemmi.Structure()
    for name, part in zip(names, (polymer[: last + 1], polymer[last + 1 :]), strict=True):
        chain = gemmi.Chain(name)
        for residue in part:
            chain.add_residue(residue)
        model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(target))
