"""Metrics of evaluation during training, from a few numbers per alignment.

Logits of a masked language model, ``(B, R, C, V)``, are too large to be kept or sent between processes, and batches of
different shapes cannot be concatenated. Each class here reduces a batch to ``(B, k)`` numbers at once
(`Statistics.per_example`) and computes the metrics from all of them at the end (`Statistics.summarise`): over all
targets, whatever batches they came in.

A metric that is not defined, such as the rank correlation of constants, is there and NaN: a missing one would end a
run that looks for its best checkpoint, and NaN is never better than another value.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..tasks.contact_precision import precision


class Statistics:
    """Base class: what a metric provides.

    transformers' own Trainer uses one in evaluation, with alignments of any sizes, on one device::

        arguments = TrainingArguments(..., eval_do_concat_batches=False)
        Trainer(
            ..., preprocess_logits_for_metrics=metric.reduce, compute_metrics=metric.compute
        )
    """

    def reduce(self, logits: Any, labels: torch.Tensor) -> torch.Tensor:
        """Reduce a batch as transformers' ``preprocess_logits_for_metrics``: see `per_example`."""
        return self.per_example(logits[0] if isinstance(logits, tuple) else logits, labels)

    def compute(self, prediction: Any) -> dict[str, float]:
        """Compute metrics as transformers' ``compute_metrics``: see `summarise`.

        `prediction` is its EvalPrediction, whose predictions are what `reduce` returned: an array, or a list of them.
        """
        numbers = prediction.predictions
        return self.summarise(np.concatenate(numbers) if isinstance(numbers, list) else numbers)

    def summarise(self, numbers: np.ndarray) -> dict[str, float]:
        """Compute metrics from the numbers of all examples, ``(N, k)``; all are NaN if the loss is.

        ``loss`` is the mean over targets, NaN without any.
        """
        figures = self._figures(numbers)
        return dict.fromkeys(figures, math.nan) if math.isnan(figures["loss"]) else figures

    def per_example(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Reduce a batch to numbers, float32 ``(B, k)``."""
        raise NotImplementedError

    def _figures(self, numbers: np.ndarray) -> dict[str, float]:
        raise NotImplementedError

    def count_right(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor | int, torch.Tensor | int]:
        """Count correctly predicted targets, and targets; 0 and 0 if the metric has no such notion."""
        return 0, 0

    def of_loss(self, loss: float) -> dict[str, float]:
        """Metrics that follow from a mean loss."""
        return {}


class Classes(Statistics):
    """Cross-entropy, accuracy and macro F1 of classes; logits ``(B, ..., K)``, labels ``(B, ...)``, -100 for unknown.

    Macro F1 is the mean F1 of the classes that occur in the labels or the predictions.

    Examples
    --------
    >>> import torch
    >>> metric = Classes()
    >>> logits = torch.tensor([[[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]])
    >>> numbers = metric.per_example(logits, torch.tensor([[0, 1, 1]]))
    >>> figures = metric.summarise(numbers.numpy())
    >>> {name: round(value, 3) for name, value in figures.items()}
    {'loss': 0.794, 'accuracy': 0.667, 'macro_f1': 0.667}
    """

    def per_example(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Reduce to: sum of losses, targets, correct ones; and per class: correct, predicted and actual ones."""
        labels = labels.to(logits.device)
        known = labels != -100
        example = known.nonzero()[:, 0]
        predictions, targets = logits[known].float(), labels[known]
        losses = F.cross_entropy(predictions, targets, reduction="none")
        guesses = predictions.argmax(-1)
        right = guesses == targets
        columns = torch.stack([losses, torch.ones_like(losses), right.float()], 1)
        columns = torch.cat([columns, self._per_class(guesses, targets, logits.shape[-1])], 1)
        return columns.new_zeros(len(labels), columns.shape[1]).index_add(0, example, columns)

    def _per_class(self, guesses: torch.Tensor, targets: torch.Tensor, classes: int) -> torch.Tensor:
        guessed, actual = (F.one_hot(ids, classes).float() for ids in (guesses, targets))
        return torch.cat([guessed * actual, guessed, actual], 1)

    def _figures(self, numbers: np.ndarray) -> dict[str, float]:
        loss, count, right, *per_class = numbers.sum(0, dtype=np.float64)
        both, guessed, actual = np.reshape(per_class, (3, -1))
        seen = guessed + actual > 0
        f1 = 2 * both[seen] / (guessed + actual)[seen]
        return {
            "loss": _ratio(loss, count),
            "accuracy": _ratio(right, count),
            "macro_f1": _ratio(f1.sum(), seen.sum()),
        }

    def count_right(self, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Count correctly predicted targets, and targets."""
        known = labels != -100
        return (logits.detach()[known].argmax(-1) == labels[known]).sum(), known.sum()


class Tokens(Classes):
    """Loss, perplexity and accuracy of masked tokens; logits ``(B, R, C, V)``, labels ``(B, R, C)``."""

    def _per_class(self, guesses: torch.Tensor, targets: torch.Tensor, classes: int) -> torch.Tensor:
        return guesses.new_zeros(len(guesses), 0).float()

    def _figures(self, numbers: np.ndarray) -> dict[str, float]:
        loss, count, right = numbers.sum(0, dtype=np.float64)
        mean = _ratio(loss, count)
        return {"loss": mean, "accuracy": _ratio(right, count), **self.of_loss(mean)}

    def of_loss(self, loss: float) -> dict[str, float]:
        """Perplexity: the exponential of the loss."""
        return {"perplexity": math.exp(min(loss, 700.0))}


class Values(Statistics):
    """Mean squared error and Spearman's rank correlation of values; logits and labels ``(B,)`` or ``(B, n)``.

    The correlation of several values is the mean of each one's; NaN if predictions or targets of one are constant.
    """

    def per_example(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Concatenate predictions and targets."""
        logits = logits.reshape(len(logits), -1)
        return torch.cat([logits, labels.to(logits.device).reshape(len(labels), -1)], 1).float()

    def _figures(self, numbers: np.ndarray) -> dict[str, float]:
        from scipy.stats import spearmanr

        predictions, targets = np.split(numbers.astype(np.float64), 2, axis=1)
        constant = (np.ptp(predictions, axis=0) == 0) | (np.ptp(targets, axis=0) == 0)
        correlation = math.nan
        if not constant.any():  # scipy would warn
            pairs = zip(predictions.T, targets.T, strict=True)
            correlation = float(np.mean([spearmanr(*pair).statistic for pair in pairs]))
        return {"loss": float(((predictions - targets) ** 2).mean()), "spearman": correlation}


class Contacts(Statistics):
    """Cross-entropy of pairs, and precision of the L pairs with the highest scores; logits ``(B, L, L)``.

    ``p_at_l`` counts pairs at least 6 apart, ``long_p_at_l`` at least 24 apart; both are means over the queries that
    have such pairs (`modeling_msa.precision`), NaN if none has.
    """

    def per_example(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Reduce to: sum of losses, targets, P@L and long-range P@L (NaN without such pairs)."""
        labels = labels.to(logits.device)
        real = logits.diagonal(dim1=1, dim2=2) != torch.finfo(logits.dtype).min  # (B, L): not padding; NaN stays
        numbers = []
        for scores, contacts, columns in zip(logits.float(), labels, real, strict=True):
            scores, contacts = scores[columns][:, columns], contacts[columns][:, columns].long()
            known = contacts != -100
            loss = F.binary_cross_entropy_with_logits(scores[known], contacts[known].float(), reduction="sum")
            residues = int(known.any(0).sum())
            arrays = scores.nan_to_num().cpu().numpy(), contacts.cpu().numpy()  # the loss tells of NaN
            found = [precision(*arrays, top=max(1, residues), min_separation=least) for least in (6, 24)]
            numbers.append([loss.item(), int(known.sum()), *found])
        return torch.tensor(numbers, dtype=torch.float32, device=logits.device)

    def _figures(self, numbers: np.ndarray) -> dict[str, float]:
        figures = {"loss": _ratio(*numbers[:, :2].sum(0, dtype=np.float64))}
        for name, values in (("p_at_l", numbers[:, 2]), ("long_p_at_l", numbers[:, 3])):
            figures[name] = _ratio(np.nansum(values), np.count_nonzero(~np.isnan(values)))
        return figures


def _ratio(total: Any, count: Any) -> float:
    return float(total / count) if count else math.nan


def metric_for(objective: str, problem_type: Any = None) -> Statistics:
    """Choose the metric of an objective, for `Trainer` of transformers or for this package's.

    Parameters
    ----------
    objective : {"mlm", "contacts", "token", "sequence", "variants"}
        What the model is trained on, as in a recipe.
    problem_type : str, optional
        The config's; "regression" asks for the metric of values.

    Returns
    -------
    Statistics
        Its `reduce` is a ``preprocess_logits_for_metrics``, its `compute` a ``compute_metrics``; they require
        ``eval_do_concat_batches=False`` if alignments differ in size.
    """
    if objective == "mlm":
        return Tokens()
    if objective == "contacts":
        return Contacts()
    return Values() if problem_type == "regression" else Classes()
