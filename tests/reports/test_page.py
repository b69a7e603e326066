"""Tests that reports are well-formed, self-contained and escaped, and that sections are optional."""

import base64
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from vidjax.environment import environment
from vidjax.reports import page as report_page
from vidjax.reports.page import Example, classification_sections, write_report
from vidjax.tasks.results import ClassificationResult

VOID = {"meta", "img", "br", "link"}
NASTY = ["<script>alert(1)</script>", "R&B $\\bad{$", "día 漢字", 'quote " end']


class Page(HTMLParser):
    """Checks that tags are nested correctly, and collects the text and all URLs."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.tags, self.headings, self.text = [], [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [
            v for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "action", "data")
        ]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data
            if self.open[-1] == "h2":
                self.headings.append(data)


def result(names, n=30, seed=0, skill=2.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(names), n)
    logits = rng.normal(size=(n, 2, len(names)))
    logits[np.arange(n), :, labels] += skill
    return ClassificationResult([f"v{i}" for i in range(n)], labels, logits.astype(np.float32), tuple(names))


def rows(steps):
    train = [
        {
            "step": s,
            "split": "train",
            "loss": 1 / (s + 1),
            "top1": 0.5,
            "lr": 0.1,
            "step_time": 0.2,
            "data_wait": 0.1,
        }
        for s in range(steps)
    ]
    return [*train, {"step": steps, "split": "val", "loss": 0.3, "video_top1": 0.8}]


def example(i=0, true="a", probs=(("a", 0.7), ("b", 0.3)), **kw):
    frames = np.random.default_rng(i).integers(0, 256, (4, 32, 32, 1), np.uint8)
    return Example(f"clip{i}.avi", true, frames, probs, **kw)


def write(tmp_path, **kw):
    path = tmp_path / "deep" / "report.html"
    sections = classification_sections(kw.pop("results", {}), kw.pop("class_names", ["a", "b"]))
    defaults = {"title": "T", "config": {}, "metrics": {}, "environment": {}}
    write_report(path, **{**defaults, "sections": sections, **kw})
    text = path.read_text("utf-8")
    return text, Page(text)


def full(tmp_path, names=NASTY, models=2, **kw):
    results = {f"model <{i}>": result(names, seed=i) for i in range(models)}
    return write(
        tmp_path,
        title="A & <B>",
        note="note <i>",
        config={"data": {"path": "<x>", "options": {}}, "lr": 0.1},
        metrics={name: rows(20) for name in results},
        results=results,
        class_names=names,
        examples=[
            example(0, names[0], [(names[0], 0.6)], start=1.0, end=2.5),
            example(1, names[0], [(names[1], 0.9)]),
        ],
        environment={"python <": "3 & 4"},
        table=[{"model": "m<1>", "top-1": 0.123456}, {"model": "paper", "top-1": None, "year": 2018}],
        **kw,
    )


def test_report_loads_no_external_resources(tmp_path):
    text, page = full(tmp_path)
    assert page.addresses and all(a.startswith(("data:image/", "#")) for a in page.addresses)
    assert all(a.startswith("#") for a in re.findall(r"url\(([^)]*)\)", text))
    assert "http" not in text and "@import" not in text and "script" not in page.tags


def test_all_text_is_escaped(tmp_path):
    text, page = full(tmp_path)
    assert "<script" not in text and "<i>note" not in text
    for name in NASTY:
        assert name in page.text
    for words in ("A & <B>", "note <i>", "model <1>", "python <", "3 & 4", "data.path = '<x>'", "m<1>"):
        assert words in page.text
    assert not {"<", "&"} & set(re.sub(r"<[^<>]*>|&\w+;|&#\d+;", "", text[text.index("<body>") :]))


def test_numbers_match_the_results(tmp_path):
    names = ["a", "b", "c"]
    r = result(names, seed=3, skill=1.0)
    _, page = write(tmp_path, results={"m": r}, class_names=names)
    m = r.metrics
    for share in (m["video_top1"], m["clip_top1"], m["mean_class_accuracy"], *r.per_class):
        assert f"{100 * share:.1f} %" in page.text
    for right, total in zip(np.diag(r.confusion), r.confusion.sum(1)):
        assert f"({right} of {total})" in page.text
    assert "Top-5" not in page.text and "five classes or fewer" in page.text


def test_examples_are_marked_right_or_wrong(tmp_path):
    _, page = full(tmp_path)
    assert page.text.count("✓ right") == 1 and page.text.count("✗ wrong") == 1
    assert "1.0–2.5 s" in page.text
    _, page = write(tmp_path, examples=[example(true=None), example(probs=())])
    assert "✓ right" not in page.text and "✗ wrong" not in page.text


@pytest.mark.parametrize("k", [1, 2, 41, 400])
def test_any_number_of_classes(tmp_path, k):
    names = [f"class number {i} with a rather long name" for i in range(k)]
    metrics = {"m": rows(1000)}
    text, page = write(tmp_path, metrics=metrics, results={"m": result(names)}, class_names=names)
    assert page.tags.count("svg") >= 1
    assert len(re.findall("of [0-9]+\\)", page.text)) <= report_page.CLASS_ROWS
    assert len(text) < 600_000


def test_worst_classes_come_first_and_absent_ones_are_counted():
    k = 50
    labels = np.repeat(np.arange(49), 4)
    predicted = labels.copy()
    predicted[4 * 30 : 4 * 30 + 3] = 0  # class 30: 1 of 4
    predicted[4 * 7] = 0  # class 7: 3 of 4
    names = tuple(map(str, range(k)))
    r = ClassificationResult([""] * 196, labels, np.eye(k, dtype=np.float32)[predicted][:, None], names)
    out = report_page._classes({"m": r, "n": r}, names)
    assert out["rows"][0] == ("30", [(1, 4)] * 2) and out["rows"][1] == ("7", [(3, 4)] * 2)
    assert out["absent"] == 1 and len(out["rows"]) == report_page.CLASS_ROWS
    pairs = report_page._confusion("m", r, names)["pairs"]
    assert pairs == [("30", "0", 3, 0.75), ("7", "0", 1, 0.25)]


def test_confusion_matrix_combines_adjacent_classes():
    k = 250  # groups of three: 84 cells
    labels = np.arange(k)
    predicted = labels.copy()
    predicted[0] = 249  # one of the first three videos
    logits = np.eye(k, dtype=np.float32)[predicted][:, None]
    r = ClassificationResult([""] * k, labels, logits, tuple(map(str, range(k))))
    out = report_page._confusion("m", r, r.class_names)
    assert out["group"] == 3 and out["square_root"]
    png = base64.b64decode(re.search(r"base64,([^\"]*)\"", out["figure"].replace("\n", ""))[1])
    alpha = np.asarray(Image.open(io.BytesIO(png)))[..., 3].astype(int)
    want = 255 * np.eye(84)
    want[0, 0], want[0, 83] = 255 * math.sqrt(2 / 3), 255 * math.sqrt(1 / 3)
    np.testing.assert_allclose(alpha, want, atol=1)


@pytest.mark.parametrize("part", ["config", "metrics", "results", "examples", "environment", "table"])
def test_empty_sections_are_omitted(tmp_path, part):
    empty = {"examples": [], "table": None}.get(part, {})
    keep = {"results": {"m": result(["a", "b"])}, "metrics": {"m": rows(3)}, "examples": [example()]}
    keep |= {"config": {"x": 1}, "environment": {"y": "z"}, "table": [{"c": 1}]}
    _, page = write(tmp_path, **{**keep, part: empty})
    gone = {"config": ["Configuration"], "metrics": ["Training"], "table": ["Summary"]}
    gone |= {"results": ["Accuracy", "Confusion matrix", "Per-class accuracy"]}
    everything = {
        "Summary",
        "Accuracy",
        "Training",
        "Confusion matrix",
        "Per-class accuracy",
        "Examples",
        "Configuration",
        "Environment",
    }
    assert set(page.headings) == everything - set(gone.get(part, [part.capitalize()]))


def test_metrics_may_be_empty_or_not_finite(tmp_path):
    one = [{"step": 1, "split": "train", "loss": 2.0}]
    bad = [{"step": 1, "split": "train", "loss": math.nan, "top1": None}, {"step": 2, "split": "val"}]
    _, page = write(tmp_path, metrics={"one": one, "none": [], "bad": bad})
    assert page.tags.count("svg") == 1 and "Loss" in page.text
    _, page = write(tmp_path, metrics={"bad": bad, "none": []})
    assert page.tags.count("svg") == 0


def test_series_are_thinned_by_averaging_and_restarts_count_once():
    many = [{"step": s, "split": "train", "loss": float(s)} for s in range(3000)]
    x, y = report_page._series(many, "train", "loss")
    assert len(x) == report_page.POINTS and y.mean() == pytest.approx(1499.5)
    np.testing.assert_allclose(x, y)
    again = [*many[:10], *({**r, "loss": -1.0} for r in many[5:8])]
    x, y = report_page._series(again, "train", "loss")
    assert x.tolist() == list(range(10)) and y.tolist() == [0, 1, 2, 3, 4, -1, -1, -1, 8, 9]


def test_wilson_interval():
    assert report_page._wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert report_page._wilson(1.0, 1)[1] == 1 and report_page._wilson(0.0, 5)[0] == 0


def test_report_size_is_bounded(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (16, 112, 112, 3), np.uint8)
    text, _ = write(tmp_path, examples=[Example("a", "a", noise, [("a", 1.0)])] * 3)
    assert len(text) < 3 * 5_000_000 / 24


def test_names_that_are_not_utf8_are_replaced(tmp_path):
    text, _ = write(tmp_path, examples=[Example("bad\udcff.avi", "a", example().frames, [("a", 1.0)])])
    assert "bad?.avi" in text


def test_results_with_other_classes_are_rejected(tmp_path):
    with pytest.raises(ValueError, match="m has 3 classes, the report 2"):
        write(tmp_path, results={"m": result(["a", "b", "c"])})


def test_environment():
    found = environment()
    assert found["devices"].startswith("4 × cpu") and int(found["host CPUs"]) > 0
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?|unknown", found["commit"])
