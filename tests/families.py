"""Made-up families, their labels, and a small model to start from, for the tests of training."""

import json

import numpy as np

from modeling_msa import Alignment, MsaConfig, MsaForMaskedLM, MsaTokenizer, write_alignment

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "row_position_embedding_size": 16,
    "max_position_embeddings": 64,
    "max_row_position_embeddings": 32,
}
LETTERS = list("ACDEFGHIKLMNPQRSTVWY")


def family(name, depth, length, seed):
    """An alignment whose rows are mutants of the query, with gaps."""
    rng = np.random.default_rng(seed)
    query = rng.choice(LETTERS, length)
    rows = [query]
    for _ in range(depth - 1):
        row = query.copy()
        changed = rng.random(length) < 0.3
        row[changed] = rng.choice([*LETTERS, "-"], changed.sum())
        rows.append(row)
    return Alignment.from_sequences(["".join(row) for row in rows], [f"{name}/{k}" for k in range(depth)])


def make_folder(folder, count=8, seed=0):
    """Write families f0 .. of 5 to 12 rows and 12 to 30 columns; return them by name."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    families = {f"f{k}": family(f"f{k}", int(rng.integers(5, 13)), int(rng.integers(12, 31)), k) for k in range(count)}
    for name, alignment in families.items():
        write_alignment(alignment, folder / f"{name}.a3m")
    return families


def make_labels(folder, families, seed=0):
    """Write a label file for each objective; return their paths."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    letters = {name: "".join(rng.choice(list("HEC"), len(each.query))) for name, each in families.items()}
    (folder / "residues.fasta").write_text("".join(f">{name}\n{text}\n" for name, text in letters.items()))
    values = "".join(f"{name},{rng.normal():.4f}\n" for name in families)
    (folder / "values.csv").write_text(f"name,label\n{values}")
    kinds = "".join(json.dumps({"name": name, "label": k % 2}) + "\n" for k, name in enumerate(families))
    (folder / "kinds.jsonl").write_text(kinds)
    (folder / "maps").mkdir()
    for name, each in families.items():
        contacts = rng.random((len(each.query),) * 2) < 0.1
        np.save(folder / "maps" / f"{name}.npy", (contacts | contacts.T).astype(np.int8))
    query = next(iter(families.values())).query
    variants = [f"{query[k]}{k + 1}{letter}" for k in range(4) for letter in "AWY" if query[k] != letter]
    table = "".join(f"{variant},{rng.normal():.4f}\n" for variant in variants)
    (folder / "variants.csv").write_text(f"mutant,score\n{table}")
    return {
        "token": folder / "residues.fasta",
        "sequence": folder / "values.csv",
        "classes": folder / "kinds.jsonl",
        "contacts": folder / "maps",
        "variants": folder / "variants.csv",
    }


def make_config(folder, **options):
    """Write a small model's config.json; dropout is on unless `options` say otherwise."""
    MsaConfig(**SIZES | options).save_pretrained(folder)
    return folder / "config.json"


def make_model(folder, cls=MsaForMaskedLM, **options):
    """Save a small model with random weights, every one of which matters."""
    import torch

    model = cls(MsaConfig(**SIZES | options))
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.1)
    model.save_pretrained(folder)
    MsaTokenizer(model_max_length=64, model_max_depth=32).save_pretrained(folder)
    return folder


def make_known(folder):
    """Fill a folder: a model, families f0 .. f7 and contact maps of them in maps/, listed in families.tsv."""
    families = make_folder(folder / "families")
    make_labels(folder / "labels", families)
    lines = [f"families/{name}.a3m\tlabels/maps/{name}.npy\n" for name in families]
    (folder / "families.tsv").write_text("# made up\n\n" + "".join(lines))
    make_model(folder / "model")
    return folder
