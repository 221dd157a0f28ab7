"""Continued pretraining on one family: perplexity of masked residues in held-out rows, before and after.

    python benchmarks/continue_family.py family.a3m [--model modeling_msa/checkpoints/msa-tiny] [--steps 300]

A fifth of the rows is drawn to be held out. Drawn rows that are more than 80 % identical to a training row, or to an
earlier held-out row, are dropped from both sets. The model sees the query and training rows unmasked, and some
held-out rows with a seventh of their residues masked, in seven turns, so that each residue is predicted once; the
masks are the same before and after. Gaps do not count, and probabilities are normalised over the 20 amino acids:
guessing has perplexity 20. For comparison a profile, the residue frequencies of each column of the training rows, is
printed too.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

from modeling_msa import (
    Alignment,
    MsaDataCollatorForMaskedLM,
    MsaDataset,
    MsaForMaskedLM,
    MsaTokenizer,
    read_alignment,
)
from modeling_msa.alignments.sampling import diverse_rows

MODEL = Path(__file__).parents[1] / "modeling_msa" / "checkpoints" / "msa-tiny"
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
TURNS = 7  # a seventh is near the 15 % of pretraining


def identities(array: np.ndarray) -> np.ndarray:
    """Identity of every two rows over the columns in which both have a residue, (R, R); 0 without such columns."""
    letters = [(array == ord(letter)).astype(np.float32) for letter in AMINO_ACIDS]
    residues = sum(letters)
    return sum(letter @ letter.T for letter in letters) / np.maximum(residues @ residues.T, 1)


def hold_out(array: np.ndarray, fraction: float, identity: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on, the query first, and rows held out."""
    drawn = np.random.default_rng(seed).permutation(np.arange(1, len(array)))
    count = round(fraction * len(array))
    training = np.sort(np.append(drawn[count:], 0))
    alike = identities(array)
    held_out: list[int] = []
    for row in drawn[:count]:
        if alike[row, training].max() <= identity and alike[row, held_out].max(initial=0) <= identity:
            held_out.append(int(row))
    if not held_out:
        raise ValueError(f"no row drawn is at most {identity:.0%} identical to all others: pass a higher --identity")
    return training, np.sort(held_out)


def masked_turns(array: np.ndarray, seed: int) -> np.ndarray:
    """The turn in which each residue is masked, -1 where there is no residue; same shape as `array`."""
    turns = np.random.default_rng(seed).integers(0, TURNS, array.shape)
    return np.where(np.isin(array, [ord(letter) for letter in AMINO_ACIDS]), turns, -1)


@torch.no_grad()
def perplexity(
    model: MsaForMaskedLM,
    family: Alignment,
    training: np.ndarray,
    held_out: np.ndarray,
    rows: int = 128,
    seed: int = 0,
) -> tuple[float, int]:
    """Perplexity of the residues of `held_out`, and their number; a quarter of the `rows` shown are held out."""
    tokenizer = MsaTokenizer()
    letters = torch.tensor(tokenizer.convert_tokens_to_ids(list(AMINO_ACIDS)))
    step = max(1, rows // 4)
    context = training[diverse_rows(family.array[training], rows - step)]
    all_turns = masked_turns(family.array, seed)
    was_training = model.training
    model.eval()
    loss, count = 0.0, 0
    for start in range(0, len(held_out), step):
        shown = np.append(context, held_out[start : start + step])
        ids = tokenizer(family.take(shown), return_tensors="pt")["input_ids"]
        turns = torch.from_numpy(np.pad(all_turns[shown], ((0, 0), (1, 0)), constant_values=-1))[None]
        turns[:, : len(context)] = -1
        for turn in range(TURNS):
            masked = turns == turn
            inputs = ids.masked_fill(masked, tokenizer.mask_token_id)
            logits = model(inputs.to(model.device)).logits.cpu()[masked][:, letters].float()
            right = (ids[masked][:, None] == letters).int().argmax(1)
            loss += torch.nn.functional.cross_entropy(logits, right, reduction="sum").item()
            count += len(right)
    model.train(was_training)
    return float(np.exp(loss / count)), count


def profile_perplexity(array: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> float:
    """Perplexity of the residues of `held_out` by the column frequencies of `training`, with a pseudocount of 10."""
    one_hot = np.stack([array == ord(letter) for letter in AMINO_ACIDS], axis=-1).astype(float)  # (R, L, 20)
    counts = one_hot[training].sum(0)
    background = counts.sum(0) / counts.sum()
    frequencies = (counts + 10 * background) / (counts.sum(1, keepdims=True) + 10)
    surprise = -(one_hot[held_out] * np.log(np.maximum(frequencies, 1e-9))).sum()
    return float(np.exp(surprise / one_hot[held_out].sum()))


def train(
    model: MsaForMaskedLM, family: Alignment, steps: int, learning_rate: float, max_tokens: int, seed: int
) -> None:
    """Masked language modelling on `family`, with other rows and masks at each step."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            max_steps=steps,
            learning_rate=learning_rate,
            warmup_steps=steps // 10,
            lr_scheduler_type="linear",
            per_device_train_batch_size=1,
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            dataloader_pin_memory=torch.cuda.is_available(),
            report_to=[],
            disable_tqdm=True,
            seed=seed,
        )
        collator = MsaDataCollatorForMaskedLM(MsaTokenizer(), max_tokens=max_tokens, mask_gaps=False, seed=seed)
        dataset = MsaDataset([family] * steps)  # each is a visit of its own
        Trainer(model, arguments, train_dataset=dataset, data_collator=collator).train()


def continue_family(
    model: MsaForMaskedLM,
    family: Alignment,
    steps: int = 300,
    learning_rate: float = 1e-3,
    max_tokens: int = 2**12,
    fraction: float = 0.2,
    identity: float = 0.8,
    seed: int = 0,
) -> dict[str, float]:
    """Train `model` on `family` without the held-out rows; return what was measured."""
    training, held_out = hold_out(family.array, fraction, identity, seed)
    rows = min(128, max(4, max_tokens // (family.length + 1)))
    before, residues = perplexity(model, family, training, held_out, rows, seed)
    start = time.perf_counter()
    train(model, family.take(training), steps, learning_rate, max_tokens, seed)
    seconds = time.perf_counter() - start
    return {
        "training rows": len(training),
        "held-out rows": len(held_out),
        "residues": residues,
        "profile": profile_perplexity(family.array, training, held_out),
        "before": before,
        "after": perplexity(model, family, training, held_out, rows, seed)[0],
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "families", nargs="+", type=Path, metavar="FILE", help="alignment; several are trained on separately"
    )
    parser.add_argument("--model", default=MODEL, help="folder of a masked language model")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--max-tokens", type=int, default=2**12, help="maximum rows x columns of a step")
    parser.add_argument("--fraction", type=float, default=0.2, help="fraction of rows drawn to be held out")
    parser.add_argument(
        "--identity", type=float, default=0.8, help="maximum identity of a held-out row to any other row"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    folder, files = options.pop("model"), options.pop("families")
    print(
        f"perplexity of masked residues; {options['steps']} steps of {options['max_tokens']} tokens at most; {folder}"
    )
    for file in files:
        result = continue_family(MsaForMaskedLM.from_pretrained(folder), read_alignment(file), **options)
        print(f"{file.name}: {result['training rows']} rows trained on, {result['held-out rows']} held out "
              f"({result['residues']} residues); before {result['before']:.2f}, after {result['after']:.2f}, "
              f"profile {result['profile']:.2f}; {result['seconds']:.0f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
