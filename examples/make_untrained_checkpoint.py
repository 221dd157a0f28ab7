"""Write a small MSA Transformer with random weights as fair-esm's files: something to convert where no trained
checkpoint is at hand. Its predictions mean nothing.

    python examples/make_untrained_checkpoint.py NAME.pt
"""

import sys
import tempfile
from pathlib import Path

import torch
from transformers.utils import logging

from modeling_msa import MsaConfig, MsaForMaskedLM, revert_checkpoint

SEED = 0
CONFIG = Path(__file__).resolve().parents[1] / "configuration" / "models" / "msa-tiny"


def main(output: str) -> None:
    logging.disable_progress_bar()
    torch.manual_seed(SEED)
    model = MsaForMaskedLM(MsaConfig.from_pretrained(CONFIG)).eval()
    # wider than a fresh model's weights, whose attention maps are nearly flat, and a regression that is not zero
    with torch.no_grad():
        for layer in model.msa.layers:
            for projection in (layer.row_attention.q_proj, layer.row_attention.k_proj):
                projection.weight.normal_(std=0.3)
        model.msa.contact_head.regression.weight.normal_(std=3.0)
        model.msa.contact_head.regression.bias.fill_(-3.0)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        revert_checkpoint(folder, output)


if __name__ == "__main__":
    main(*sys.argv[1:])
