"""Contract of the model.

- On unpadded input logits, hidden states, row maps, column maps and contacts are fair-esm's, to 1e-5 (times the
  tensor's largest magnitude where that is over 1), in every size, under every attention implementation, with and
  without gradients, in one piece and in blocks.
- An MSA's result, and its gradients, do not depend on what it is batched with. (fair-esm's do.)
- A padded entry has no influence, and is never NaN; a padded column's contacts are exactly zero.
- Every trainable parameter of every class gets a gradient from its loss, so that DDP works.
- Wrong input is refused before the model runs, with what to do.

Numbers come from fair-esm's own module, from hand-made formulas, or from finite differences.
"""

import math
import weakref

import fair_esm
import pytest
import torch
from small import (
    CLASSES,
    FLAGS,
    GAP,
    MSAS,
    PAD,
    TOLERANCE,
    batched,
    difference,
    gradients,
    labels_for,
    loss_of,
    no_warnings,
    per_class,
    random_tokens,
    small_config,
    small_model,
    tiny_model,
)
from torch.nn import functional as F

from modeling_msa import (
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaModel,
    inference_msa_transformer,
    modeling_msa_transformer,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# ------------------------------------------------------------------------------------------- equality with fair-esm


def fair_outputs(model, tokens):
    with torch.no_grad():
        outputs = model(tokens, repr_layers=range(model.num_layers + 1), return_contacts=True)
    return {
        "logits": outputs["logits"],
        "hidden_states": torch.stack([outputs["representations"][i] for i in range(model.num_layers + 1)]),
        "row maps": outputs["row_attentions"].transpose(0, 1),
        "column maps": outputs["col_attentions"].transpose(0, 1),
        "contacts": outputs["contacts"],
    }


def our_outputs(model, tokens):
    outputs = model(tokens, output_hidden_states=True, output_attentions=True)
    with_maps = model(tokens, output_column_attentions=True)  # always eager
    return {
        "logits": outputs.logits.detach(),
        "hidden_states": torch.stack(outputs.hidden_states).detach(),
        "row maps": torch.stack(outputs.attentions).detach(),
        "column maps": torch.stack(with_maps.column_attentions).detach(),
        "contacts": model.msa.contact_logits(tokens).logits.sigmoid().detach(),
    }


# forms of attention, and how the model runs: with gradients, without in one piece, without in blocks
RUNS = [("eager", "gradients"), ("eager", "blocks"), ("sdpa", "whole"), ("sdpa", "blocks")]
per_run = pytest.mark.parametrize(("attention", "mode"), RUNS)
# all of them for one class, which has the others' backbone
per_class_and_run = pytest.mark.parametrize(
    ("cls", "attention", "mode"),
    [(MsaForMaskedLM, *run) for run in RUNS] + [(cls, *RUNS[2]) for cls in CLASSES if cls is not MsaForMaskedLM],
)


def assert_equal_outputs(ours, fair):
    differences = {name: difference(ours[name], fair[name]) for name in fair}
    print({name: f"{value:.1e}" for name, value in differences.items()})
    assert max(differences.values()) <= TOLERANCE, differences


@per_run
def test_tiny_equals_fair_esm_on_a_real_alignment(converted, real_tokens, blocks, attention, mode):
    reference, folder = converted("msa-tiny")
    model = MsaForMaskedLM.from_pretrained(folder, attn_implementation=attention)
    tokens = real_tokens(rows=12)
    if mode == "blocks":
        blocks(400)
    with torch.set_grad_enabled(mode == "gradients"):
        assert_equal_outputs(our_outputs(model, tokens), fair_outputs(reference, tokens))


def test_full_size_equals_fair_esm_on_a_real_alignment(converted, real_tokens):
    """MSA-1b's size; MSA-1 differs in the row embedding alone."""
    reference, folder = converted("msa-1b")
    model = MsaForMaskedLM.from_pretrained(folder)
    assert model.config.num_hidden_layers == 12
    assert model.config.row_position_embedding_size == 768
    tokens = real_tokens(rows=6, columns=48)
    expected = fair_outputs(reference, tokens)
    for attention, mode in RUNS:
        model.set_attn_implementation(attention)
        with pytest.MonkeyPatch.context() as patch, torch.set_grad_enabled(mode == "gradients"):
            if mode == "blocks":
                patch.setattr(inference_msa_transformer, "tokens_per_block", lambda *_: 40)
            assert_equal_outputs(our_outputs(model, tokens), expected)
    assert difference(model.predict_contacts(tokens), expected["contacts"]) <= TOLERANCE


@pytest.mark.parametrize(("rows", "columns"), [(1, 40), (1, 2), (9, 2), (70, 5), (3, 1)])
def test_tiny_equals_fair_esm_on_other_shapes(converted, blocks, rows, columns):
    reference, folder = converted("msa-tiny")
    model = MsaForMaskedLM.from_pretrained(folder)
    tokens = random_tokens(rows, columns)
    expected = fair_outputs(reference, tokens)
    assert_equal_outputs(our_outputs(model, tokens), expected)
    blocks()
    with torch.no_grad():
        assert_equal_outputs(our_outputs(model, tokens), expected)


@pytest.mark.parametrize("width", [None, 1])
def test_other_row_embeddings_equal_fair_esm(tmp_path, width):
    """None, and one number for a row, as in MSA-1."""
    reference = fair_esm.random_model(2, 32, 4, 64, width)
    tokens = random_tokens(6, 20)
    with torch.no_grad():
        assert_equal_outputs(our_outputs(fair_esm.ours(reference, tmp_path), tokens), fair_outputs(reference, tokens))


def test_the_written_fixture_is_what_fair_esm_reads(tmp_path):
    written = fair_esm.random_model(*fair_esm.SIZES["msa-tiny"])
    read = fair_esm.read_published(fair_esm.write_published(written, tmp_path / "checkpoint.pt"))
    state = read.state_dict()
    assert state.keys() == written.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in written.state_dict().items())


def test_random_weights_exercise_the_whole_range(converted, real_tokens):
    reference, _ = converted("msa-tiny")
    outputs = fair_outputs(reference, real_tokens(rows=12))
    assert outputs["contacts"].min() < 0.05
    assert outputs["contacts"].max() > 0.95
    assert outputs["row maps"].max() > 0.3
    assert outputs["column maps"].max() > 0.5


# ------------------------------------------------------------------------------------------------- batch invariance


def alone_and_batched(model, **kwargs):
    """Outputs of each of MSAS alone, and its own part of the outputs of all in one padded batch."""
    together = model(batched(MSAS), **kwargs)
    for index, tokens in enumerate(MSAS):
        rows, columns = tokens.shape[1:]
        yield tokens, model(tokens, **kwargs), index, rows, columns, together


@per_class_and_run
def test_a_batch_equals_each_alone(tiny, blocks, cls, attention, mode):
    model = tiny_model(cls, tiny, attn_implementation=attention)
    if mode == "blocks":
        blocks()
    with torch.set_grad_enabled(mode == "gradients"):
        for _, alone, i, rows, columns, together in alone_and_batched(model, **FLAGS):
            for name in ("hidden_states", "attentions", "column_attentions"):
                assert len(getattr(together, name)) == len(getattr(alone, name)) >= 4
            for all_of_it, part in zip(together.hidden_states, alone.hidden_states, strict=True):
                assert difference(all_of_it[i : i + 1, :rows, :columns], part) <= TOLERANCE
            for all_of_it, part in zip(together.attentions, alone.attentions, strict=True):
                assert difference(all_of_it[i : i + 1, :, :columns, :columns], part) <= TOLERANCE
                assert (all_of_it[i, :, :, columns:] == 0).all()
            for all_of_it, part in zip(together.column_attentions, alone.column_attentions, strict=True):
                assert difference(all_of_it[i : i + 1, :, :columns, :rows, :rows], part) <= TOLERANCE
                assert (all_of_it[i, ..., rows:] == 0).all()
        plain = [output.get("logits", output[0]) for output in (model(batched(MSAS)), *map(model, MSAS))]
        for i, tokens in enumerate(MSAS):
            rows, columns = tokens.shape[1:]
            real = {
                MsaForContactPrediction: (slice(columns - 1), slice(columns - 1)),
                MsaForTokenClassification: (slice(columns),),
                MsaForSequenceClassification: (),
            }.get(cls, (slice(rows), slice(columns)))
            assert difference(plain[0][i][real], plain[1 + i][0]) <= TOLERANCE
        assert all(tensor.isfinite().all() for tensor in plain)


@pytest.mark.parametrize("in_blocks", [False, True])
def test_contacts_of_a_batch_equal_each_alone(tiny, blocks, in_blocks):
    model = tiny_model(MsaForMaskedLM, tiny)
    if in_blocks:
        blocks()
    together = model.predict_contacts(batched(MSAS))
    for i, tokens in enumerate(MSAS):
        length = tokens.shape[2] - 1
        assert difference(together[i, :length, :length], model.predict_contacts(tokens)[0]) <= TOLERANCE
        assert (together[i, length:] == 0).all()
        assert (together[i, :, length:] == 0).all()


@pytest.mark.parametrize(("cls", "attention"), [(MsaForMaskedLM, "eager"), *((cls, "sdpa") for cls in CLASSES)])
def test_gradients_of_a_batch_are_the_sum_of_those_alone(cls, attention):
    model = small_model(cls, attn_implementation=attention, num_labels=3, problem_type="single_label_classification")
    model = model.double()
    tokens = batched(MSAS)
    embeds = model.get_input_embeddings()(tokens).detach().requires_grad_()
    mask = tokens != PAD

    def total(part, part_embeds):
        # a sum over outputs, not a mean over the batch, so that the parts add up
        outputs = model(inputs_embeds=part_embeds, attention_mask=part != PAD)
        states = outputs.logits if "logits" in outputs else outputs.last_hidden_state
        if cls is MsaForContactPrediction:
            states = states.masked_fill(labels_for(cls, part) == -100, 0)
        elif cls is MsaForTokenClassification:
            states = states * (part[:, 0] != PAD).unsqueeze(-1)
        elif cls is not MsaForSequenceClassification:
            states = states * (part != PAD).unsqueeze(-1)
        return states.sin().sum()

    total(tokens, embeds).backward()
    together = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for i, part in enumerate(MSAS):
        rows, columns = part.shape[1:]
        own = embeds.detach()[i : i + 1, :rows, :columns].clone().requires_grad_()
        total(part, own).backward()
        assert difference(embeds.grad[i : i + 1, :rows, :columns], own.grad) <= 1e-6  # the scale by depth is float32
        assert (embeds.grad[i][~mask[i]] == 0).all()
    alone = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert alone.keys() == together.keys()
    for name, gradient in alone.items():
        assert difference(together[name], gradient) <= 1e-6, name


def test_fair_esms_own_batch_differs_by_the_depth_it_scales_with(converted):
    """What is not copied: fair-esm divides the row maps' logits by the padded depth."""
    reference, folder = converted("msa-tiny")
    model = MsaForMaskedLM.from_pretrained(folder)
    tokens = batched([random_tokens(12, 20, 1), random_tokens(3, 20, 2)])
    alone = fair_outputs(reference, tokens[1:, :3])["row maps"][0]
    theirs = fair_outputs(reference, tokens)["row maps"][0, 1:]
    with torch.no_grad():
        ours = model(tokens, output_attentions=True).attentions[0][1:]
    assert difference(theirs, alone) > 1e-3
    assert difference(ours, alone) <= TOLERANCE
    # their first map with the logits scaled back from the padded depth, 12, to its own, 3
    assert difference((theirs.log() * math.sqrt(12 / 3)).softmax(-1), alone) <= TOLERANCE


def test_padding_is_never_nan(tiny):
    tokens = batched([*MSAS, random_tokens(1, 1)])  # the last: all padding but for one token
    for cls in CLASSES:
        model = tiny_model(cls, tiny, num_labels=2)
        outputs = model(tokens, **FLAGS)
        for value in outputs.values():
            for tensor in value if isinstance(value, tuple) else (value,):
                assert tensor.isfinite().all()
        loss_of(model, tokens).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_what_stands_at_padding_has_no_influence(tiny):
    model = tiny_model(MsaForMaskedLM, tiny)
    tokens = batched(MSAS)
    mask = tokens != PAD
    scrambled = torch.where(mask, tokens, torch.randint(2, 33, tokens.shape))
    with torch.no_grad():
        result = model(scrambled, attention_mask=mask).logits
        assert difference(result[mask], model(tokens).logits[mask]) <= TOLERANCE
        assert difference(model.predict_contacts(scrambled, mask), model.predict_contacts(tokens)) <= TOLERANCE


# ----------------------------------------------------------------------------------------------------------- inputs


@per_class
def test_embeddings_in_place_of_ids(tiny, cls):
    model = tiny_model(cls, tiny)
    tokens = batched(MSAS[:2])
    tokens = torch.where(tokens == GAP, 5, tokens)  # whether a token is a gap, embeddings do not tell
    one_hot = F.one_hot(tokens, 33).float()
    embeds = one_hot @ model.get_input_embeddings().weight
    with torch.no_grad():
        mask = tokens != PAD
        by_ids, by_embeds = model(tokens)[0], model(inputs_embeds=embeds, attention_mask=mask)[0]
        assert difference(by_embeds, by_ids) <= TOLERANCE
        contacts = model.predict_contacts(inputs_embeds=embeds, attention_mask=mask)
        assert difference(contacts, model.predict_contacts(tokens)) <= TOLERANCE
        without_mask = model(inputs_embeds=embeds[:1, :5, :17])[0]
        assert difference(without_mask, model(tokens[:1, :5, :17])[0]) <= TOLERANCE


def test_gradient_reaches_a_mixture_of_tokens():
    """As in DiffPALM; the slope along a random direction is that of finite differences."""
    model = small_model(MsaForContactPrediction).double()
    random = torch.Generator().manual_seed(0)
    mixture = torch.rand(1, 4, 7, 33, generator=random, dtype=torch.float64).softmax(-1).requires_grad_()
    direction = torch.randn(mixture.shape, generator=random, dtype=torch.float64)

    def value(mixture):
        return model(inputs_embeds=mixture @ model.get_input_embeddings().weight).logits.sin().sum()

    value(mixture).backward()
    step = 1e-5
    with torch.no_grad():
        slope = (value(mixture + step * direction) - value(mixture - step * direction)) / (2 * step)
    assert slope.item() == pytest.approx((mixture.grad * direction).sum().item(), rel=1e-7)


@pytest.mark.parametrize("cls", [MsaForMaskedLM, MsaForContactPrediction])
def test_gradients_are_those_of_finite_differences(cls):
    model = small_model(cls, hidden_size=4, intermediate_size=6, num_attention_heads=2).double()
    tokens = batched([random_tokens(3, 4, 1), random_tokens(2, 5, 2)])
    mask = tokens != PAD
    embeds = model.get_input_embeddings()(tokens).detach().requires_grad_()
    last = model.msa.layers[-1]
    parameters = [last.row_attention.q_proj.weight, model.msa.layers[0].column_attention.k_proj.weight]
    parameters += [model.msa.layers[0].feed_forward.fc1.bias]
    if cls is MsaForContactPrediction:
        parameters.append(model.msa.contact_head.regression.weight)
    real = mask.unsqueeze(-1) if cls is MsaForMaskedLM else (labels_for(cls, tokens) != -100)

    def logits(embeds, *_):
        return model(inputs_embeds=embeds, attention_mask=mask).logits.masked_fill(~real, 0)

    assert torch.autograd.gradcheck(logits, (embeds, *parameters), fast_mode=True)


def test_position_ids(tiny):
    model = tiny_model(MsaForMaskedLM, tiny)
    tokens = random_tokens(4, 10)
    with torch.no_grad():
        default = model(tokens).logits
        assert torch.equal(model(tokens, position_ids=torch.arange(10)[None]).logits, default)
        assert torch.equal(
            model(tokens.repeat(2, 1, 1), position_ids=torch.arange(10).repeat(2, 1)).logits[:1], default
        )
        # a column left out, its number too: as if its neighbours stood where they stand
        kept = [0, 1, 2, 5, 6]
        left = model(tokens[..., kept], position_ids=torch.tensor([kept]))
        assert difference(left.logits, model(tokens[..., kept]).logits) > 1e-3
        table = model.msa.embeddings.position_embeddings.weight
        states = model.msa.embeddings(tokens[..., kept], position_ids=torch.tensor([kept]))
        plain = model.msa.embeddings.word_embeddings(tokens[..., kept]) + table[torch.tensor(kept) + 2]
        plain = plain + model.msa.embeddings.row_position_embeddings.weight[:4, None]
        assert torch.equal(states, model.msa.embeddings.layer_norm(plain))
        moved = model.predict_contacts(tokens, position_ids=torch.arange(10)[None] + 3)
        assert difference(moved, model.predict_contacts(tokens)) > 1e-3


def test_masks_of_any_type(tiny):
    model = tiny_model(MsaForMaskedLM, tiny)
    tokens = batched(MSAS)
    with torch.no_grad():
        expected, contacts = model(tokens).logits, model.predict_contacts(tokens)
        for dtype in (torch.bool, torch.int64, torch.int32, torch.float32):
            mask = (tokens != PAD).to(dtype)
            assert torch.equal(model(tokens, attention_mask=mask).logits, expected)
            assert torch.equal(model.predict_contacts(tokens, mask), contacts)


SHAPES = r"The model requires .* \(B, R, C"
BAD_INPUT = {
    "two axes": (lambda t: {"input_ids": t[0]}, SHAPES),
    "four axes": (lambda t: {"input_ids": t[None]}, SHAPES),
    "no rows": (lambda t: {"input_ids": t[:, :0]}, SHAPES),
    "no columns": (lambda t: {"input_ids": t[..., :0]}, SHAPES),
    "no MSAs": (lambda t: {"input_ids": t[:0]}, SHAPES),
    "embeddings of three axes": (lambda t: {"inputs_embeds": torch.zeros(4, 6, 16)}, SHAPES),
    "nothing": (lambda t: {}, "exactly one"),
    "both": (lambda t: {"input_ids": t, "inputs_embeds": torch.zeros(*t.shape, 16)}, "exactly one"),
    "mask of two axes": (lambda t: {"input_ids": t, "attention_mask": torch.ones(4, 6)}, "shape of the tokens"),
    "mask of a row": (lambda t: {"input_ids": t, "attention_mask": torch.ones(1, 1, 6)}, "shape of the tokens"),
    "too many rows": (lambda t: {"input_ids": random_tokens(17, 4)}, "17 rows.*16.*fewer"),
    "too many columns": (lambda t: {"input_ids": random_tokens(2, 33)}, "33 columns.*32.*crop"),
    "position too large": (
        lambda t: {"input_ids": t, "position_ids": torch.tensor([[0, 1, 2, 3, 4, 32]])},
        "from 0 .* to 31, .* from 0 to 32",
    ),
    "negative position": (
        lambda t: {"input_ids": t, "position_ids": torch.arange(6)[None] - 1},
        "from 0 .* to 31, .* from -1 to 4",
    ),
}


@per_class
def test_bad_input_is_refused(cls):
    model = small_model(cls)
    for make, message in BAD_INPUT.values():
        inputs = make(random_tokens(4, 6))
        with pytest.raises(ValueError, match=message):
            model(**inputs)
        with pytest.raises(ValueError, match=message):
            model.predict_contacts(**inputs)


def test_the_largest_allowed_msa_runs():
    assert small_model(MsaModel)(random_tokens(16, 32)).last_hidden_state.shape == (1, 16, 32, 16)
    without_limit = small_model(MsaModel, row_position_embedding_size=None)
    assert without_limit(random_tokens(40, 32)).last_hidden_state.shape == (1, 40, 32, 16)


# -------------------------------------------------------------------------------------------------------- gradients


@per_class
def test_every_trainable_parameter_gets_a_gradient(tiny, cls):
    assert_gradients(cls, tiny_model(cls, tiny).train())
    assert_gradients(cls, small_model(cls).train())


def assert_gradients(cls, model):
    tokens = batched(MSAS)
    for name, gradient in gradients(model, tokens).items():
        parameter = model.get_parameter(name)
        assert (gradient is not None) == parameter.requires_grad, name
    frozen = {name.split(".", 1)[1] for name, p in model.named_parameters() if not p.requires_grad}
    if cls is MsaForContactPrediction:
        last = f"layers.{model.config.num_hidden_layers - 1}."
        unused = ("column_attention.", "feed_forward.", "row_attention.v_proj.", "row_attention.out_proj.")
        assert all(name.startswith((*(last + part for part in unused), "layer_norm.")) for name in frozen)
        assert model.msa.contact_head.regression.weight.requires_grad
    else:
        prefix = "" if cls is MsaModel else "contact_head."
        assert frozen == {f"{prefix}regression.weight", f"{prefix}regression.bias"}


@pytest.mark.parametrize(("cls", "use_reentrant"), [(MsaForMaskedLM, True), *((cls, False) for cls in CLASSES)])
def test_checkpointing_gives_the_same_gradients(tiny, cls, use_reentrant):
    model = tiny_model(cls, tiny).train()  # dropout too: its random numbers are the same again
    tokens = batched(MSAS)
    expected = gradients(model, tokens)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    if use_reentrant:
        model.enable_input_require_grads()
    result = gradients(model, tokens)
    for name, gradient in expected.items():
        assert (gradient is None) == (result[name] is None), name
        if gradient is not None:
            assert difference(result[name], gradient) <= 1e-6, name


def test_checkpointing_keeps_the_gradient_of_row_maps(tiny):
    """A regulariser of the maps must train, with or without checkpointing."""
    slopes = []
    for checkpointing in (False, True):
        model = tiny_model(MsaModel, tiny)
        if checkpointing:
            model.train()
            model.gradient_checkpointing_enable({"use_reentrant": False})
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
            model.config.attention_dropout = 0.0
        maps = model(MSAS[0], output_attentions=True).attentions
        sum(map_.square().sum() for map_ in maps).backward()
        slopes.append(model.layers[0].row_attention.q_proj.weight.grad)
    assert slopes[0].abs().max() > 0
    assert difference(slopes[1], slopes[0]) <= TOLERANCE


def test_training_mode_drops_and_eval_does_not(tiny):
    model = tiny_model(MsaForMaskedLM, tiny)
    with torch.no_grad():
        assert torch.equal(model(MSAS[0]).logits, model(MSAS[0]).logits)
        model.train()
        assert not torch.equal(model(MSAS[0]).logits, model(MSAS[0]).logits)


# ------------------------------------------------------------------------------------------------------------ heads


def test_masked_lm_loss(tiny):
    model = tiny_model(MsaForMaskedLM, tiny)
    tokens = batched(MSAS)
    labels = labels_for(MsaForMaskedLM, tokens)
    outputs = model(tokens, labels=labels)
    assert outputs.logits.shape == (*tokens.shape, 33)
    picked = labels != -100
    log_probabilities = outputs.logits.double().log_softmax(-1)
    losses = -log_probabilities[picked].gather(1, labels[picked][:, None])
    assert outputs.loss.item() == pytest.approx(losses.mean().item(), rel=1e-6)
    # Trainer with accumulated batches gives the number to divide by
    loss = model(tokens, labels=labels, num_items_in_batch=1000).loss
    assert loss.item() == pytest.approx(losses.sum().item() / 1000, rel=1e-6)


def test_contact_loss(tiny):
    model = tiny_model(MsaForContactPrediction, tiny)
    tokens = batched(MSAS)
    labels = labels_for(MsaForContactPrediction, tokens)
    labels[:, torch.arange(22), torch.arange(22)] = -100
    outputs = model(tokens, labels=labels)
    assert outputs.logits.shape == (4, 22, 22)
    known = labels != -100
    signs = labels[known].double() * 2 - 1
    expected = torch.log1p(torch.exp(-signs * outputs.logits[known].double())).mean()
    assert outputs.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert difference(outputs.logits.sigmoid(), model.predict_contacts(tokens)) <= TOLERANCE
    as_float = model(tokens, labels=labels.float()).loss
    assert torch.equal(as_float, outputs.loss)


def test_token_classification_reads_the_query(tiny):
    model = tiny_model(MsaForTokenClassification, tiny, num_labels=3)
    tokens = batched(MSAS)
    labels = labels_for(MsaForTokenClassification, tokens)
    outputs = model(tokens, labels=labels, output_hidden_states=True)
    assert outputs.logits.shape == (4, 23, 3)
    classifier = model.classifier
    by_hand = outputs.hidden_states[-1][:, 0] @ classifier.weight.T + classifier.bias
    assert difference(outputs.logits, by_hand) <= TOLERANCE
    picked = labels != -100
    losses = -by_hand.log_softmax(-1)[picked].gather(1, labels[picked][:, None])
    assert outputs.loss.item() == pytest.approx(losses.mean().item(), rel=1e-5)


def test_sequence_classification_pools_the_querys_residues(tiny):
    model = tiny_model(MsaForSequenceClassification, tiny, num_labels=3)
    tokens = batched(MSAS)
    tokens[0, 0, 1:4] = GAP
    outputs = model(tokens, output_hidden_states=True)
    assert outputs.logits.shape == (4, 3)
    for i in range(4):
        query = tokens[i, 0].tolist()
        residues = [c for c in range(1, len(query)) if query[c] not in (PAD, GAP)]
        mean = outputs.hidden_states[-1][i, 0, residues].mean(0)
        by_hand = model.classifier.weight @ mean + model.classifier.bias
        assert difference(outputs.logits[i], by_hand) <= TOLERANCE
    all_gaps = random_tokens(2, 5)
    all_gaps[0, 0, 1:] = GAP
    assert torch.allclose(model(all_gaps).logits[0], model.classifier.bias)  # nothing to pool


@pytest.mark.parametrize("explicit", [False, True])
def test_sequence_problem_types(tiny, explicit):
    tokens = batched(MSAS)
    cases = [
        ("regression", 1, torch.tensor([0.5, -1.0, 2.0, 0.0])),
        ("regression", 3, torch.randn(4, 3)),
        ("single_label_classification", 3, torch.tensor([0, 2, 1, 2])),
        ("multi_label_classification", 3, torch.tensor([[1.0, 0, 1], [0, 0, 1], [1, 1, 1], [0, 0, 0]])),
    ]
    for problem, num_labels, labels in cases:
        if not explicit and problem == "regression" and num_labels == 3:
            continue  # float labels of several columns are taken for multi-label, as everywhere in transformers
        model = tiny_model(MsaForSequenceClassification, tiny, num_labels=num_labels)
        model.config.problem_type = problem if explicit else None
        outputs = model(tokens, labels=labels)
        logits = outputs.logits.double()
        if problem == "regression":
            by_hand = (logits.squeeze() - labels).square().mean()
        elif problem == "single_label_classification":
            by_hand = -logits.log_softmax(-1)[range(4), labels].mean()
        else:
            by_hand = -(labels * logits.sigmoid().log() + (1 - labels) * (-logits).sigmoid().log()).mean()
        assert outputs.loss.item() == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize("cls", [MsaForMaskedLM, MsaForContactPrediction, MsaForTokenClassification])
def test_no_target_means_no_loss(tiny, cls):
    model = tiny_model(cls, tiny)
    tokens = batched(MSAS)
    loss = loss_of(model, tokens, torch.full_like(labels_for(cls, tokens), -100))
    assert loss.item() == 0
    loss.backward()
    for parameter in model.parameters():
        assert parameter.grad is None or (parameter.grad == 0).all()


# --------------------------------------------------------------------------------------------------------- contacts


@per_class
def test_contacts_of_every_class_are_fair_esms(converted, real_tokens, cls):
    reference, folder = converted("msa-tiny")
    tokens = real_tokens(rows=10, columns=60)
    contacts = tiny_model(cls, folder).train().eval().predict_contacts(input_ids=tokens, attention_mask=tokens != PAD)
    assert contacts.shape == (1, 59, 59)
    assert contacts.dtype == torch.float32
    assert not contacts.requires_grad
    assert contacts.min() >= 0
    assert contacts.max() <= 1
    assert difference(contacts, contacts.transpose(1, 2)) <= 1e-6
    assert difference(contacts, reference.predict_contacts(tokens).detach()) <= TOLERANCE


def test_contacts_need_a_fitted_regression():
    for cls in CLASSES:
        with pytest.raises(ValueError, match=r"never fitted.*Convert.*or train MsaForContactPrediction"):
            cls(small_config()).predict_contacts(MSAS[0])


def test_contacts_need_neither_column_maps_nor_the_last_update(tiny, monkeypatch):
    model = tiny_model(MsaForMaskedLM, tiny)
    expected = model.predict_contacts(MSAS[0])
    last = model.msa.layers[-1]
    unused = (last.row_attention.v_proj, last.row_attention.out_proj, last.column_attention, last.feed_forward)
    with torch.no_grad():
        for module in (*unused, model.msa.layer_norm, model.lm_head.dense):
            for parameter in module.parameters():
                parameter.fill_(float("nan"))
    model.config.output_column_attentions = False
    monkeypatch.setattr(
        modeling_msa_transformer, "eager_attention_forward", None
    )  # the only one that makes column maps
    assert torch.equal(model.predict_contacts(MSAS[0]), expected)


def test_contacts_hold_one_layers_maps_at_a_time(tiny):
    """Each layer's maps are gone when the next layer makes its own."""
    model = tiny_model(MsaModel, tiny)
    alive, most = [], []

    def remember(_, __, output):
        most.append(sum(reference() is not None for reference in alive))
        alive.append(weakref.ref(output[1]))

    for layer in model.layers:
        layer.row_attention.register_forward_hook(remember)
    model.predict_contacts(MSAS[0])
    # the layer before still has its name in the loop while the next one runs
    assert len(most) == 4
    assert max(most) <= 1


# ---------------------------------------------------------------------------------------------------- output flags


@pytest.mark.parametrize(
    ("cls", "attention", "by_config"), [(MsaForMaskedLM, "eager", True), *((cls, "sdpa", False) for cls in CLASSES)]
)
def test_output_flags(tiny, cls, attention, by_config):
    model = tiny_model(cls, tiny, attn_implementation=attention)
    plain = model(MSAS[0])
    assert not {"hidden_states", "attentions", "column_attentions"} & plain.keys()
    if by_config:
        for name, value in FLAGS.items():
            setattr(model.config, name, value)
    with no_warnings():
        outputs = model(MSAS[0], **({} if by_config else FLAGS))
    rows, columns = MSAS[0].shape[1:]
    assert [tuple(state.shape) for state in outputs.hidden_states] == [(1, rows, columns, 64)] * 5
    assert [tuple(map_.shape) for map_ in outputs.attentions] == [(1, 4, columns, columns)] * 4
    assert [tuple(map_.shape) for map_ in outputs.column_attentions] == [(1, 4, columns, rows, rows)] * 4
    for maps in (*outputs.attentions, *outputs.column_attentions):
        assert torch.allclose(maps.sum(-1), torch.ones(()))
        assert maps.dtype == torch.float32
    if by_config:
        off = model(MSAS[0], **dict.fromkeys(FLAGS, False))
        assert not {"hidden_states", "attentions", "column_attentions"} & off.keys()


@per_class
def test_one_flag_at_a_time(tiny, cls):
    model = tiny_model(cls, tiny)
    for flag, name in zip(FLAGS, ("hidden_states", "attentions", "column_attentions"), strict=True):
        with torch.no_grad():
            outputs = model(MSAS[0], **{flag: True})
            assert [key for key in outputs if key.endswith(("states", "attentions"))] == [name]
            assert difference(outputs[0], model(MSAS[0])[0]) <= TOLERANCE  # asking changes nothing


@per_class
def test_tuples(tiny, cls):
    model = tiny_model(cls, tiny)
    with torch.no_grad():
        as_dict = model(MSAS[0], **FLAGS)
        as_tuple = model(MSAS[0], return_dict=False, **FLAGS)
        assert isinstance(as_tuple, tuple)
        assert len(as_tuple) == len(as_dict)
        for one, other in zip(as_tuple, as_dict.to_tuple(), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        model.config.return_dict = False
        assert isinstance(model(MSAS[0]), tuple)


def test_recorded_states_are_not_overwritten(tiny, blocks):
    """Without gradients the layers update in place; what was recorded must stay as it was."""
    model = tiny_model(MsaModel, tiny)
    expected = model(MSAS[0], **FLAGS)
    blocks()
    with torch.no_grad():
        outputs = model(MSAS[0], **FLAGS)
        embeds = model.get_input_embeddings()(MSAS[0])
        before = embeds.clone()
        model(inputs_embeds=embeds)
        assert torch.equal(embeds, before)  # nor is the input
    for name in ("hidden_states", "attentions", "column_attentions"):
        for one, other in zip(outputs[name], expected[name], strict=True):
            assert difference(one, other.detach()) <= TOLERANCE
    storages = {state.untyped_storage().data_ptr() for state in outputs.hidden_states}
    assert len(storages) == 5
