"""The contract of variant scores.

Masked marginals are those of fair-esm's examples/variant-prediction/predict.py on the same rows, to 1e-5; the other
strategies are what a plain loop over fair-esm's model gives. A residue has one pass, however many variants name it.
Variants that cannot be scored keep their place and say why; a wild type that is not the query's is an error before the
model runs. Residue numbers are those of the whole query.

The fast mode runs the homologues once. Where it approximates nothing it gives the exact scores, and on a real family
nearly their order; test_context.py holds what it computes otherwise.
"""

import copy
import itertools

import fair_esm
import numpy as np
import pytest
import torch
from made_up import SEED, SHARED, real_data
from scipy.stats import spearmanr
from small import small_model

from modeling_msa import (
    Alignment,
    MsaForMaskedLM,
    MsaModel,
    load_model,
    prepare_alignment,
    read_alignment,
    score_all_singles,
    score_variants,
    select_rows,
    spearman,
)
from modeling_msa.alignments.variants import AMINO_ACIDS, check_variants, read_variants
from modeling_msa.modeling_msa_transformer import MsaEmbeddings
from modeling_msa.tasks.scoring import fit_variants
from modeling_msa.tasks.strategies import PROTOCOLS

pytestmark = pytest.mark.usefixtures("one_thread")
ALPHABET = fair_esm.ALPHABET
LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def random_family(rows, columns, seed=0):
    random = np.random.default_rng(seed)
    array = random.choice(list(LETTERS), (rows, columns))
    array[1:][random.random((rows - 1, columns)) < 0.15] = "-"
    return Alignment.from_sequences(["".join(row) for row in array])


def predict(model, msa, variants, sequence, offset_idx=1):
    """predict.py's branch for MSAs: all positions masked in turn, substitutions added up."""
    tokens = fair_esm.tokens([msa])
    needed = {1 + int(part[1:-1]) - offset_idx for variant in variants for part in variant.split(":")}
    logs = {}
    for i in sorted(needed):  # predict.py runs through all and uses these
        masked = tokens.clone()
        masked[0, 0, i] = ALPHABET.mask_idx
        with torch.no_grad():
            logs[i] = torch.log_softmax(model(masked)["logits"], dim=-1)[0, 0, i]
    scores = []
    for variant in variants:
        score = 0.0
        for part in variant.split(":"):
            wt, idx, mt = part[0], int(part[1:-1]) - offset_idx, part[-1]
            assert sequence[idx] == wt
            score += (logs[1 + idx][ALPHABET.get_idx(mt)] - logs[1 + idx][ALPHABET.get_idx(wt)]).item()
        scores.append(score)
    return np.array(scores)


def variants_of(query, count, seed=0):
    """Variants of one to three substitutions."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        places = sorted(random.choice(len(query), random.integers(1, 4), replace=False))
        made.append(":".join(f"{query[k]}{k + 1}{random.choice(list(LETTERS))}" for k in places))
    return made


@pytest.fixture(scope="module")
def pair(converted):
    theirs, folder = converted("msa-tiny")
    return theirs, MsaForMaskedLM.from_pretrained(folder).eval()


@pytest.fixture
def passes(monkeypatch):
    """Sizes of the batches that the backbone saw."""
    sizes = []
    forward = MsaEmbeddings.forward

    def counting(self, input_ids=None, *args, **kwargs):
        sizes.append(len(input_ids))
        return forward(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(MsaEmbeddings, "forward", counting)
    return sizes


@pytest.mark.parametrize("shape", [(1, 12), (6, 25), (20, 9)])
def test_masked_marginals_are_those_of_predict_py(pair, shape):
    theirs, ours = pair
    family = random_family(*shape)
    variants = variants_of(family.query, 40)
    result = score_variants(family, variants, ours, rows=shape[0])
    expected = predict(theirs, list(family), variants, family.query)
    assert np.abs(expected).max() > 1
    assert np.abs(result.score - expected).max() <= 1e-5
    assert (result.depth, result.score_std, set(result.reason)) == (shape[0], None, {""})


def test_masked_marginals_in_float64(pair):
    """With next to no rounding, to 1e-9."""
    theirs, ours = (copy.deepcopy(model).double() for model in pair)
    family = random_family(4, 10, seed=3)
    variants = variants_of(family.query, 20)
    expected = predict(theirs, list(family), variants, family.query)
    assert np.abs(score_variants(family, variants, ours).score - expected).max() <= 1e-9


def test_rows_are_those_chosen(pair):
    """With a filter and a choice of rows, the script is given the rows that `prepare_alignment` gives."""
    theirs, ours = pair
    family = random_family(30, 15)
    options = {"rows": 7, "select": "weighted", "seed": 5, "coverage": 80, "identity": 90}
    variants = variants_of(family.query, 10)
    seen = prepare_alignment(family, **options)
    assert (seen.depth, family.depth) == (7, 30)
    expected = predict(theirs, list(seen), variants, family.query)
    assert np.abs(score_variants(family, variants, ours, **options).score - expected).max() <= 1e-5


def test_gaps_and_lower_case_of_the_query(pair):
    """Residues 1 and 2 have no column, columns 2 and 5 no residue; the script sees the five others."""
    theirs, ours = pair
    family = Alignment.from_sequences(["mkVL-AW-Y", "VIGAWCY", "-LGAFCF"])
    cut = [("query", "VLAWY"), ("row 2", "VIAWY"), ("row 3", "-LAFF")]
    variants = ["V103A", "A105C:Y107W", "W106F"]
    result = score_variants(family, [*variants, "M101A", "wt"], ours, offset=100)
    expected = predict(theirs, cut, variants, "VLAWY", offset_idx=103)
    assert np.abs(result.score[:3] - expected).max() <= 1e-5
    assert np.isnan(result.score[3])
    assert result.reason[3].startswith("residue 101 (M) is in lower case in the query")
    assert result.score[4] == 0


def test_one_pass_for_each_mutated_residue(pair, passes):
    """5,000 variants of 4 residues and of several of them: 4 masked copies; nothing for what changes nothing."""
    _, ours = pair
    family = random_family(5, 20)
    sites = (2, 7, 8, 19)
    choices = itertools.islice(itertools.product(LETTERS, repeat=4), 5000)
    variants = [
        ":".join(f"{family.query[site]}{site + 1}{letter}" for site, letter in zip(sites, letters, strict=True))
        for letters in choices
    ]
    assert len(set(variants)) == 5000
    result = score_variants(family, variants, ours)
    assert np.isfinite(result.score).all()
    assert sum(passes) == 4
    passes.clear()
    one_by_one = score_variants(family, variants, ours, batch_size=1)
    assert passes == [1] * 4
    assert np.abs(one_by_one.score - result.score).max() < 1e-5
    passes.clear()
    three = score_variants(family, variants, ours, batch_size=3)
    assert passes == [3, 1]
    assert np.abs(three.score - result.score).max() < 1e-5
    passes.clear()
    same = f"{family.query[0]}1{family.query[0]}"
    assert score_variants(family, ["WT", same], ours).score.tolist() == [0, 0]
    assert passes == []


def test_wild_type_marginals(pair, passes):
    """One unmasked pass for all variants."""
    theirs, ours = pair
    family = random_family(6, 18)
    variants = variants_of(family.query, 20)
    with torch.no_grad():
        logs = torch.log_softmax(theirs(fair_esm.tokens([list(family)]))["logits"], dim=-1)[0, 0]
    expected = [
        sum(
            (
                logs[int(part[1:-1]), ALPHABET.get_idx(part[-1])] - logs[int(part[1:-1]), ALPHABET.get_idx(part[0])]
            ).item()
            for part in variant.split(":")
        )
        for variant in variants
    ]
    result = score_variants(family, variants, ours, strategy="wt-marginals")
    assert result.score == pytest.approx(expected, abs=1e-5)
    assert passes == [1]


def test_pseudo_log_likelihood_ratio(pair, passes):
    """Whole sequences, each residue masked in turn; the wild type and equal variants are worked out once."""
    theirs, ours = pair
    family = random_family(4, 8)
    query = family.query

    def likelihood(sequence):
        msa = [("query", sequence), *list(family)[1:]]
        parts = [f"{letter}{k + 1}{letter}" for k, letter in enumerate(sequence)]
        tokens, total = fair_esm.tokens([msa]), 0.0
        for k in range(1, len(parts) + 1):
            masked = tokens.clone()
            masked[0, 0, k] = ALPHABET.mask_idx
            with torch.no_grad():
                total += torch.log_softmax(theirs(masked)["logits"], dim=-1)[0, 0, k, tokens[0, 0, k]].item()
        return total

    double = f"{query[1]}2A:{query[6]}7W"
    swapped = f"{query[6]}7W:{query[1]}2A"
    result = score_variants(family, ["WT", double, swapped], ours, strategy="pseudo-log-likelihood")
    expected = likelihood(query[0] + "A" + query[2:6] + "W" + query[7]) - likelihood(query)
    assert result.score[0] == 0
    assert result.score[1] == result.score[2] == pytest.approx(expected, abs=1e-4)  # a sum of 16 logarithms
    assert sum(passes) == 2 * len(query)


def test_windows(pair):
    """Residue 1 of 20 in columns 1-9, 12 in the middle of 8-16, 20 in 12-20, with <cls> before each."""
    theirs, ours = pair
    family = random_family(5, 20)
    for number, first in ((1, 1), (5, 1), (6, 2), (12, 8), (16, 12), (20, 12)):
        variant = f"{family.query[number - 1]}{number}W"
        msa = [(name, row[first - 1 : first + 8]) for name, row in family]
        expected = predict(theirs, msa, [variant], msa[0][1], offset_idx=first)
        assert np.abs(score_variants(family, [variant], ours, window=9).score - expected).max() <= 1e-5


@pytest.mark.parametrize("strategy", ["masked-marginals", "wt-marginals"])
def test_long_queries_are_seen_in_windows(strategy, recwarn):
    """A model of 32 columns sees 31 residues at a time, and a query of 31 whole."""
    model = small_model(MsaForMaskedLM)
    family = random_family(3, 40)
    variants = variants_of(family.query, 30)
    long = score_variants(family, variants, model, strategy=strategy)
    assert np.array_equal(long.score, score_variants(family, variants, model, strategy=strategy, window=31).score)
    assert not np.allclose(long.score, score_variants(family, variants, model, strategy=strategy, window=20).score)
    short = random_family(3, 31)
    variants = variants_of(short.query, 9)
    whole = score_variants(short, variants, model, strategy=strategy)
    assert np.array_equal(whole.score, score_variants(short, variants, model, strategy=strategy, window=99).score)
    assert not recwarn.list


def test_ensembles(pair):
    """Mean and sample standard deviation over the row choices of single seeds."""
    _, ours = pair
    family = random_family(30, 12)
    variants = [*variants_of(family.query, 6), "A1del"]
    options = {"rows": 5, "select": "random"}
    singles = np.array([score_variants(family, variants, ours, seed=seed, **options).score for seed in (1, 2, 3)])
    result = score_variants(family, variants, ours, seed=(1, 2, 3), **options)
    assert np.array_equal(result.per_seed, singles, equal_nan=True)
    assert result.score == pytest.approx(singles.mean(0), nan_ok=True)
    assert result.score_std == pytest.approx(singles.std(0, ddof=1), nan_ok=True)
    assert (result.score_std[:6] > 0).all()
    assert result.seeds == (1, 2, 3)
    for select in ("diverse", "first"):
        with pytest.raises(ValueError, match="select 'random' or 'weighted' rows"):
            score_variants(family, variants, ours, seed=(1, 2), select=select)
    with pytest.raises(ValueError, match="several different ones"):
        score_variants(family, variants, ours, seed=(1, 1), select="random")


def test_few_rows_are_run_once_for_all_seeds(pair, passes):
    _, ours = pair
    family = random_family(4, 12)
    result = score_variants(family, [f"{family.query[2]}3W"], ours, seed=range(5), select="weighted")
    assert sum(passes) == 1
    assert result.score_std.tolist() == [0]


def test_protocol_of_proteingym(pair):
    """hhfilter's coverage 75 and identity 90, then weights of the rows that are left, five seeds."""
    _, ours = pair
    family = random_family(40, 12)
    fragment = Alignment.from_sequences([*family.sequences, family.query, "AC----------"])
    variants = variants_of(family.query, 3)
    recipe = PROTOCOLS["proteingym"] | {"rows": 8}
    result = score_variants(fragment, variants, ours, **recipe)
    kept = select_rows(fragment, 100, "first", coverage=75, identity=90)
    assert (fragment.depth, kept.depth) == (42, 40)
    expected = [
        score_variants(select_rows(kept, 8, "weighted", seed), variants, ours).score for seed in (1, 2, 3, 4, 5)
    ]
    assert result.per_seed == pytest.approx(np.array(expected), abs=1e-5)
    assert PROTOCOLS["proteingym"]["rows"] == 400


def test_all_singles(pair, passes):
    """The matrix holds what single variants get; residues without a column are not in it."""
    _, ours = pair
    family = Alignment.from_sequences(["mkVL-AWXY", "VIGAWCY", "-LGAFCF"])
    result = score_all_singles(family, ours, offset=10)
    assert sum(passes) == 5
    assert (result.wild_type, result.residues.tolist()) == ("VLAWXY", [13, 14, 15, 16, 17, 18])
    assert np.isnan(result.score[4]).all()  # X
    variants = [
        f"{letter}{n}{mutant}" for letter, n in zip("VLAWY", (13, 14, 15, 16, 18), strict=True) for mutant in LETTERS
    ]
    singles = score_variants(family, variants, ours, offset=10).score.reshape(5, 20)
    assert np.array_equal(result.score[[0, 1, 2, 3, 5]], singles)
    assert result.score[0, LETTERS.index("V")] == 0


def test_what_has_no_score_says_why(pair):
    _, ours = pair
    family = Alignment.from_sequences(["mKVLXA", "RVLGA", "RILGC"])
    expected = {
        "K2R": "",
        "WT": "",
        "K2K": "",
        "p.Lys2Arg": "",
        "p.[Lys2Arg;Val3Ile]": "",
        "p.Lys2=": "",
        "K2*": "a stop",
        "p.Lys2Ter": "a stop",
        "K2del": "an insertion, deletion or frameshift",
        "K2-": "an insertion, deletion or frameshift",
        "K2_V3insA": "an insertion, deletion or frameshift",
        "p.Lys2fs": "an insertion, deletion or frameshift",
        "K2R,V3I": "not a substitution",
        "k2r": "not a substitution",
        "": "empty",
        "K2X": "X is not one of the 20 amino acids",
        "K2R:K2A": "one residue is replaced twice",
        "M1A": "residue 1 (M) is in lower case",
        "L9A": "there is no residue 9; the query has 1 to 6",
        "X5A": "the wild type X is not one of the 20 amino acids",
        "K2R:L9A": "there is no residue 9",
    }
    result = score_variants(family, list(expected), ours)
    for variant, reason, score in zip(expected, result.reason, result.score, strict=True):
        assert reason.startswith(expected[variant]), variant
        assert bool(reason) == bool(expected[variant]) == bool(np.isnan(score)), variant
    same = [list(expected).index(variant) for variant in ("K2R", "p.Lys2Arg")]
    assert result.score[same[0]] == result.score[same[1]] != 0


def test_mismatches_are_named_at_once_before_the_model_runs(pair, passes):
    _, ours = pair
    family = random_family(3, 30)
    query = family.query
    ahead = [f"{letter}{k + 26}{mutant}" for k, letter in enumerate(query) for mutant in "AC"]
    with pytest.raises(ValueError, match=r"t.csv: 58 of 60 .* All wild types fit with the offset 25\.") as error:
        score_variants(family, ahead, ours, source="t.csv")
    assert all(f" {letter}{k + 26} (" in str(error.value) for k, letter in enumerate(query) if k + 25 >= 30)
    wrong = next(letter for letter in LETTERS if letter != query[7])
    variants = [f"{query[3]}4A", f"{wrong}8A", f"{wrong}8C", f"{query[3]}40A"]
    with pytest.raises(ValueError, match=rf"2 of 4 .* Mismatches: {wrong}8 \({query[7]}\)\.") as error:
        score_variants(family, variants, ours)
    assert "offset" not in str(error.value)
    assert passes == []
    skipped = score_variants(family, variants, ours, skip_mismatches=True)
    assert [bool(reason) for reason in skipped.reason] == [False, True, True, True]
    with pytest.raises(ValueError, match="none of the 2 variants can be scored: 2 like A1del: an insertion"):
        fit_variants(family, ["A1del", "A2del"])


def test_arguments_are_checked(pair, tiny):
    _, ours = pair
    family = random_family(3, 10)
    variants = variants_of(family.query, 2)
    with pytest.raises(TypeError, match="not MsaModel: load_model"):
        score_variants(family, variants, MsaModel.from_pretrained(tiny))
    for options, message in (
        ({"strategy": "pppl"}, "unknown strategy 'pppl'"),
        ({"mode": "faster"}, "unknown mode 'faster'; use exact or fast"),
        ({"mode": "fast", "strategy": "wt-marginals"}, "has no fast mode"),
        ({"window": 0}, "window must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"select": "best"}, "unknown method of choosing rows"),
    ):
        with pytest.raises(ValueError, match=message):
            score_variants(family, variants, ours, **options)
    assert score_variants(family, [], ours).score.shape == (0,)


def test_a_model_in_training_scores_the_same_and_stays_in_training():
    """Dropout is off while it scores."""
    model = small_model(MsaForMaskedLM, hidden_dropout=0.5)
    family = random_family(3, 12)
    variants = variants_of(family.query, 5)
    expected = score_variants(family, variants, model)
    model.train()
    model.lm_head.eval()
    assert np.array_equal(score_variants(family, variants, model).score, expected.score)
    assert model.msa.training
    assert not model.lm_head.training
    assert all(parameter.grad is None for parameter in model.parameters())


MASKING = pytest.mark.parametrize("strategy", ["masked-marginals", "pseudo-log-likelihood"])


@MASKING
def test_fast_is_exact_without_homologues(strategy):
    """In windows of one residue too; wider ones move in steps in fast mode, and are others than in exact mode."""
    model = small_model(MsaForMaskedLM)
    family = random_family(1, 20)
    variants = variants_of(family.query, 6)
    for options in ({}, {"window": 1}):
        exact = score_variants(family, variants, model, strategy=strategy, **options)
        fast = score_variants(family, variants, model, strategy=strategy, mode="fast", **options)
        assert np.abs(exact.score).max() > 1
        # a likelihood is a sum of 20 logarithms
        assert np.abs(fast.score - exact.score).max() <= (1e-5 if strategy == "masked-marginals" else 1e-4)


@MASKING
def test_fast_is_exact_with_one_residue(pair, strategy):
    """Masked, the query is masked as a whole."""
    _, ours = pair
    family = random_family(9, 1)
    exact = score_all_singles(family, ours, strategy=strategy)
    fast = score_all_singles(family, ours, strategy=strategy, mode="fast")
    assert np.abs(exact.score).max() > 0.1
    assert np.abs(fast.score - exact.score).max() <= 1e-5


def test_fast_runs_homologues_once(pair, passes):
    """One pass of all versions of the query and one of the alignment, or both for each batch."""
    _, ours = pair
    family = random_family(5, 20)
    whole = score_all_singles(family, ours, mode="fast")
    assert passes == [20, 1]
    passes.clear()
    cut = score_all_singles(family, ours, mode="fast", batch_size=8)
    assert passes == [8, 1, 8, 1, 4, 1]
    assert np.abs(cut.score - whole.score).max() < 1e-5
    passes.clear()
    query = family.query
    other = "A" if query[3] == "G" else "G"
    variants = ["WT", f"{query[0]}1W:{query[9]}10A", f"{query[9]}10A:{query[0]}1W", f"{query[3]}4{other}"]
    options = {"strategy": "pseudo-log-likelihood", "mode": "fast"}
    whole = score_variants(family, variants, ours, **options)
    assert passes == [3 * 20, 1]  # the wild type and two distinct variants
    assert whole.score[0] == 0
    assert whole.score[1] == whole.score[2]
    cut = score_variants(family, variants, ours, batch_size=7, **options)
    assert np.abs(cut.score - whole.score).max() < 1e-4


def test_fast_windows_move_in_steps(pair, passes):
    """Windows of 16 begin at even columns; each is what an alignment cut to it gives."""
    _, ours = pair
    family = random_family(4, 41)
    scores = score_all_singles(family, ours, mode="fast", window=16).score
    first = [min(round(max(k - 8, 0) / 2) * 2, 41 - 16) for k in range(41)]
    assert sorted(set(first)) == [*range(0, 25, 2), 25]
    assert passes[1::2] == [1] * 14
    for start in set(first):
        cut = Alignment.from_sequences([row[start : start + 16] for _, row in family])
        expected = score_all_singles(cut, ours, mode="fast").score
        for k in (k for k in range(41) if first[k] == start):
            assert scores[k] == pytest.approx(expected[k - start], abs=1e-5)


@MASKING
def test_fast_agrees_with_exact(strategy):
    """98 rows of a seed alignment and msa-tiny; likelihoods, which take long, of 16 columns."""
    family = read_alignment(SEED).drop_query_gaps()
    model = load_model("msa-tiny", cls=MsaForMaskedLM)
    variants = [f"{letter}{k + 1}{mutant}" for k, letter in enumerate(family.query[:24]) for mutant in LETTERS]
    if strategy == "pseudo-log-likelihood":
        family = Alignment.from_sequences([row[20:36] for row in family.sequences])
        variants = variants_of(family.query, 24)
    exact = score_variants(family, variants, model, strategy=strategy).score
    fast = score_variants(family, variants, model, strategy=strategy, mode="fast").score
    assert spearmanr(exact, fast).statistic >= 0.995
    assert not np.allclose(exact, fast, atol=1e-3)


def test_spearman_is_that_of_scipy():
    random = np.random.default_rng(0)
    for _ in range(20):
        x, y = random.integers(0, 8, (2, 50))
        assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)
    assert np.isnan(spearman([1, 1], [1, 2]))
    assert np.isnan(spearman([], []))


@real_data
def test_variants_of_gb1_land_on_their_columns(pair):
    """The table is numbered on the full query, of which two residues have no column."""
    theirs, ours = pair
    family = read_alignment(SHARED / "msa" / "gb1.a2m")
    measured = read_variants(SHARED / "variants" / "gb1_four_site.csv")
    variants = [name for name, *_ in measured]
    parsed, misfits = check_variants(variants, family)
    assert not any(misfits)
    seen = prepare_alignment(family, 4, "first")
    for each in {substitution for substitutions in parsed for substitution in substitutions}:
        assert seen.sequences[0][seen.residue_columns[each.number - 1]] == each.wild_type
    assert {each.number for each in itertools.chain(*parsed)} == {39, 40, 41, 54}
    result = score_variants(family, variants, ours, rows=4, select="first")
    # by fair-esm's script: column 1 of the file's match columns is residue 3
    few = variants[:5] + variants[-5:]
    expected = predict(theirs, list(seen), few, seen.sequences[0], offset_idx=3)
    assert np.abs(result.score[[*range(5), *range(-5, 0)]] - expected).max() <= 1e-5


def test_mixture_with_the_familys_frequencies():
    """By hand: column 2 of the homologs has R, R, I and a gap, column 4 L, L, V, V; 1/20 is added to each count."""
    family, model = Alignment.from_sequences(["mKV-L", "RVAL", "RI-L", "IV-V", "-VAV"]), small_model(MsaForMaskedLM)
    variants, none = ["K2R", "K2R:L4V", "WT", "L4L"], {"profile_weight": 0}
    own = score_variants(family, variants, model, **none)
    by_family = [np.log(2.05 / 0.05), np.log(2.05 / 0.05) + np.log(2.05 / 2.05), 0, 0]
    for weight in (0.25, 1):
        mixed = score_variants(family, variants, model, profile_weight=weight)
        assert mixed.score == pytest.approx((1 - weight) * own.score + weight * np.array(by_family), abs=1e-9)
        assert (own.profile_weight, mixed.profile_weight) == (0, weight)
        singles = score_all_singles(family, model, profile_weight=weight)
        assert singles.score[0, AMINO_ACIDS.index("R")] == pytest.approx(mixed.score[0], abs=1e-9)
    assert (score_variants(family, variants, model).score == own.score).all()


def test_the_models_own_share_of_frequencies():
    """What the config says, by masked and wt-marginals; never by pseudo-log-likelihood, which has no such column."""
    family, model = Alignment.from_sequences(["MKVL", "MRVL", "MRIV"]), small_model(MsaForMaskedLM)
    other = copy.deepcopy(model)
    other.config.profile_weight = 0.5
    for strategy in ("masked-marginals", "wt-marginals"):
        expected = score_variants(family, ["K2R"], model, strategy=strategy, profile_weight=0.5).score
        assert score_variants(family, ["K2R"], other, strategy=strategy).score == expected
    likelihood = {"strategy": "pseudo-log-likelihood"}
    assert score_variants(family, ["K2R"], other, **likelihood).profile_weight == 0
    with pytest.raises(ValueError, match="cannot be mixed with the family's frequencies"):
        score_variants(family, ["K2R"], model, profile_weight=0.5, **likelihood)
    for weight in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="profile_weight must be in 0 to 1"):
            score_variants(family, ["K2R"], model, profile_weight=weight)
