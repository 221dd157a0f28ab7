"""A report's page: its numbers are the report's, it is small, asks for nothing, and shows any name as text.

Browser tests run Chromium without a window, where it is installed.
"""

import base64
import dataclasses
import html
import http.server
import itertools
import json
import re
import shutil
import subprocess
import threading
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from families import family
from small import small_model

from modeling_msa import Alignment, MsaForMaskedLM, make_report, write_report
from modeling_msa.tasks.plotting import BY_CHEMISTRY
from modeling_msa.tasks.report_files import pack

pytestmark = pytest.mark.usefixtures("one_thread")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
HOSTILE = [
    "<script>document.title='run'</script>",
    "</script><script>document.title='run'</script>",
    "</title></style><img src=x onerror=\"document.title='run'\">",
    "{{ 7 * 7 }}{% raw %}' \" & \u202e\u2028\x0b",
    "<!--<script>" + "long name " * 400,
]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return small_model(MsaForMaskedLM, max_position_embeddings=320)


@pytest.fixture(scope="module")
def report(model):
    rows = family("f", 12, 30, seed=1).sequences
    known = np.zeros((32, 32), dtype=np.int8)
    known[3, 20] = known[20, 3] = 1
    known[31] = known[:, 31] = -100
    return make_report(Alignment.from_sequences(["mk" + rows[0], *rows[1:]]), model, known=known, baselines=["mi"])


@pytest.fixture
def page(report, tmp_path):
    commands = {"Contacts": "msa contacts 'a b.a3m' -o contacts.tsv"}
    write_report(report, tmp_path / "x.html", file="a b.a3m", commands=commands, versions={"modeling-msa": "1"})
    return tmp_path / "x.html"


def numbers(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)[1])


def unpack(packed):
    """As the page's script does it."""
    raw = np.frombuffer(base64.b64decode(packed["text"]), dtype="<u2" if packed["wide"] else "u1").astype(float)
    most = 65535 if packed["wide"] else 255
    raw[raw == most] = np.nan
    return packed["low"] + (packed["high"] - packed["low"]) * raw / (most - 1)


def test_numbers_are_packed_to_half_a_step():
    values = np.array([-3.2, np.nan, 0.1, 4.7, 4.699])
    for wide, step in ((False, 7.9 / 254), (True, 7.9 / 65534)):
        found = unpack(pack(values, -3.2, 4.7, wide))
        np.testing.assert_allclose(found, values, atol=step / 2 + 1e-12)
    assert unpack(pack(np.array([2.0, 2.0]), 2, 2)).tolist() == [2, 2]


def test_what_the_pictures_show(report, page):
    data = numbers(page)
    upper = np.triu_indices(30, 1)
    assert data["residues"] == list(range(3, 33))
    assert data["sequence"] == report.statistics.query[2:]
    model, other = data["maps"]
    np.testing.assert_allclose(unpack(model["values"]), report.contacts.probabilities[upper], atol=0.5 / 254)
    assert model["top"] == report.contacts.top(30).tolist()
    scores = report.baselines["mutual information"].values
    np.testing.assert_allclose(unpack(other["values"]), scores[upper], atol=np.ptp(scores) / 508 + 1e-9)
    known = unpack(data["known"])
    assert np.isnan(known).sum() == 29  # pairs of residue 32
    assert (known == 1).sum() == 1
    assert known[list(zip(*upper, strict=True)).index((1, 18))] == 1  # residues 4 and 21
    found = unpack(data["scores"]["values"]).reshape(30, 20)
    order = ["ACDEFGHIKLMNPQRSTVWY".index(letter) for letter in BY_CHEMISTRY]
    np.testing.assert_allclose(found, report.scores.score[:, order], atol=np.ptp(report.scores.score) / 65534)
    np.testing.assert_allclose(
        unpack(data["profile"]["model"]).reshape(30, 20), report.profile.probabilities, atol=0.002
    )
    np.testing.assert_allclose(unpack(data["alignment"]["coverage"]), report.statistics.coverage, atol=0.002)


class Page(HTMLParser):
    """Elements with their attributes, and the text of the tables' rows."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.rows, self.cell = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = self.rows[-1]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell[-1] += data


def test_tables(report, page):
    rows = Page(page.read_text()).rows
    contacts, query = report.contacts, report.statistics.query
    head = ["rank", "i", "j", "|i\u2212j|", "probability", "rank, mutual information", "in contact"]
    start = rows.index(head) + 1
    pairs = [tuple(pair) for pair in report.baselines["mutual information"].top().tolist()]
    listed = [row for row in rows[start:] if len(row) == 7 and row != head]
    assert len(listed) == 30
    for rank, ((i, j), row) in enumerate(zip(contacts.top(30).tolist(), listed, strict=True), start=1):
        a, b = contacts.residues[[i, j]]
        state = "unresolved" if b == 32 else "yes" if (a, b) == (4, 21) else "no"
        value = f"{contacts.probabilities[i, j]:.3f}"
        assert row == [
            str(rank),
            f"{query[a - 1]}{a}",
            f"{query[b - 1]}{b}",
            str(b - a),
            value,
            str(pairs.index((i, j)) + 1),
            state,
        ]
    chance = next(row for row in rows if row[0] == "chance")
    assert chance[1] == f"{1 / sum(29 - k for k in range(6, 29)):.2f}"


def test_a_page_for_everyone(page):
    """Headings in order, names for pictures and controls, captions and scopes of tables, room for a phone."""
    elements = Page(page.read_text()).elements
    levels = [int(tag[1]) for tag, _ in elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    for tag, attributes in elements:
        if tag in ("canvas", "svg", "nav"):
            assert len(attributes["aria-label"]) > 7
        if tag == "canvas":
            assert attributes["tabindex"] == "0"
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    tags = [tag for tag, _ in elements]
    assert tags.count("table") == tags.count("caption") == 5
    assert ("html", {"lang": "en"}) in elements
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in elements


def test_nothing_is_asked_for(page):
    text = page.read_text()
    for _, attributes in Page(text).elements:
        for name in (
            "src",
            "srcset",
            "data",
            "poster",
            "action",
            "style",
            *(key for key in attributes if key[:2] == "on"),
        ):
            assert name not in attributes
        assert attributes.get("href", "#").startswith("#")
    for words in ("http:", "https:", "url(", "@import", "fetch(", "XMLHttpRequest", "//cdn"):
        assert words not in text
    policy = next(each["content"] for tag, each in Page(text).elements if "http-equiv" in each)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_a_long_family_is_a_small_page(model, tmp_path):
    report = make_report(family("f", 12, 300, seed=1), model, known=np.zeros((300, 300)))
    others = dict.fromkeys(("mutual information", "DCA"), report.contacts)
    write_report(dataclasses.replace(report, baselines=others), tmp_path / "x.html")
    assert (tmp_path / "x.html").stat().st_size < 600_000


def test_a_single_row_and_residues_without_a_number(model, tmp_path):
    """No homologs, no pair that is far enough apart, no score: nothing is drawn that does not exist."""
    write_report(make_report(Alignment.from_sequences(["MXV"]), model, baselines=["mi"]), tmp_path / "x.html")
    data = numbers(tmp_path / "x.html")
    assert np.isnan(unpack(data["scores"]["values"]).reshape(3, 20)[1]).all()
    assert data["profile"]["familyEntropy"][1] is None
    text = (tmp_path / "x.html").read_text()
    assert "There is a single row" in text
    assert "NaN" not in text.replace("NaN(", "").replace("? NaN", "")
    assert "Strongest pairs" not in text


def test_other_endings_are_refused(report, tmp_path):
    with pytest.raises(ValueError, match=r"unknown output format '.pdf'; use .html"):
        write_report(report, tmp_path / "x.pdf")
    assert list(tmp_path.iterdir()) == []


def browse(path, folder, *more):
    """Open a page, run its script, and return the document as it is then."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--window-size=1000,1000", "--virtual-time-budget=3000", *more, "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@in_a_browser
def test_hostile_names_are_text_in_a_browser(report, tmp_path):
    named = " ".join(HOSTILE)
    statistics = dataclasses.replace(report.statistics, name=named, warnings=tuple(HOSTILE))
    contacts = dataclasses.replace(report.contacts, name=named)
    dangerous = dict(zip(HOSTILE, HOSTILE, strict=True))
    path = tmp_path / "x.html"
    write_report(
        dataclasses.replace(report, statistics=statistics, contacts=contacts),
        path,
        file=HOSTILE[0],
        model=HOSTILE[2],
        structure=HOSTILE[1],
        commands=dangerous,
        versions=dangerous,
    )
    document = browse(path, tmp_path)
    assert 'data-drawn="5"' in document  # all pictures
    assert "<title>&lt;script&gt;document.title" in document
    found = Page(document)
    assert [tag for tag, _ in found.elements].count("script") == 2
    assert not [tag for tag, _ in found.elements if tag == "img"]
    codes = [html.unescape(code) for code in re.findall(r"<code>(.*?)</code>", document, flags=re.DOTALL)]
    assert [code.strip() for code in codes] == [name.strip() for name in HOSTILE]


ASKED = []


class Counter(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ASKED.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@in_a_browser
def test_no_request_leaves_the_page_even_if_it_tried(page, tmp_path):
    """The page's policy refuses what is planted in it; without the policy the same requests arrive."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = f"http://127.0.0.1:{server.server_port}"
    planted = f"<img src='{where}/img'><link rel='stylesheet' href='{where}/css'><iframe src='{where}/frame'></iframe>"
    planted += f"<script>document.title = 'run'; fetch('{where}/fetch')</script>"
    text = page.read_text().replace("<main>", f"<main>{planted}")
    try:
        for name, changed in (("with", text), ("without", re.sub(r"<meta http-equiv[^>]*>", "", text))):
            (tmp_path / f"{name}.html").write_text(changed)
            ASKED.clear()
            document = browse(tmp_path / f"{name}.html", tmp_path)
            assert 'data-drawn="5"' in document  # the page's own script and styles run under the policy
            assert ("<title>run" in document) == (name == "without")
            asked = {each for each in ASKED if each != "/favicon.ico"}
            assert asked == (set() if name == "with" else {"/img", "/css", "/frame", "/fetch"})
    finally:
        server.shutdown()


@in_a_browser
def test_numbers_are_read_with_keys_and_fingers(report, page, tmp_path):
    """Arrow keys and a touch show the value, the residue and the letter of a cell."""
    acts = """<script>addEventListener("load", () => {
      const said = (id) => document.querySelector(`#${id} output`).textContent.replaceAll("\\n", " | ");
      const canvas = (id) => document.querySelector(`#${id} canvas`);
      const press = (id, key) => canvas(id).dispatchEvent(new KeyboardEvent("keydown", { key }));
      const log = [];
      for (const key of ["ArrowDown", "ArrowRight", "ArrowDown"]) press("substitution-plot", key);
      log.push(said("substitution-plot"));
      press("map-0", "ArrowUp");
      log.push(said("map-0"));
      press("profile-plot", "ArrowUp");
      log.push(said("profile-plot"));
      const area = canvas("alignment-plot").getBoundingClientRect();
      const place = { clientX: area.right - 4, clientY: area.top + 50, pointerType: "touch" };
      canvas("alignment-plot").dispatchEvent(new PointerEvent("pointerdown", place));
      log.push(said("alignment-plot"));
      press("map-0", "Escape");
      log.push(String(document.querySelector("#map-0 output").hidden));
      document.body.dataset.log = JSON.stringify(log);
    });</script>"""
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text()).replace("</body>", f"{acts}</body>")
    (tmp_path / "acts.html").write_text(text)
    document = browse(tmp_path / "acts.html", tmp_path)
    substitution, pair, profile, column, hidden = json.loads(
        html.unescape(re.search(r'data-log="(.*?)"', document)[1])
    )
    query = report.statistics.query
    # residue 4, the second column of the map, and L, the second letter by chemistry
    score = f"{report.scores.score[1, 'ACDEFGHIKLMNPQRSTVWY'.index('L')]:.2f}".replace("-", "\u2212")
    assert substitution == f"{query[3]}4L | Score {score}"
    i, j = report.contacts.top(1)[0]
    a, b = report.contacts.residues[[i, j]]
    assert pair.startswith(f"Residues {a} ({query[a - 1]}) and {b} ({query[b - 1]}) | MSA Transformer: ")
    assert float(pair.split("MSA Transformer: ")[1].split(" |")[0]) == pytest.approx(
        report.contacts.probabilities[i, j], abs=0.01
    )
    state = "unresolved" if b == 32 else "in contact" if (a, b) == (4, 21) else "not in contact"
    assert pair.endswith(f" | {state} in the structure")
    best = report.profile.probabilities[0].argmax()
    share = report.profile.probabilities[0, best]
    assert profile.startswith(f"Residue 3 ({query[2]}) | Model: ")
    assert f"{'ACDEFGHIKLMNPQRSTVWY'[best]} {share:.2f}, " in profile
    assert column.startswith(f"Residue 32 ({query[31]}) | {round(100 * report.statistics.coverage[-1])} % of the rows")
    assert hidden == "true"


@in_a_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(report, tmp_path, width):
    """Also not names and commands without a space, or pictures; what must be wide scrolls in its own box."""
    statistics = dataclasses.replace(report.statistics, name="x" * 3000, warnings=("v" * 3000,))
    path = tmp_path / "x.html"
    long = {"z" * 500: "w" * 3000}
    write_report(
        dataclasses.replace(report, statistics=statistics), path, file="y" * 3000, commands=long, versions=long
    )
    measured = """<iframe width=WIDTH height=900></iframe><script>
      const frame = document.querySelector("iframe");
      frame.srcdoc = PAGE;
      frame.onload = () => setTimeout(() => {
        const { scrollWidth, clientWidth, dataset } = frame.contentDocument.documentElement;
        document.body.dataset.log = [scrollWidth, clientWidth, dataset.drawn].join();
      }, 200);</script>"""
    inside = json.dumps(path.read_text()).replace("</", "<\\/")
    (tmp_path / "frame.html").write_text(measured.replace("WIDTH", str(width)).replace("PAGE", inside))
    document = browse(tmp_path / "frame.html", tmp_path, "--window-size=1500,1000")
    scroll, client, drawn = map(int, re.search(r'data-log="(.*?)"', document)[1].split(","))
    assert scroll == client
    assert client > width - 20  # a scroll bar may have its place
    assert drawn == 5


@pytest.fixture(scope="module")
def complex_report(model):
    """A homo-dimer of 2 times 10 residues, A:1 and A:9 in contact, of which the model reads 14 columns at a time."""
    rows = [row + row for row in family("f", 12, 10, seed=3).sequences]
    known = np.zeros((20, 20), dtype=np.int8)
    known[0, 8] = known[8, 0] = 1
    alignment = Alignment.from_sequences(rows, chains="A:10,b:10")
    return make_report(alignment, model, known={"A:X,b:Y": known}, baselines=["mi"], window=14, overlap=8)


def test_what_the_pictures_of_a_complex_show(complex_report, tmp_path):
    write_report(complex_report, tmp_path / "x.html")
    data, upper = numbers(tmp_path / "x.html"), np.triu_indices(20, 1)
    assert data["residues"] == [*range(1, 11)] * 2
    assert (data["chains"], data["chainOf"]) == (["A", "b"], [0] * 10 + [1] * 10)
    assert data["names"][9:11] == ["A:10", "b:1"]
    states = dict(zip(zip(*upper, strict=True), unpack(data["known"]), strict=True))
    assert {pair: state for pair, state in states.items() if state} == {(0, 8): 1, (0, 18): 0.5, (8, 10): 0.5}
    values = unpack(data["maps"][0]["values"])
    assert np.isnan(values).sum() == 6 * 6  # windows are columns 0 to 13 and 6 to 19
    assert np.isnan(complex_report.contacts.probabilities[upper]).sum() == 36
    text = (tmp_path / "x.html").read_text()
    rows = Page(text).rows
    assert "36 pairs are in no window" in " ".join(text.split())
    assert "in 2 windows of 14 columns" in text
    assert "A:X,b:Y" in text
    start = rows.index(["rank", "i", "j", "probability", "rank, mutual information", "in contact"])
    query, contacts = complex_report.statistics.query, complex_report.contacts
    for row, (i, j) in zip(rows[start + 1 :], contacts.top(15, between_chains=True).tolist(), strict=False):
        assert row[1:3] == [f"A:{query[i]}{i + 1}", f"b:{query[j]}{j - 9}"]
        assert row[5] == ("within a chain" if (i, j) in ((0, 18), (8, 10)) else "no")
    judged = {row[0]: row[1:] for row in rows if row[:1] in (["method"], ["chance"])}
    assert "between P@10" in judged["method"]


@in_a_browser
def test_a_complex_in_a_browser(complex_report, tmp_path):
    """Residues and substitutions are named by chain, two chains are never too close, windows leave pairs out."""
    acts = """<script>addEventListener("load", () => {
      const said = (id) => document.querySelector(`#${id} output`).textContent.replaceAll("\\n", " | ");
      const canvas = (id) => document.querySelector(`#${id} canvas`);
      const press = (id, key) => canvas(id).dispatchEvent(new KeyboardEvent("keydown", { key }));
      const log = [];
      const walk = (id, right, down) => {
        for (const key of ["ArrowLeft", "ArrowUp"]) for (let k = 0; k < 30; k++) press(id, key);
        for (let k = 0; k < right; k++) press(id, "ArrowRight");
        for (let k = 0; k < down; k++) press(id, "ArrowDown");
        log.push(said(id));
      };
      walk("map-0", 10, 9);
      walk("map-0", 9, 8);
      walk("map-0", 18, 0);
      walk("map-0", 8, 0);
      walk("map-1", 19, 1);
      walk("substitution-plot", 12, 3);
      walk("profile-plot", 10, 0);
      document.body.dataset.log = JSON.stringify(log);
    });</script>"""
    write_report(complex_report, tmp_path / "x.html")
    text = re.sub(r"<meta http-equiv[^>]*>", "", (tmp_path / "x.html").read_text())
    (tmp_path / "acts.html").write_text(text.replace("</body>", f"{acts}</body>"))
    document = browse(tmp_path / "acts.html", tmp_path)
    log = json.loads(html.unescape(re.search(r'data-log="(.*?)"', document)[1]))
    query = complex_report.statistics.query
    near, close, same, right, lacking, substitution, profile = log
    assert near.startswith(f"Residues A:10 ({query[9]}) and b:1 ({query[10]}) | MSA Transformer: 0.")
    assert close.startswith(f"Residues A:9 ({query[8]}) and A:10 ({query[9]}) | Less than 6 residues apart")
    assert same.startswith(f"Residues A:1 ({query[0]}) and b:9 ({query[18]}) | MSA Transformer: in no window")
    assert same.endswith(" | in contact within a chain of the structure instead")
    assert right.endswith(" | in contact in the structure")
    assert "MSA Transformer: in no window | mutual information: " in lacking
    assert "mutual information: in no" not in lacking
    assert substitution.startswith(f"b:{query[12]}3{BY_CHEMISTRY[3]} | Score ")
    assert profile.startswith(f"Residue b:1 ({query[10]}) | Model: ")
