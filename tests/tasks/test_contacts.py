"""The contract of contact maps: pairs are residue numbers of the query, whatever the alignment looks like."""

import numpy as np
from small import small_model

from modeling_msa import Alignment, MsaModel, predict_contacts


def test_pairs_are_query_residue_numbers():
    """Residues 1 and 2 are insertions, column 2 is a gap of the query: neither is in the map."""
    family = Alignment.from_sequences(["mkVL-AWY", "VIGAWY", "-LGAFF"])
    model = small_model(MsaModel)
    contacts = predict_contacts(family, model)
    assert contacts.query == "MKVLAWY"
    assert contacts.residues.tolist() == [3, 4, 5, 6, 7]
    assert contacts.probabilities.shape == (5, 5)
    # the model saw the other columns
    same = predict_contacts(Alignment.from_sequences(["VLAWY", "VIAWY", "-LAFF"]), model)
    assert np.array_equal(same.probabilities, contacts.probabilities)
