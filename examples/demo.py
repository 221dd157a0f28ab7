"""What `make demo` runs: convert a checkpoint, load the folder as anyone would, draw a contact map, write a report.

    python examples/demo.py [CHECKPOINT]

Without CHECKPOINT (a fair-esm file, or a published name) it uses msa-small, which comes with the package, and
writes it as fair-esm's files first.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from modeling_msa import (
    bundled_family,
    bundled_structure,
    convert_checkpoint,
    precision,
    read_alignment,
    revert_checkpoint,
    structure_contacts,
)
from modeling_msa.hub.downloads import find_checkpoint
from modeling_msa.hub.finding import EMBEDDED, resolve_model
from modeling_msa.hub.loading import quiet_loading
from modeling_msa.tasks.contact_files import write_contacts
from modeling_msa.tasks.contacts import ContactMap
from modeling_msa.tasks.inputs import prepare_alignment
from modeling_msa.tasks.plotting import plot_contacts

ROOT = Path(__file__).resolve().parents[1]
DEMO = Path("demo")
ROWS = 256

# As in any other process: only torch and transformers, and the code that the folder brings.
LOAD_AND_PREDICT = """
import json, sys
sys.modules["modeling_msa"] = None  # importing it raises ImportError
import numpy as np
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()
folder, rows, output = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
inputs = tokenizer(json.load(open(rows)), return_tensors="pt")
np.save(output, model.predict_contacts(**inputs)[0].numpy())
print(f"loaded     {type(model).__module__.rsplit('.', 1)[0]}.{type(model).__name__}, without this package")
"""

NEXT = (
    "info fn3",
    "contacts fn3 --model demo/model --structure fn3 --baseline mi -o demo/compared.tsv --plot demo/compared.png",
    "score fn3 --model demo/model --all-singles --mode fast -o demo/scores.csv --plot demo/scores.png",
)


def main(checkpoint: str | None = None) -> None:
    quiet_loading()
    path = None
    if checkpoint is not None:  # found, and downloaded if needed, before the results of an earlier demo are removed
        path, _ = find_checkpoint(checkpoint)
        path = path.resolve()
    os.chdir(ROOT)
    DEMO.mkdir(exist_ok=True)
    shutil.rmtree(DEMO / "model", ignore_errors=True)
    if path is None:
        path = DEMO / f"{EMBEDDED}.pt"
        for old in DEMO.glob("msa-*.pt"):
            old.unlink()
        print(revert_checkpoint(resolve_model(EMBEDDED), path))
    print(convert_checkpoint(path, DEMO / "model"))

    whole = read_alignment(bundled_family())
    family, known = prepare_alignment(whole, ROWS), structure_contacts(bundled_structure(), whole)
    rows, array = DEMO / "rows.json", DEMO / "contacts.npy"
    rows.write_text(json.dumps(family.sequences))
    subprocess.run([sys.executable, "-c", LOAD_AND_PREDICT, DEMO / "model", rows, array], check=True)
    contacts = ContactMap(family.names[0], family.query, family.column_residues, np.load(array), family.depth)
    rows.unlink()
    array.unlink()

    write_contacts(contacts, DEMO / "contacts.tsv")
    plot_contacts(contacts, DEMO / "contacts.png", known=known)
    depth = f"{contacts.depth} of {whole.depth:,} sequences"
    found = precision(contacts, known)
    print(f"family     {contacts.name}, {len(contacts.residues)} residues, {depth}, P@L {found:.2f}")
    # msa-small by its name: the page then says what to expect of it
    model = EMBEDDED if checkpoint is None else DEMO / "model"
    report = ["report", "fn3", "-o", DEMO / "report.html", "--model", model, "--rows", str(ROWS), "--structure", "fn3"]
    subprocess.run([sys.executable, "-m", "modeling_msa.cli", *report], check=True, stdout=subprocess.DEVNULL)
    for name in ("contacts.tsv", "contacts.png", "report.html"):
        print(f"written    {DEMO / name}")
    command = Path(os.path.relpath(sys.executable)).with_name("msa")
    for line in NEXT:
        print(f"next       {command} {line}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
