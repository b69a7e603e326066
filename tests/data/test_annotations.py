"""Tests of reading annotation files, and of finding videos by the names in them."""

import os

import av
import numpy as np
import pytest

from vidjax.data.annotations import (
    Annotations,
    BadLine,
    VideoFolder,
    duration_of,
    index_of,
    locate,
    read_json,
    read_lines,
    read_objects,
    read_table,
    span,
    text,
)
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget, Segment, SegmentsTarget
from vidjax.errors import UserError


def rows(tmp_path, content, **options):
    file = tmp_path / "list.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_table(file, **options))


@pytest.mark.parametrize(
    "content",
    [
        "name,label\na.mp4,dog\nb c.mp4,cat\n",
        b"\xef\xbb\xbfname,label\r\na.mp4,dog\r\nb c.mp4,cat\r\n",  # UTF-8 from Excel
        "name;label\na.mp4;dog\nb c.mp4;cat\n",  # where the comma is the decimal sign
        "name\tlabel\ra.mp4\tdog\rb c.mp4\tcat".encode("utf-16"),  # "Unicode text" from Excel
        'name, label ,\n"a.mp4", "dog",\n\n,,\n  "b c.mp4",cat,,\n',  # with spaces before quotes
    ],
)
def test_tables_of_spreadsheets(tmp_path, content):
    table = rows(tmp_path, content, columns=("name", "label"))
    assert [(r["name"], r["label"]) for r in table] == [("a.mp4", "dog"), ("b c.mp4", "cat")]
    assert table[0].where.endswith("list.csv, line 2")


def test_tables_without_a_header(tmp_path):
    table = rows(tmp_path, "a.mp4 1\nb.mp4\n", columns=("name", "label"), header=False, delimiter=" ")
    assert [dict(r) for r in table] == [{"name": "a.mp4", "label": "1"}, {"name": "b.mp4", "label": ""}]


def test_lines_after_a_quoted_line_break_keep_their_numbers(tmp_path):
    table = rows(tmp_path, 'name,label\n"a\nb",x\nc,y\n')
    assert [r.where.rpartition(" ")[2] for r in table] == ["2", "4"]


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "is empty: it must have a column 'name'"),
        ("x,label\n", r"no column 'name' in its first line \(found: x, label\)"),
        ("name,name\n", "more than one column 'name'"),
        ('name\n"a\n', "line 2: a quote is not closed"),
        (b"name\n\0\n", "is not text .byte 0x00 in line 2"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        rows(tmp_path, content, columns=("name",))


def test_malformed_lines_are_listed_and_limited(tmp_path):
    content = "name,label,at\na,dog,1\nb,dog,x\nc,cow,3\nd,dog,4,5\na,dog,1\ne,dog,5\n"

    def read(limit):
        notes, records = Annotations("pets", limit), []
        for row in rows(tmp_path, content):
            with notes.line(row):
                label = index_of(row["label"], {"dog": 0})
                records.append(Record(row["name"], ClassTarget(label), row["name"], row.number("at", 0)))
        return notes.source(records, ("dog",))

    source = read(0.8)
    assert [r.id for r in source.records] == ["a", "e"]
    lines = [p.replace(str(tmp_path) + "/", "") for p in source.problems]
    assert lines == [
        "list.csv, line 3: at 'x' is not a number of at least 0",
        "list.csv, line 4: unknown class 'cow'",
        "list.csv, line 5: 4 cells under 3 columns; put quotes around a cell with a ',' in it",
        "a is listed more than once",
    ]
    with pytest.raises(UserError, match=r"pets: 4 of 6 annotations .*bad_limit=0.5 allows: .*line 3") as e:
        read(0.5)
    assert "\n" not in str(e.value)


def test_malformed_targets_are_listed():
    notes = Annotations("games", 0.5)
    notes.total = 2
    targets = SegmentsTarget((Segment(1, 2, 0),), 3.0), SegmentsTarget((Segment(2, 4, 0),), 3.0)
    source = notes.source([Record(str(i), t, str(i)) for i, t in enumerate(targets)])
    assert len(source) == 1 and "from 2 to 4 s is not within" in source.problems[0]
    with pytest.raises(UserError, match="so none is left"):
        Annotations("games", 1.0).source([Record("1", targets[1], "1")])
    with pytest.raises(UserError, match="list no video of this split"):
        Annotations("games", 1.0).source([])


@pytest.fixture
def folder(tmp_path):
    names = (
        "train/run/a.mp4",
        "val/run/a.mp4",
        "val/jump/b_1.AVI",
        "cafe\u0301/c.d.webm",
        ".x/h.mp4",
        "n.txt",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with open(os.fsencode(tmp_path) + b"/caf\xe9.mp4", "wb"):  # a name in Latin-1
        pass
    return tmp_path


@pytest.mark.parametrize(
    "name, found",
    [
        ("train/run/a.mp4", "train/run/a.mp4"),
        ("./val/run/a.mp4", "val/run/a.mp4"),
        ("val\\run\\a.mp4", "val/run/a.mp4"),
        ("/elsewhere/val/run/a.mp4", "val/run/a.mp4"),
        ("run/a", "train/run/a.mp4"),
        ("b_1", "val/jump/b_1.AVI"),
        ("b_1.mp4", "val/jump/b_1.AVI"),
        ("c.d", "cafe\u0301/c.d.webm"),
        ("caf\u00e9/c.d.webm", "cafe\u0301/c.d.webm"),
        ("caf\u00e9.mp4", os.fsdecode(b"caf\xe9.mp4")),
        (os.fsdecode(b"caf\xe9.mp4"), os.fsdecode(b"caf\xe9.mp4")),
    ],
)
def test_videos_are_found(folder, name, found):
    assert VideoFolder(folder).find("missing", name) == os.fspath(folder / found)


def test_absolute_paths_and_missing_videos(folder):
    videos = VideoFolder(folder)
    assert len(videos) == 5
    assert videos.find(str(folder / "val/run/a.mp4")) == str(folder / "val/run/a.mp4")
    outside = folder.parent / f"{folder.name}_a.mp4"
    outside.touch()
    (folder / "train" / outside.name).touch()
    assert videos.find(str(outside)) == videos.find(f"../{outside.name}") == str(outside)
    for name in ("h", "n.txt", "a.d"):
        with pytest.raises(BadLine, match=f"no video {name} in"):
            videos.find(name)


def test_files_are_located(folder, monkeypatch):
    (folder / "lists").mkdir()
    (folder / "lists" / "k_train.csv").touch()
    assert locate(folder, "train.csv", "k*_train.csv", layout="x").name == "k_train.csv"
    with pytest.raises(UserError, match=r"no annotation file test.csv in .*: expected a list"):
        locate(folder, "test.csv", layout="a list")
    monkeypatch.setenv("VIDJAX_DATA", str(folder))
    assert locate("lists", "k*.csv", layout="x").name == "k_train.csv"
    with pytest.raises(UserError, match=r"folder .*nowhere does not exist: set data.options.path"):
        locate("nowhere", "x", layout="x")


def test_json_and_lines(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(b'\xef\xbb\xbf{"a":\n 1,}')
    with pytest.raises(UserError, match=r"a.json, line 2: not JSON"):
        read_json(file)
    file.write_text(" a b \n\nc\n")
    assert [(w.rpartition(" ")[2], line) for w, line in read_lines(file)] == [("1", "a b"), ("3", "c")]
    with pytest.raises(UserError, match=r"cannot read .*missing"):
        list(read_lines(tmp_path / "missing"))


def test_text_in_an_old_encoding():
    assert text(os.fsdecode(b"caf\xe9 \x80")) == "caf\u00e9 \u20ac"
    assert text("caf\u00e9") == "caf\u00e9"


def test_objects_of_json(tmp_path):
    file = tmp_path / "list.json"
    file.write_text('{"version": 1, "videos": {"a": {"at": [1, "x"], "in": [{"x": 2}, 3]}, "b": 4}}')
    (a, row), (b, other) = read_objects(file, "videos")
    assert (a, b, row.listed("at")) == ("a", "b", [1, "x"])
    assert row.parts("in")[0].number("x") == 2 and row.parts("in")[0].text("x") == "2"
    for read, message in (
        (lambda: row["on"], "there is no 'on'"),
        (lambda: row.number("at"), "is not a number"),
        (lambda: row.text("at"), "is not text"),
        (lambda: row.parts("in")[1]["x"], "'3' is not an object"),
        (lambda: other["at"], "'4' is not an object"),
        (lambda: other.listed("at"), "'4' is not an object"),
    ):
        with pytest.raises(BadLine, match=message):
            read()
    for key in ("version", "other"):
        with pytest.raises(UserError, match=f"list.json has no list or object '{key}'"):
            list(read_objects(file, key))
    file.write_text("1")
    with pytest.raises(UserError, match=r"list.json is not a list or object"):
        list(read_objects(file))


@pytest.mark.parametrize(
    "times, clipped",
    [
        ((1, 2), (1, 2)),
        (("0.5", "10.00"), (0.5, 10)),
        ((-1.5, 11.5), (0, 10)),  # within two seconds of the video
        ((9, 12.5), None),
        ((-2.5, 1), None),
        ((10, 11), None),
        ((-1, 0), None),
        ((3, 3), None),
        ((4, 3), None),
        ((float("nan"), 3), None),
        ((1,), None),
        (("a", 3), None),
        (None, None),
    ],
)
def test_segments_are_clipped_to_the_video(times, clipped):
    if clipped:
        assert span(times, 10) == clipped
    else:
        with pytest.raises(BadLine, match=r"is not within the video of 10 s|is not a start and an end"):
            span(times, 10)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mkv", "a.avi"])
def test_duration_in_the_header(tmp_path, name):
    with av.open(str(tmp_path / name), "w") as out:
        stream = out.add_stream("libvpx-vp9" if name == "a.webm" else "mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for _ in range(25):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))))
        out.mux(stream.encode(None))
    assert duration_of(str(tmp_path / name)) == pytest.approx(2.5, abs=0.1)


def test_files_without_a_duration(tmp_path):
    (tmp_path / "a.mp4").touch()
    for path in (tmp_path / "a.mp4", tmp_path / "b.mp4"):
        with pytest.raises(BadLine, match=f"{path.name} is not a readable video"):
            duration_of(str(path))
