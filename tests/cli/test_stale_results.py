"""A result is kept only if it is what the same command would make now; otherwise it is made again, with the reason.

Each command runs into a folder; something is changed; the second run must leave what a run into a new folder leaves,
make no result again that nothing has changed for, and say why it makes one again.
"""

import os
import re
import shutil
from pathlib import Path

import hub_server
import numpy as np
import pytest
import torch
from families import family, make_folder, make_model
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from modeling_msa import (
    Alignment,
    DistanceModel,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    load_model,
    write_alignment,
)
from modeling_msa.cli import app, runs
from modeling_msa.sharing_msa_transformer import DIGESTS
from modeling_msa.tasks import distance_model

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ["f0", "f1", "f2"]
COMMANDS = {
    "contacts": "contacts families -o out --structure maps",
    "contacts beside": "contacts families -o out --baseline mi --enrichment tsv --row-maps npz --map-layers 1",
    "score": "score families -o out --variants tables --strategy wt-marginals",
    "sequences": "score families -o out --sequences sequences --per-residue",
    "singles": "score families -o out --all-singles --strategy wt-marginals",
    "report": "report families -o out --structure maps --baseline mi",
    "profile": "profile families -o out --mode fast",
    "jacobian": "jacobian families -o out --structure maps --pairs 3",
    "embed": "embed families -o out",
    "embed variants": "embed families -o out --variants tables --mode fast",
    "embed in one file": "embed families -o out/all.npz",
    "generate": "generate families -o out --iterations 1",
    "pair": "pair families partners -o out --species species.csv",
    "proteingym": "proteingym reference.csv --msas families --assays tables -o out --seeds 1,2",
    "distances": "distances families -o out --weights weights.json --rows 4",
    "evaluate-contacts": "evaluate-contacts families.tsv -o out/all.tsv",
    "predict": "predict families -o out",
    "predict in one file": "predict families -o out/all.tsv",
    "predict variants": "predict families -o out --variants tables",
}
HEADS = {"predict": MsaForTokenClassification} | dict.fromkeys(
    ("predict in one file", "predict variants"), MsaForSequenceClassification
)
IN_ONE_FILE = ("embed in one file", "evaluate-contacts", "predict in one file")
WITH_TABLE = ["score", "predict variants", "embed variants", "proteingym"]
WITH_STRUCTURE = ["contacts", "report", "jacobian", "evaluate-contacts"]
WITH_WINDOWS = ["contacts", "report", "embed", "embed in one file", "distances", "evaluate-contacts"]
ALL = dict.fromkeys(COMMANDS, NAMES)
WITH_SEED = [name for name in COMMANDS if name != "proteingym"]


def msa(arguments, code=0):
    words = arguments.split()
    if words[0] == "predict":  # the model is its first argument
        place = words.index("--model")
        words = [words[0], words[place + 1], *words[1:place], *words[place + 2 :]]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def contents(folder):
    """Results by name; of files of arrays the arrays, as the headers are written in any order."""
    found = {}
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if path.suffix in (".npz", ".safetensors"):
            found[path.name] = {key: array.tobytes() for key, array in arrays(path).items()}
        else:
            found[path.name] = path.read_bytes()
    return found


def arrays(path):
    return dict(np.load(path)) if path.suffix == ".npz" else load_arrays(path)


def keep_date(path, write):
    found = path.stat()
    write()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def write_family(folder, name, seed):
    """The query is always that of its name."""
    rows = [family(name, 4, 14, NAMES.index(name)).query, *family(name, 4, 14, seed).sequences[1:]]
    write_alignment(Alignment.from_sequences(rows, [f"{name}/{k}" for k in range(4)]), folder / f"{name}.a3m")


def write_families(folder, seed=0):
    for k, name in enumerate(NAMES):
        write_family(folder, name, k + seed)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder for each command, with what it reads and its results in out/."""
    root = tmp_path_factory.mktemp("done")
    start = root / "start"
    make_model(start / "model")
    for name in ("families", "partners", "tables", "sequences", "maps"):
        (start / name).mkdir()
    write_families(start / "families")
    for k, name in enumerate(NAMES):
        query = family(name, 4, 14, k).query
        (start / "tables" / f"{name}.csv").write_text(
            f"DMS_score,DMS_score_bin,mutant\n1,1,{query[0]}1A\n0,0,{query[2]}3W\n"
        )
        (start / "sequences" / f"{name}.fasta").write_text(
            f">a\n{query[:5]}{query[6:]}\n>b\n{query[:5]}GG{query[5:]}\n"
        )
        known = np.zeros((14, 14), dtype=np.int8)
        known[1, 9] = known[9, 1] = known[0, 12] = known[12, 0] = 1
        np.save(start / "maps" / f"{name}.npy", known)
        write_alignment(family(name, 4, 9, k + 30), start / "partners" / f"{name}.a3m")
    species = [f"{name}/{k},{k // 3}\n" for name in NAMES for k in range(1, 4)]
    (start / "species.csv").write_text("".join(["name,species\n", *species]))
    queries = {name: family(name, 4, 14, k).query for k, name in enumerate(NAMES)}
    rows = [f"{name},{name}.csv,P,{query},{name}.a3m,Human,Activity" for name, query in queries.items()]
    header = "DMS_id,DMS_filename,UniProt_ID,target_seq,MSA_filename,taxon,coarse_selection_type"
    (start / "reference.csv").write_text("\n".join([header, *rows, ""]))
    (start / "families.tsv").write_text("".join(f"families/{name}.a3m\tmaps/{name}.npy\n" for name in NAMES))
    write_weights(start, 1.0)
    folders = {}
    for number, (name, command) in enumerate(COMMANDS.items()):
        folders[name] = Path(shutil.copytree(start, root / str(number)))
        (folders[name] / "out").mkdir()
        if name in HEADS:
            make_model(folders[name] / "model", HEADS[name])
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folders[name])
            msa(f"{command} --model model")
    return folders


def write_weights(folder, intercept):
    """For the model that column attention's queries and keys tell from others."""
    fingerprint = distance_model._fingerprint(load_model(folder / "model"))
    weights = DistanceModel("model", np.full((2, 2), -0.5), intercept, fingerprint, (("q", 4, 14),), 6, 0.5)
    weights.save(folder / "weights.json")


@pytest.fixture
def folder(request, done, tmp_path, monkeypatch):
    """A copy, in which also the inodes of all files are others."""
    folder = Path(shutil.copytree(done[request.param], tmp_path / "here"))
    monkeypatch.chdir(folder)
    return folder


def other_input(folder):
    write_family(folder / "families", "f1", 9)


def older_input(folder):
    other_input(folder)
    os.utime(folder / "families" / "f1.a3m", (10**9, 10**9))


def one_letter_and_the_same_date(folder):
    path = folder / "families" / "f1.a3m"
    text = path.read_text()
    keep_date(path, lambda: path.write_text(text[:-2] + ("A" if text[-2] != "A" else "C") + "\n"))


def other_inputs_of_the_same_names(folder):
    write_families(folder / "families", seed=20)


def other_table(folder):
    path = folder / "tables" / "f1.csv"
    keep_date(path, lambda: path.write_text(path.read_text()[:-2] + "Y\n"))


def other_sequences(folder):
    path = folder / "sequences" / "f1.fasta"
    keep_date(path, lambda: path.write_text(path.read_text().replace("GG", "PP")))


def other_structure(folder):
    path = folder / "maps" / "f1.npy"
    known = np.load(path)
    known[2, 11] = known[11, 2] = 1
    keep_date(path, lambda: np.save(path, known))


def other_partner(folder):
    path = folder / "partners" / "f1.a3m"
    keep_date(path, lambda: path.write_text(path.read_text()[:-2] + "W\n"))


def other_species(folder):
    path = folder / "species.csv"
    keep_date(path, lambda: path.write_text(path.read_text()[:-2] + "2\n"))


def other_model_of_the_same_date(folder):
    path = folder / "model" / "model.safetensors"
    weights = load_file(path)
    for name, tensor in weights.items():
        if "column_attention" not in name:  # or the weights of distances would not fit
            tensor += 0.05 * torch.sin(torch.arange(tensor.numel())).view_as(tensor)
    (folder / "model" / DIGESTS).unlink(missing_ok=True)  # or the weights would be taken for damaged ones
    keep_date(path, lambda: save_file(weights, path, {"format": "pt"}))


def other_config(folder):
    path = folder / "model" / "config.json"
    keep_date(
        path, lambda: path.write_text(path.read_text().replace('"layer_norm_eps": 1e-05', '"layer_norm_eps": 0.01'))
    )
    assert '"layer_norm_eps": 0.01' in path.read_text()


def other_weights_of_distances(folder):
    write_weights(folder, 2.0)


def truncated(folder):
    for path in (folder / "out").iterdir():
        if path.stem in ("f1", "all") and path.suffix != ".png":
            os.truncate(path, path.stat().st_size // 2)


def removed(folder):
    for path in (folder / "out").iterdir():
        if path.stem in ("f1", "all"):
            path.unlink()


def side_file_removed(folder):
    for name in (
        "f1.precision.tsv",
        "f1.pairs.tsv",
        "f1.partners.tsv",
        "f1.enrichment.tsv",
        "f1.residues.csv",
        "f1.generated.tsv",
        "all.means.tsv",
    ):
        (folder / "out" / name).unlink(missing_ok=True)


def nothing(folder):
    pass


ONE = ["f1"]
CHANGES = {  # what is done, to which commands, further options, results that are made again, what is said
    "input": (other_input, ALL, "", ONE, "the alignment has changed: f1"),
    "older input": (older_input, ALL, "", ONE, "the alignment has changed: f1"),
    "letter": (one_letter_and_the_same_date, ALL, "", ONE, "the alignment has changed: f1"),
    "inputs": (other_inputs_of_the_same_names, ALL, "", NAMES, "the alignment has changed: f0, f1, f2"),
    "table": (other_table, WITH_TABLE, "", ONE, "the table has changed: f1"),
    "sequences": (other_sequences, ["sequences"], "", ONE, "the file of sequences has changed: f1"),
    "partner": (other_partner, ["pair"], "", ONE, "the second alignment has changed: f1"),
    "species": (other_species, ["pair"], "", NAMES, "the table of species has changed: f0, f1, f2"),
    "structure": (other_structure, WITH_STRUCTURE, "", ONE, "the structure has changed: f1"),
    "model": (other_model_of_the_same_date, ALL, "", NAMES, "the model's model.safetensors has changed: f0, f1, f2"),
    "config": (other_config, ALL, "", NAMES, "the model's config.json has changed: f0, f1, f2"),
    "weights": (other_weights_of_distances, ["distances"], "", NAMES, "the file of weights has changed"),
    "option": (nothing, ALL, "--rows 3", NAMES, "rows was .*, is now 3: f0, f1, f2"),
    "other seed": (nothing, WITH_SEED, "--seed 7", NAMES, "seed was 0, is now 7"),
    "other seeds": (nothing, ["proteingym"], "--seeds 1,7", NAMES, r"seed was \[1, 2\], is now \[1, 7\]"),
    "window": (nothing, WITH_WINDOWS, "--window 9", NAMES, "window was none, is now 9"),
    "overlap": (nothing, WITH_WINDOWS, "--overlap 5", NAMES, "overlap was none, is now 5"),
    "truncated": (truncated, ALL, "", ONE, "was changed: f"),
    "removed": (removed, ALL, "", ONE, "is missing or was changed: f"),
    "side file": (
        side_file_removed,
        ["contacts", "contacts beside", "sequences", "jacobian", "generate", "pair", "evaluate-contacts"],
        "",
        ONE,
        r"sv is missing or was changed: f",
    ),
}
CASES = [pytest.param(name, change, id=f"{name}, {change}") for change, case in CHANGES.items() for name in case[1]]


@pytest.mark.parametrize(("folder", "change"), CASES, indirect=["folder"])
def test_what_differs_is_made_again(folder, change, request):
    name = request.node.callspec.params["folder"]
    act, _, options, made, words = CHANGES[change]
    if name == "distances" and change == "option":
        pytest.skip("four rows are the fewest")
    act(folder)
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "out").iterdir()}
    command = f"{COMMANDS[name]} --model model {options}"
    shown = msa(command)
    assert re.search(f"made again, because .*{words}", shown)
    kept = set(NAMES) - set(made) if name not in IN_ONE_FILE else ()
    for path in (folder / "out").iterdir():
        if path.name.split(".")[0] in kept:
            assert path.stat().st_mtime_ns == before[path.name]
    (folder / "new").mkdir()
    msa(command.replace(" out", " new"))
    assert contents(folder / "out") == contents(folder / "new")


def test_a_table_is_not_all_singles(done, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(done["singles"], tmp_path / "here"))
    monkeypatch.chdir(folder)
    assert "the table is new: f0, f1, f2" in msa(f"{COMMANDS['score']} --model model")
    msa(f"{COMMANDS['score']} --model model".replace(" out", " new"))
    assert contents(folder / "out") == contents(folder / "new")
    assert "the table is left out: f0, f1, f2" in msa(f"{COMMANDS['singles']} --model model")


def touched(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path)


def copied_model(folder):
    shutil.copytree(folder / "model", folder / "copy")


NO_CHANGES = {
    "again": (nothing, "--model model"),
    "dates": (touched, "--model model"),
    "spelling": (nothing, "--model ./families/../model"),
    "copy": (copied_model, "--model copy"),
    "strict": (nothing, "--model model --strict --device cpu"),
}


@pytest.mark.parametrize("change", NO_CHANGES)
@pytest.mark.parametrize("folder", COMMANDS, indirect=True)
def test_what_does_not_differ_is_kept(folder, change, request):
    name = request.node.callspec.params["folder"]
    act, options = NO_CHANGES[change]
    act(folder)
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "out").iterdir() if path.name[0] != "."}
    shown = msa(f"{COMMANDS[name]} {options}")
    assert re.search("3 (alignments|assays), 3 of them finished before", shown)
    assert "made again" not in shown
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "out").iterdir() if path.name[0] != "."} == before


@pytest.mark.parametrize("folder", ["contacts"], indirect=True)
def test_a_picture_can_be_added_and_goes_with_its_result(folder):
    """The old picture of a result that is made again without one would be another result's."""
    msa("contacts families -o plain --model model")
    assert "made again" in msa("contacts families -o plain --model model --plot svg")
    assert {path.name for path in (folder / "plain").glob("*.svg")} == {f"{name}.contacts.svg" for name in NAMES}
    (folder / "plain" / "f1.contacts.svg").unlink()
    again = msa("contacts families -o plain --model model --plot svg")
    assert "made again, because NAME.contacts.svg is missing or was changed: f1" in again
    assert "3 of them finished before" in msa("contacts families -o plain --model model")
    other_input(folder)
    msa("contacts families -o plain --model model")
    assert {path.name for path in (folder / "plain").glob("*.svg")} == {"f0.contacts.svg", "f2.contacts.svg"}


@pytest.mark.parametrize("folder", ["embed"], indirect=True)
def test_a_new_version_makes_results_again(folder, monkeypatch):
    monkeypatch.setattr(runs, "__version__", "99.0")
    assert re.search(r"version was .*, is now 99.0: f0, f1, f2", msa("embed families -o out --model model"))


@pytest.mark.parametrize("folder", ["embed in one file"], indirect=True)
def test_an_interrupted_file_is_not_gathered_from_two_inputs(folder):
    """The first run ends before f2; then f0 is another family."""
    (folder / "out" / "all.npz").unlink()
    good = (folder / "families" / "f2.a3m").read_text()
    (folder / "families" / "f2.a3m").write_text(">q\nMK\n>r\nMKL\n")
    msa(f"{COMMANDS['embed in one file']} --model model", code=1)
    (folder / "families" / "f2.a3m").write_text(good)
    write_family(folder / "families", "f0", 9)
    assert "the alignment has changed: f0" in msa(f"{COMMANDS['embed in one file']} --model ./model")
    (folder / "new").mkdir()
    msa(f"{COMMANDS['embed in one file']} --model model".replace(" out", " new"))
    whole, new = (arrays(folder / name / "all.npz") for name in ("out", "new"))
    assert all(np.array_equal(whole[name], new[name]) for name in NAMES)


@pytest.mark.parametrize("folder", ["embed in one file"], indirect=True)
def test_a_file_of_other_alignments_is_made_again(folder):
    (folder / "families" / "f1.a3m").unlink()
    msa(f"{COMMANDS['embed in one file']} --model model")
    assert set(arrays(Path("out/all.npz"))) == {"f0", "f2", "__metadata__"}


@pytest.mark.parametrize("folder", ["embed"], indirect=True)
def test_weights_in_a_bin(folder):
    path = folder / "model" / "pytorch_model.bin"
    weights = load_file(folder / "model" / "model.safetensors")
    torch.save(weights, path)
    (folder / "model" / "model.safetensors").unlink()
    msa("embed families -o bin --model model")
    name = "msa.encoder.layer.0.row_attention.norm.bias"
    name = next(name for name in weights if name.endswith("bias"))
    weights[name] += 1
    keep_date(path, lambda: torch.save(weights, path))
    assert "the model's pytorch_model.bin has changed: f0, f1, f2" in msa("embed families -o bin --model model")


def test_new_weights_on_a_branch_of_the_hub(tmp_path, monkeypatch):
    make_folder(tmp_path / "families", 2)
    model = make_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    with hub_server.running() as hub:
        hub.here(monkeypatch, tmp_path / "home", hub_server.WRITE)
        hub.create("me/small")
        hub.seed("me/small", model)
        msa("embed families -o out --model me/small")
        assert "2 of them finished before" in msa("embed families -o out --model me/small")
        assert "2 of them finished before" in msa("embed families -o out --model model")  # these are its weights
        other_model_of_the_same_date(tmp_path)
        hub.seed("me/small", model)
        assert "the model's model.safetensors has changed: f0, f1" in msa("embed families -o out --model me/small")
    hub_server.huggingface_hub.utils.close_session()
    msa("embed families -o new --model model")
    assert contents(tmp_path / "out") == contents(tmp_path / "new")
