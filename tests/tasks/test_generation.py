"""Contract of `modeling_msa.tasks.generation`, its plan and its files, and of ``msa generate``.

- An iteration masks entries at the given rate and fills them with the best of 21 letters by fair-esm's own logits;
  several iterations build on each other. Nothing else changes: neither other rows nor fixed residues.
- One seed gives one family, whatever else was drawn before.
- Identities, gaps and pseudo-log-likelihoods are those worked out by hand, or by fair-esm one mask at a time.
- The family is divided into alignments of equal depth; each row changes once.
- Fast mode runs the other rows once. It agrees with exact mode where they have not seen what changes: if there are
  none, or if the whole row is masked.
- Errors come before the model runs.
"""

import fair_esm
import numpy as np
import pytest
import torch
import typer
from families import SIZES, family, make_folder, make_model
from made_up import SEED
from typer.testing import CliRunner

from modeling_msa import (
    Alignment,
    MsaConfig,
    MsaForMaskedLM,
    MsaTokenizer,
    generate,
    load_model,
    read_alignment,
    row_log_likelihoods,
    write_generated,
)
from modeling_msa.alignments.writing import check_alignment_ending
from modeling_msa.cli.generate import generate_command
from modeling_msa.modeling_msa_transformer import MsaEmbeddings
from modeling_msa.tasks.generation_plan import find_rows

pytestmark = pytest.mark.usefixtures("one_thread")
LETTERS = "LAGVSERTIDPKQNFYMHWC-"  # fair-esm's order
IDS = [fair_esm.ALPHABET.get_idx(letter) for letter in LETTERS]
MASK = fair_esm.ALPHABET.mask_idx
# residues M1 K2 V3 L4 A5 of the query; M1 has no column, and one column has no residue
SMALL = Alignment.from_sequences(["mKV-LA", "RVGLA", "-VALs-"])  # KVLA, RVLA, -VL-
ALL_AT_ONCE = {"iterations": 1, "mask_probability": 1.0}


def constant_model(**logits):
    """A model that predicts the same everywhere: these logits by letter, 0 for the rest."""
    model = MsaForMaskedLM(MsaConfig(**SIZES)).eval()
    head, tokenizer = model.lm_head, MsaTokenizer()
    with torch.no_grad():
        for parameter in (*head.dense.parameters(), *head.layer_norm.parameters(), head.decoder.bias):
            parameter.zero_()
        for letter, value in logits.items():
            token = {"gap": "-", "mask": "<mask>"}.get(letter, letter)
            head.decoder.bias[tokenizer.convert_tokens_to_ids(token)] = value
    return model


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    return MsaForMaskedLM.from_pretrained(make_model(tmp_path_factory.mktemp("generation") / "model")).eval()


@pytest.fixture
def depths(random_model):
    """Depths of the alignments that the random model sees."""
    seen = []
    hook = random_model.msa.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    yield seen
    hook.remove()


@torch.no_grad()
def test_iterations_by_fair_esm(converted):
    theirs, folder = converted("msa-tiny")
    natural = family("f", 6, 20, 3)
    natural = Alignment.from_sequences(natural.sequences, natural.names)
    tokens = fair_esm.tokens([list(natural)])
    drawn = torch.Generator().manual_seed(5)
    for _ in range(3):
        mask = torch.nn.functional.pad(torch.rand(6, 20, generator=drawn) < 0.3, (1, 0))[None]
        logits = theirs(tokens.masked_fill(mask, MASK))["logits"][..., IDS]
        tokens = torch.where(mask, torch.tensor(IDS)[logits.argmax(-1)], tokens)
    expected = ["".join(fair_esm.ALPHABET.get_tok(k) for k in row) for row in tokens[0, :, 1:].tolist()]
    model = MsaForMaskedLM.from_pretrained(folder).eval()
    generated = generate(natural, model, iterations=3, mask_probability=0.3, seed=5)
    assert generated.alignment.sequences == expected
    assert expected != natural.sequences


@torch.no_grad()
def test_exact_log_likelihoods_by_fair_esm(converted):
    theirs, folder = converted("msa-tiny")
    natural = Alignment.from_sequences(["HMDYADTWKQVK", "HMD-ADTWRQVK", "HLDYA--WKQIK", "HMEYADTWKQVR"])
    row = 2
    tokens = fair_esm.tokens([list(natural)])
    logs = []
    for column, letter in enumerate(natural.sequences[row], start=1):
        masked = tokens.clone()
        masked[0, row, column] = MASK
        if letter != "-":
            log_p = theirs(masked)["logits"][0, row, column].log_softmax(-1)
            logs.append(log_p[tokens[0, row, column]].item())
    model = MsaForMaskedLM.from_pretrained(folder).eval()
    assert row_log_likelihoods(natural, model, [row], passes=12)[0] == pytest.approx(np.mean(logs), abs=1e-5)
    # the number of passes is at most that of columns; what is scored together is masked together
    assert row_log_likelihoods(natural, model, [row], passes=99)[0] == pytest.approx(np.mean(logs), abs=1e-5)
    assert row_log_likelihoods(natural, model, passes=12)[row] != pytest.approx(np.mean(logs), abs=1e-5)


def test_likelihood_passes_mask_each_entry_once(random_model):
    natural, seen = family("f", 5, 23, 0), []
    hook = random_model.msa.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0] == MASK))
    row_log_likelihoods(natural, random_model, [1, 4], passes=10)
    hook.remove()
    masks = torch.stack(seen)  # (passes, R, C)
    assert masks.sum(0)[[1, 4], 1:].eq(1).all()
    assert masks.sum() == 2 * 23
    assert set(masks[:, [1, 4]].sum(2).unique().tolist()) == {2, 3}
    assert not masks[:, 1].equal(masks[:, 4])


def test_what_changes_by_hand():
    """The best letter is W; X and <mask>, which score higher, are no letters to write."""
    model = constant_model(W=5, X=9, mask=9)
    everything = generate(SMALL, model, **ALL_AT_ONCE)
    assert everything.alignment.sequences == ["WWWW"] * 3
    assert everything.alignment.names == ("generated_1|query", "generated_2|row 2", "generated_3|row 3")
    assert everything.names == everything.alignment.names
    assert everything.parents.tolist() == [0, 1, 2]

    kept = generate(SMALL, model, **ALL_AT_ONCE, keep_query=True)
    assert kept.alignment.sequences == ["KVLA", "WWWW", "WWWW"]
    assert kept.names[0] == "generated_1|row 2"
    assert kept.alignment.query == "MKVLA"
    assert kept.alignment.residue_columns.tolist() == [-1, 0, 1, 2, 3]

    for options, rows in (
        ({"fixed_residues": "1,3-4"}, ["WVLW", "WVLW", "WVLW"]),
        ({"fixed_residues": [2]}, ["KWWW", "RWWW", "-WWW"]),
        ({"only_residues": "2"}, ["WVLA", "WVLA", "WVL-"]),
        ({"only_residues": [2, 3, 4], "fixed_residues": "3"}, ["WVWA", "WVWA", "WVW-"]),
        ({"only_rows": ["row 3"]}, ["KVLA", "WWWW"]),
        ({"only_rows": ["row 3", 1], "only_residues": "5"}, ["KVLW", "-VLW"]),
        ({"only_rows": ["2-3"]}, ["KVLA", "WWWW", "WWWW"]),
        ({"count": 2}, ["WWWW", "WWWW"]),
    ):
        assert generate(SMALL, model, **ALL_AT_ONCE, **options).alignment.sequences == rows, options


def test_gaps_by_hand():
    model = constant_model(W=5, gap=6)
    with pytest.warns(UserWarning, match="2 of 2 generated sequences consist of gaps only; allow no new gaps"):
        kept = generate(SMALL, model, **ALL_AT_ONCE, keep_query=True)
    assert kept.alignment.sequences == ["KVLA", "----", "----"]
    # a gap of the parent may stay one, whatever it has been in between
    options = ALL_AT_ONCE | {"iterations": 3, "new_gaps": False}
    assert generate(SMALL, model, **options).alignment.sequences == ["WWWW", "WWWW", "-WW-"]
    # or may not become a residue
    kept = generate(SMALL, constant_model(W=5), **ALL_AT_ONCE, keep_gaps=True)
    assert kept.alignment.sequences == ["WWWW", "WWWW", "-WW-"]


@pytest.mark.parametrize("options", [{}, {"count": 1}, {"count": 1, "mode": "fast"}, {"only_rows": [1]}])
def test_a_query_of_gaps_does_not_end_the_run(options, tmp_path):
    """The natural query, KVLA with its insertion, begins the alignment; what was generated follows."""
    with pytest.warns(
        UserWarning, match=r"generated sequences consist of gaps only, also the query's, so the natural"
    ):
        generated = generate(SMALL, constant_model(W=5, gap=6), **ALL_AT_ONCE, **options)
    count = 1 if options else 3
    assert generated.alignment.sequences == ["KVLA", *["----"] * count]
    assert generated.alignment.names == ("query", *generated.names)
    assert generated.alignment.query == "MKVLA"
    table = generated.table
    assert table["identity_to_parent"] == [0, 0, 0.5][:count]  # -VL-, the third row, has two gaps
    assert table["identity_to_nearest"] == [0.5] * count
    assert table["nearest"] == ["row 3"] * count
    assert table["gaps"] == [1] * count
    assert np.isnan(table["log_likelihood_after"]).all()  # no residue is there to score
    assert np.isfinite(table["log_likelihood_before"]).all()
    for ending in ("a3m", "a2m", "fasta", "sto"):
        lines = write_generated(generated, tmp_path / f"new.{ending}").read_text().splitlines()
        assert len(lines) == 1 + count
        assert lines[1].split("\t")[-2:] == ["nan", "1.000000"]
        assert read_alignment(tmp_path / f"new.{ending}").sequences == generated.alignment.sequences


def test_a_natural_row_of_gaps():
    """Not only the query: a parent without residues has identities too, to itself 1, and no likelihood."""
    natural = Alignment.from_sequences(["MKV", "---", "MRV"])
    with pytest.warns(UserWarning, match="1 of 3 generated sequences consist of gaps only; allow"):
        generated = generate(natural, constant_model(W=5), **ALL_AT_ONCE, keep_gaps=True)
    assert generated.alignment.sequences == ["WWW", "---", "WWW"]
    assert generated.parent_identity.tolist() == generated.nearest_identity.tolist() == [0, 1, 0]
    assert np.isnan(generated.log_likelihood_before).tolist() == [False, True, False]
    assert np.isnan(generated.log_likelihood_after).tolist() == [False, True, False]


def test_table_by_hand(tmp_path):
    logits = {"W": 5.0, "K": 2.0, "V": 1.0}
    log_p = {letter: value - np.log(np.exp(list(logits.values())).sum() + 30) for letter, value in logits.items()}
    rest = log_p["V"] - 1  # logit 0, of the 33 tokens
    generated = generate(SMALL, constant_model(**logits), **ALL_AT_ONCE, only_residues="2")  # WVLA, WVLA, WVL-
    table = generated.table
    assert table["parent"] == ["query", "row 2", "row 3"]
    assert table["nearest"] == ["query", "query", "row 3"]
    assert table["identity_to_parent"] == table["identity_to_nearest"] == [0.75, 0.75, 0.75]
    assert generated.nearest.tolist() == [0, 0, 2]  # the first of those equally near
    assert table["gaps"] == [0, 0, 0.25]
    before = [
        np.mean([log_p["K"], log_p["V"], rest, rest]),
        np.mean([rest, log_p["V"], rest, rest]),
        np.mean([log_p["V"], rest]),
    ]
    after = [
        *[np.mean([log_p["W"], log_p["V"], rest, rest])] * 2,
        np.mean([log_p["W"], log_p["V"], rest]),
    ]
    assert table["log_likelihood_before"] == pytest.approx(before, abs=1e-6)
    assert table["log_likelihood_after"] == pytest.approx(after, abs=1e-6)

    path = write_generated(generated, tmp_path / "new.a3m.gz")
    assert path == tmp_path / "new.generated.tsv"
    header, *lines = path.read_text().splitlines()
    assert header.split("\t") == list(table)
    assert (
        lines[2] == f"generated_3|row 3\trow 3\trow 3\t0.750000\t0.750000\t{before[2]:.6f}\t{after[2]:.6f}\t0.250000"
    )
    assert list(read_alignment(tmp_path / "new.a3m.gz")) == list(generated.alignment)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.a3m.gz", "new.generated.tsv"]
    with pytest.raises(ValueError, match=r"new.txt: unknown output format '.txt'; use .a3m"):
        check_alignment_ending("new.txt")


def test_nearest_is_among_all_rows():
    """Rows that the model does not see count too."""
    natural = Alignment.from_sequences(["KVLA", "RVLA", "WWWA"])
    generated = generate(natural, constant_model(W=5), **ALL_AT_ONCE, rows=2, select="first")
    assert generated.alignment.sequences == ["WWWW"] * 2
    assert generated.nearest.tolist() == [2, 2]
    assert generated.nearest_identity.tolist() == [0.75, 0.75]
    assert generated.parent_identity.tolist() == [0, 0]


def test_rows_by_name_number_and_range():
    natural = Alignment.from_sequences(["MK"] * 12, ["q", "3", "a human", *"bcdefghij"])
    assert find_rows(natural, ["a", "10-12", 2, "j"]).tolist() == [1, 2, 9, 10, 11]
    assert find_rows(natural, "3").tolist() == [1]  # a name goes before a number
    assert find_rows(natural, "1, 4").tolist() == [0, 3]


def test_rate_of_masks():
    """Entries turn into W, which the family lacks, at the rate of masking, gaps as often as residues."""
    random = np.random.default_rng(0)
    array = random.choice(list("ACDEFGHIKLM-"), (30, 60))
    array[0] = "A"
    natural = Alignment.from_sequences(["".join(row) for row in array])
    model, gaps = constant_model(W=5), natural.array == ord("-")
    for iterations, rate in ((1, 0.1), (3, 1 - 0.9**3)):
        changed = generate(natural, model, iterations=iterations).alignment.array == ord("W")
        for entries in (gaps, ~gaps):
            four_sigma = 4 * (rate * (1 - rate) / entries.sum()) ** 0.5
            assert abs(changed[entries].mean() - rate) < four_sigma


def test_draws():
    """Letters are drawn from the tempered softmax over 21 letters, cut off at top-p."""
    model = constant_model(W=4.0, K=3.0, V=2.0, X=9.0)
    natural = Alignment.from_sequences(["A" * 60] * 30)
    options = {**ALL_AT_ONCE, "sampling": "sample"}

    def frequencies(**more):
        array = generate(natural, model, **options, **more).alignment.array
        return np.array([(array == ord(letter)).mean() for letter in "WKV"])

    def expected(temperature):
        weights = np.exp(np.array([4, 3, 2, *[0] * 18]) / temperature)
        return weights[:3] / weights.sum()

    for temperature in (1, 0.5):
        p = expected(temperature)
        assert np.all(abs(frequencies(temperature=temperature) - p) < 4 * (p * (1 - p) / 1800) ** 0.5)
    p = expected(1)[:2] / expected(1)[:2].sum()  # 0.53 + 0.19 of 21 letters are the first that reach 0.7
    assert expected(1)[0] < 0.7 < expected(1)[:2].sum()
    assert np.all(abs(frequencies(top_p=0.7)[:2] - p) < 4 * (p * (1 - p) / 1800) ** 0.5)
    assert frequencies(top_p=0.7)[:2].sum() == 1


def test_one_seed_one_family(random_model):
    natural = family("f", 8, 30, 0)
    options = {"iterations": 3, "sampling": "sample", "rows": 5, "count": 8}
    first = generate(natural, random_model.train(), **options)
    assert all(module.training for module in random_model.modules())
    torch.manual_seed(99)
    again = generate(natural, random_model.eval(), **options)
    assert list(first.alignment) == list(again.alignment)
    assert first.table == again.table
    assert list(generate(natural, random_model, **options, seed=1).alignment) != list(first.alignment)


def test_alignments_of_equal_depth(random_model, depths):
    natural = family("f", 12, 14, 0)
    for count, keep_query, number in ((None, False, 5), (99, False, 12), (99, True, 11), (7, False, 7), (2, False, 2)):
        generated = generate(
            natural, random_model, iterations=1, rows=5, select="diverse", count=count, keep_query=keep_query
        )
        parents = generated.parents.tolist()
        assert len(set(parents)) == len(parents) == number
        assert (0 in parents) is not keep_query
        assert generated.alignment.depth == number + keep_query
        assert set(depths) == {5}
    filtered = generate(natural, random_model, iterations=1, coverage=100)
    assert filtered.parents.tolist() == [k for k, row in enumerate(natural.sequences) if "-" not in row]
    named = generate(natural, random_model, iterations=1, rows=5, only_rows=["f/3", "f/11"], coverage=100)
    assert named.parents.tolist() == [3, 11]
    assert depths[-1] <= 5


def test_fast_is_exact_for_a_row_that_is_masked_whole(random_model, depths):
    """All entries masked in the one iteration: the other rows see the same in both modes."""
    natural = family("f", 7, 15, 1)
    for options in ({"only_rows": [4]}, {"only_rows": ["f/6"], "rows": 5}, {"count": 1}):
        both = [
            generate(natural, random_model, **ALL_AT_ONCE, select="diverse", mode=mode, **options)
            for mode in ("exact", "fast")
        ]
        assert list(both[0].alignment) == list(both[1].alignment)
        assert both[0].names == both[1].names
    assert len(depths) == 3 * (1 + 2 * 10)  # of the exact mode alone; fast mode does not call the model as a whole


def test_fast_is_exact_for_a_single_row(random_model):
    natural = family("f", 1, 25, 2)
    options = {"iterations": 4, "sampling": "sample", "mask_probability": 0.3}
    exact, fast = (generate(natural, random_model, mode=mode, **options) for mode in ("exact", "fast"))
    assert list(exact.alignment) == list(fast.alignment)
    assert fast.log_likelihood_before == pytest.approx(exact.log_likelihood_before, abs=1e-5)
    assert fast.log_likelihood_after == pytest.approx(exact.log_likelihood_after, abs=1e-5)


def test_fast_keeps_no_more_than_is_free(random_model, monkeypatch):
    """2 layers, keys and values, 7 rows, 31 columns with <cls>, SIZES' width, 4 bytes each."""
    natural = family("f", 7, 30, 1)
    needed = 2 * 2 * 7 * 31 * random_model.config.hidden_size * 4
    for free in (needed, needed - 1):
        monkeypatch.setattr("accelerate.utils.get_max_memory", lambda free=free: {"cpu": free})
        if free == needed:
            generate(natural, random_model, only_rows=[3], iterations=1, mode="fast")
            continue
        with pytest.raises(ValueError, match=r"7 rows and 30 columns .* GiB are free on cpu: use fewer rows"):
            generate(natural, random_model, only_rows=[3], iterations=1, mode="fast")


def test_fast_runs_the_other_rows_once(random_model, monkeypatch):
    """One pass of all rows; then the row alone, for each iteration and twice for the ten groups of its likelihood."""
    shapes, forward = [], MsaEmbeddings.forward

    def counting(self, input_ids=None, *args, **kwargs):
        shapes.append((tuple(input_ids.shape[:2]), 0 if kwargs["row_ids"] is None else int(kwargs["row_ids"])))
        return forward(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(MsaEmbeddings, "forward", counting)
    natural = family("f", 7, 30, 1)
    generated = generate(natural, random_model, only_rows=[3], iterations=6, mask_probability=0.5, mode="fast")
    assert shapes == [((1, 7), 0)] + [((1, 1), 2)] * (10 + 6 + 10)
    assert generated.parents.tolist() == [2]
    assert generated.alignment.sequences[0] == natural.sequences[0]


def test_fast_agrees_with_exact():
    """msa-tiny and 64 rows of a seed alignment: a greedy round, and likelihoods."""
    natural = read_alignment(SEED)
    model = load_model("msa-tiny", cls=MsaForMaskedLM)
    options = {"rows": 64, "select": "diverse", "iterations": 1, "only_rows": [1], "mask_probability": 0.3}
    exact, fast = (generate(natural, model, mode=mode, **options) for mode in ("exact", "fast"))
    same = np.array(list(exact.alignment.sequences[0])) == list(fast.alignment.sequences[0])
    assert same.mean() >= 0.95
    assert fast.log_likelihood_before == pytest.approx(exact.log_likelihood_before, abs=0.02)
    assert fast.log_likelihood_before != pytest.approx(exact.log_likelihood_before, abs=1e-6)


def test_errors_come_before_the_model_runs(random_model, depths):
    natural = Alignment.from_sequences(SMALL.sequences, ["q", "twin a", "twin b"], source="f.a3m")
    for options, message in (
        ({"fixed_residues": "1-4"}, "f.a3m: all residues are fixed"),
        ({"fixed_residues": "9"}, "f.a3m: the query has residues 1 to 4; there is no residue 9"),
        ({"fixed_residues": "4-2"}, "fixed residues: '4-2' is not a number or a range; write them like 3,10-12"),
        ({"only_residues": "K2"}, "residues to change: 'K2' is not a number or a range"),
        ({"only_rows": ["other"]}, "f.a3m: there is no row with the name 'other'"),
        ({"only_rows": [4]}, r"f.a3m: rows are numbered from 1 \(the query\) to 3, so there is no row 4"),
        ({"only_rows": []}, "f.a3m: only_rows is empty"),
        ({"only_rows": ["twin"]}, "f.a3m: rows 2, 3 all have the name twin: pass the row's number"),
        (
            {"only_rows": [2, 3], "rows": 2},
            "f.a3m: the query and the rows to change are 3 rows, but the model is given 2",
        ),
        ({"only_rows": [2], "keep_query": True}, "only_rows cannot be combined with count or keep_query"),
        ({"keep_query": True, "rows": 1}, "the model sees only the query, which is to be kept"),
        ({"temperature": 0.5}, "require the sampling 'sample'"),
        ({"sampling": "beam"}, "unknown sampling 'beam'; use greedy or sample"),
        ({"sampling": "sample", "temperature": 0}, "temperature must be above 0"),
        ({"sampling": "sample", "top_p": 1.5}, "top_p above 0 and at most 1"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"mask_probability": 0}, "mask_probability above 0"),
        ({"count": 0}, "count must be at least 1"),
        ({"mode": "quick"}, "unknown mode 'quick'; use exact or fast"),
        ({"mode": "fast"}, "f.a3m: fast mode changes a single row, but 3 rows would change: name one"),
        ({"mode": "fast", "only_rows": [1, 3]}, "but 2 rows would change"),
    ):
        with pytest.raises(ValueError, match=message):
            generate(natural, random_model, **options)
    with pytest.raises(ValueError, match=r"residue 1 \(M\) is in lower case"):
        generate(SMALL, random_model, only_residues="1-3")
    with pytest.raises(ValueError, match="the query has 70 aligned residues, but the model reads at most 63"):
        generate(family("long", 3, 70, 0), random_model)
    assert not depths


def test_command(tmp_path, random_model):
    app, runner = typer.Typer(), CliRunner()
    app.command()(generate_command)
    random_model.save_pretrained(tmp_path / "model")
    folder = tmp_path / "families"
    made = make_folder(folder, count=2)
    options = ["--model", str(tmp_path / "model"), "--iterations", "2", "--fix", "1-3", "--seed", "4"]

    output = tmp_path / "new.a3m"
    result = runner.invoke(app, [str(folder / "f1.a3m"), "-o", str(output), *options])
    assert result.exit_code == 0, result.output
    expected = generate(made["f1"], random_model, iterations=2, fixed_residues="1-3", seed=4)
    assert list(read_alignment(output)) == list(expected.alignment)
    assert len((tmp_path / "new.generated.tsv").read_text().splitlines()) == 1 + len(expected.names)
    assert f"{len(expected.names)} sequences" in result.output

    fast = tmp_path / "fast.a3m"
    result = runner.invoke(app, [str(folder / "f1.a3m"), "-o", str(fast), *options, "--count", "1", "--mode", "fast"])
    assert result.exit_code == 0, result.output
    expected = generate(made["f1"], random_model, iterations=2, fixed_residues="1-3", seed=4, count=1, mode="fast")
    assert list(read_alignment(fast)) == list(expected.alignment)

    results = tmp_path / "results"
    result = runner.invoke(app, [str(folder), "-o", str(results), *options])
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in results.glob("f*")) == ["f0.a3m", "f0.generated.tsv", "f1.a3m", "f1.generated.tsv"]
    assert (results / "f1.a3m").read_bytes() == output.read_bytes()

    constant_model(W=5, gap=6).save_pretrained(tmp_path / "gaps")
    gaps = ["--model", str(tmp_path / "gaps"), "--iterations", "1", "--mask-probability", "1"]
    result = runner.invoke(app, [str(folder), "-o", str(tmp_path / "empty"), *gaps])
    assert result.exit_code == 0, result.output
    for name, family_of in made.items():
        written = read_alignment(tmp_path / "empty" / f"{name}.a3m")
        assert written.sequences[0] == family_of.sequences[0]
        assert set("".join(written.sequences[1:])) == {"-"}
        assert written.depth == 1 + family_of.depth

    for arguments, message in (
        ([str(folder / "f1.a3m"), "-o", str(tmp_path / "new.txt")], "unknown output format '.txt'"),
        ([str(folder / "f1.a3m"), "-o", str(output), "--temperature", "0.5"], "require the sampling 'sample'"),
        ([str(folder), "-o", str(tmp_path / "other"), "--mode", "fast"], "fast mode changes a single row"),
        ([str(folder), "-o", str(tmp_path / "third"), "--only-residues", "M1"], "residues to change: 'M1' is"),
    ):
        result = runner.invoke(app, [*arguments, *options])
        assert message in result.output, result.output
        assert result.exit_code == 1
