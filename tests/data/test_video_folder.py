"""Tests of video_folder: lists, class folders, held-out splits and error messages."""

import os

import pytest

from vidjax.data.datasets import dataset_names, load_source
from vidjax.errors import UserError


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"not opened here")


def load(root, split="all", **options):
    return load_source("video_folder", split, path=root, **options)


@pytest.fixture
def folder(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.mp4" for name in ("wave", "bend", "run") for i in range(20)))
    return tmp_path


@pytest.fixture
def listed(folder):
    rows = [f"{name}/{i}.mp4,{name},p{i % 4},x" for name in ("wave", "bend", "run") for i in range(20)]
    (folder / "clips.csv").write_text("\n".join(["path,label,group,ignored", *rows]))
    return folder


def test_class_folders(folder):
    touch(folder, "run/deep/er.MKV", "run/notes.txt", "run/.hidden.mp4", ".git/a.mp4")
    source = load(folder)
    assert source.class_names == ("bend", "run", "wave") and not source.directional
    assert len(source) == 61 and [r.id for r in source].count("run/deep/er.MKV") == 1
    assert all(source.class_names[r.target.label] == r.id.split("/")[0] for r in source)
    assert all(os.path.isfile(r.video) for r in source)
    assert load(folder, directional=True).directional
    with pytest.raises(UserError, match="cannot be mirrored by name"):
        load(folder, mirror=True)


def test_classes_are_mirrored_by_name(tmp_path):
    touch(tmp_path, "turn left/a.mp4", "turn right/b.mp4", "stop/c.mp4")
    source = load(tmp_path, mirror=True)
    assert source.class_names == ("stop", "turn left", "turn right")
    assert source.mirror == (0, 2, 1) and load(tmp_path).mirror is None


def test_list_in_utf8_with_times_and_groups(tmp_path):
    touch(tmp_path, "a b.mp4", "é.mp4")
    rows = "path,label,end,start,group\na b.mp4,x,2.5,1,g\na b.mp4,y,,2.5,\né.mp4,x,,,\n"
    (tmp_path / "l.csv").write_text(rows, encoding="utf-8-sig")
    source = load(tmp_path, csv="l.csv")
    assert [(r.id, r.target.label, r.start, r.end, r.group) for r in source] == [
        ("a b.mp4#1.0-2.5", 0, 1.0, 2.5, "g"),
        ("a b.mp4#2.5-None", 1, 2.5, None, None),
        ("é.mp4", 0, None, None, None),
    ]


def test_whole_groups_are_held_out(listed):
    options = {"csv": "clips.csv", "test_groups": ["p1", "p3"]}
    train, test = load(listed, "train", **options), load(listed, "test", **options)
    assert {r.group for r in test} == {"p1", "p3"} and {r.group for r in train} == {"p0", "p2"}
    assert {r.id for r in train} | {r.id for r in test} == {r.id for r in load(listed)}
    assert train.fingerprint != test.fingerprint
    options = {"csv": "clips.csv", "test_groups": ["p1"], "val_groups": ["p3"]}
    held_out = {
        split: {r.group for r in load(listed, split, **options)} for split in ("train", "val", "test")
    }
    assert held_out == {"train": {"p0", "p2"}, "val": {"p3"}, "test": {"p1"}}


def test_fraction_is_stable_when_videos_are_added_or_removed(folder):
    def held_out(seed=0):
        return {r.id for r in load(folder, "test", test_fraction=0.3, seed=seed)}

    before = held_out()
    assert 8 <= len(before) <= 28 and before != held_out(seed=1)
    assert not before & {r.id for r in load(folder, "train", test_fraction=0.3)}
    touch(folder, *(f"run/new{i}.mp4" for i in range(20)))
    assert {i for i in held_out() if "new" not in i} == before


@pytest.mark.parametrize("lists", [False, True])
def test_existing_splits_are_used(tmp_path, lists):
    touch(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "val/a/3.mp4")
    if lists:
        (tmp_path / "train.csv").write_text("path,label\ntrain/a/1.mp4,a\ntrain/b/2.mp4,b\n")
        (tmp_path / "val.csv").write_text("path,label\nval/a/3.mp4,a\n")
    options = {"csv": "{split}.csv"} if lists else {}
    assert [len(load(tmp_path, split, **options)) for split in ("train", "val", "all")] == [2, 1, 3]
    assert load(tmp_path, "val", **options).class_names == ("a", "b")
    with pytest.raises(UserError, match=r"unknown split .* 'test'"):
        load(tmp_path, "test", **options)
    with pytest.raises(UserError, match="defines its own splits"):
        load(tmp_path, "val", test_fraction=0.5, **options)


def test_path_is_relative_to_vidjax_data_or_the_working_directory(folder, monkeypatch):
    monkeypatch.setenv("VIDJAX_DATA", str(folder.parent))
    assert len(load(folder.name)) == 60
    monkeypatch.delenv("VIDJAX_DATA")
    monkeypatch.chdir(folder.parent)
    assert len(load(folder.name)) == 60


def test_fingerprint_depends_on_labels_and_order(folder):
    first = load(folder).fingerprint
    assert load(folder).fingerprint == first
    (folder / "wave/3.mp4").rename(folder / "bend/99.mp4")
    assert load(folder).fingerprint != first


def test_invalid_folders_are_one_line_errors(tmp_path, folder):
    empty = folder / "wave" / "empty"
    empty.mkdir()
    for root, options, message in [
        (tmp_path / "nowhere", {}, "nowhere does not exist"),
        (empty, {}, "no class folders"),
        (folder, {"split": "train"}, "no split 'train': set test_groups or test_fraction"),
        (folder, {"test_groups": ["p1"]}, "needs a CSV with a column 'group'"),
        (folder, {"val_groups": ["p1"]}, "needs a CSV with a column 'group'"),
        (folder, {"test_fraction": 20}, "between 0 and 1"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            load(root, **({"split": "all"} | options))
        assert "\n" not in str(error.value)
    empty.rename(folder / "empty")
    with pytest.raises(UserError, match=r"class folder .*empty has no videos"):
        load(folder)


def test_class_without_training_videos_is_reported(tmp_path):
    touch(tmp_path, "a/1.mp4", "b/2.mp4")
    (tmp_path / "l.csv").write_text("path,label,group\na/1.mp4,a,g\nb/2.mp4,b,h\n")
    with pytest.raises(UserError, match="no video of class 'b'"):
        load(tmp_path, "train", csv="l.csv", test_groups=["h"])


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is empty: it must have a column 'path'"),
        ("path,group\n", "no column 'label' .*found: path, group"),
        ("path,label\n", "lists no videos"),
        ("path,label\na/1.mp4,\n", "line 2: path or label is empty"),
        ("path,label\na/1.mp4,a\na/2.mp4,a\n", "line 3: no such file: .*a/2.mp4"),
        ("path,label\na/1.mp4,a\na/1.mp4,a\n", "a/1.mp4 is listed more than once"),
        ("path,label,start\na/1.mp4,a,soon\n", "line 2: start 'soon' is not a number of at least 0"),
    ],
)
def test_invalid_lists_are_one_line_errors(tmp_path, text, message):
    touch(tmp_path, "a/1.mp4")
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        load(tmp_path, csv="l.csv")


def test_missing_list_or_group_is_reported(listed):
    with pytest.raises(UserError, match=r"none.csv does not exist"):
        load(listed, csv="none.csv")
    with pytest.raises(UserError, match=r"unknown group .* 'p11': did you mean p1"):
        load(listed, "test", csv="clips.csv", test_groups=["p11"])


def test_unknown_names_and_options_are_reported():
    assert {"features", "synthetic_motion", "video_folder"} <= {*dataset_names()}
    with pytest.raises(UserError, match="unknown dataset 'video_foldr': did you mean video_folder"):
        load_source("video_foldr", "train")
    with pytest.raises(UserError, match="unknown option of dataset video_folder 'pth': did you mean path"):
        load_source("video_folder", "train", pth="x")
    with pytest.raises(UserError, match="needs the option 'path'"):
        load_source("video_folder", "train")


def test_labels_are_stripped_and_composed(tmp_path):
    touch(tmp_path, "1.mp4", "2.mp4", "3.mp4", "4.mp4")
    rows = "path, label ,group\n1.mp4,left,a\n2.mp4,left ,a \n 3.mp4,caf\u00e9,b\n4.mp4,cafe\u0301,b\n"
    (tmp_path / "l.csv").write_text(rows, encoding="utf-8")
    source = load(tmp_path, csv="l.csv")
    assert source.class_names == ("caf\u00e9", "left") and {r.group for r in source} == {"a", "b"}
    touch(tmp_path, "folders/caf\u00e9/1.mp4", "folders/cafe\u0301/2.mp4")
    assert load(tmp_path / "folders").class_names == ("caf\u00e9",)


def test_paths_are_found_in_any_unicode_form(tmp_path):
    touch(tmp_path, "cafe\u0301.mp4")
    (tmp_path / "l.csv").write_text("path,label\ncaf\u00e9.mp4,a\n", encoding="utf-8")
    assert load(tmp_path, csv="l.csv")[0].id == "cafe\u0301.mp4"


@pytest.mark.parametrize(
    "data, message",
    [
        (b"path,label\na.mp4,running, fast\n", "line 2: 3 cells under 2 columns; put quotes"),
        (b'path,label\na.mp4,"x\na.mp4,y\n', "line 2: a quote is not closed"),
        (b'path,label\na.mp4,"' + b"x\n" * 100_000, "line 2: a quote is not closed"),
        (b'path,label\na.mp4,"x" y\n', "line 2: ',' expected after '\"'"),
        ("path,label\na.mp4,x\n".encode("utf-16-le"), r"is not text \(byte 0x00 in line 1\)"),
        (b"path,label,label\na.mp4,x,y\n", "more than one column 'label'"),
        (b"path,label,start,end\na.mp4,x,3,2\n", "line 2: end 2 is not after start 3"),
        (b"path,label,start\na.mp4,x,nan\n", "line 2: start 'nan' is not a number of at least 0"),
    ],
)
def test_unreadable_lists_are_one_line_errors(tmp_path, data, message):
    touch(tmp_path, "a.mp4")
    (tmp_path / "l.csv").write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path, csv="l.csv")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        "path,label\na.mp4,caf\u00e9\n".encode("cp1252"),  # of old spreadsheets
        "path\tlabel\r\na.mp4\tcaf\u00e9\r\n".encode("utf-16"),
        "label;path\ncaf\u00e9;./a.mp4\n".encode(),
    ],
)
def test_lists_as_spreadsheets_write_them(tmp_path, data):
    touch(tmp_path, "a.mp4")
    (tmp_path / "l.csv").write_bytes(data)
    source = load(tmp_path, csv="l.csv")
    assert source.class_names == ("caf\u00e9",) and source[0].id == "a.mp4"


def test_unusable_lines_are_skipped_up_to_a_limit(tmp_path):
    """A file of the same name in another folder does not replace a missing one."""
    touch(tmp_path, "train/a/1.mp4", "train/b/2.mp4")
    lines = "train/a/1.mp4,a\ntrain/b/2.mp4,b\nval/b/2.mp4,a\ntrain/b/2,b\n"
    (tmp_path / "l.csv").write_text(f"path,label\n{lines}")
    source = load(tmp_path, csv="l.csv", bad_limit=0.5)
    assert [r.id for r in source] == ["train/a/1.mp4", "train/b/2.mp4"]
    lines = [problem.partition("line ")[2] for problem in source.problems]
    assert lines == [
        f"{n}: no such file: {tmp_path}/{name}" for n, name in ((4, "val/b/2.mp4"), (5, "train/b/2"))
    ]
    with pytest.raises(UserError, match=r"2 of 4 annotations .*bad_limit=0 allows: .*line 4: .*; .*line 5:"):
        load(tmp_path, csv="l.csv")


def test_files_elsewhere_and_of_other_types_are_found(tmp_path):
    touch(tmp_path, "root/a.mxf", "b.mp4", "root/x/b.mp4")
    (tmp_path / "root/l.csv").write_text(f"path,label\na.mxf,x\n../b.mp4,x\n{tmp_path}/root/x/b.mp4,x\n")
    records = load(tmp_path / "root", csv="l.csv").records
    assert [r.video for r in records] == [
        str(tmp_path / name) for name in ("root/a.mxf", "b.mp4", "root/x/b.mp4")
    ]
    assert [r.id for r in records] == ["a.mxf", str(tmp_path / "b.mp4"), "x/b.mp4"]


def test_empty_cells_and_rows_are_ignored(tmp_path):
    touch(tmp_path, "a.mp4")
    (tmp_path / "l.csv").write_text('path,label\n\na.mp4,"running, fast",,\n,\n')
    assert load(tmp_path, csv="l.csv").class_names == ("running, fast",)


def test_file_names_that_are_not_utf8(tmp_path):
    touch(tmp_path, os.fsdecode(b"run/caf\xe9.mp4"), "run/b.mp4")
    source = load(tmp_path)
    assert [r.id for r in source] == ["run/b.mp4", r"run/caf\xe9.mp4"]
    assert os.path.isfile(source[1].video) and source.fingerprint


def test_hidden_folders_and_links_and_folders_named_like_videos(tmp_path):
    touch(tmp_path, "a/1.mp4", "a/.ipynb_checkpoints/1.mp4", "a/.cache/x/2.mp4", "a/dir.mp4/3.mp4")
    touch(tmp_path, "a/__MACOSX/4.mp4", ".ipynb_checkpoints/5.mp4", "elsewhere/6.mp4")
    (tmp_path / "b").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path.parent / f"{tmp_path.name}_elsewhere")
    (tmp_path / "b/link").symlink_to(tmp_path.parent / f"{tmp_path.name}_elsewhere")
    (tmp_path / "b/loop").symlink_to(tmp_path / "b")
    assert [r.id for r in load(tmp_path)] == ["a/1.mp4", "a/dir.mp4/3.mp4", "b/link/6.mp4"]


def test_alternative_split_names(tmp_path):
    touch(tmp_path, "Train/a/1.mp4", "Train/b/2.mp4", "validation/a/3.mp4", "TEST/b/4.mp4", "notes/x.txt")
    got = {split: [r.id for r in load(tmp_path, split)] for split in ("train", "val", "validation", "test")}
    assert got["val"] == got["validation"] == ["validation/a/3.mp4"] and got["test"] == ["TEST/b/4.mp4"]
    touch(tmp_path, "training/a/1.mp4")
    with pytest.raises(UserError, match="two folders for the split 'train', Train and training: merge them"):
        load(tmp_path, "train")


def test_class_may_have_the_name_of_a_split(tmp_path):
    touch(tmp_path, "Training/1.mp4", "Running/2.mp4")
    assert load(tmp_path).class_names == ("Running", "Training")


def test_ignored_folders_beside_splits_are_reported(tmp_path, caplog):
    touch(tmp_path, "train/a/1.mp4", "test/a/2.mp4", "more/a/3.mp4")
    load(tmp_path, "train")
    assert "more/a/3.mp4 is ignored, because" in caplog.text


def test_lists_with_alternative_split_names(tmp_path):
    touch(tmp_path, "1.mp4", "2.mp4")
    (tmp_path / "my_Train.csv").write_text("path,label\n1.mp4,a\n")
    (tmp_path / "my_validation.csv").write_text("path,label\n2.mp4,a\n")
    sizes = [len(load(tmp_path, split, csv="my_{split}.csv")) for split in ("train", "val", "all")]
    assert sizes == [1, 1, 2]


def test_videos_in_two_splits_are_counted(tmp_path, caplog):
    for i, path in enumerate(("train/a/1.mp4", "train/a/2.mp4", "test/a/3.mp4")):
        touch(tmp_path, path)
        (tmp_path / path).write_bytes(b"video %d" % i)
    load(tmp_path, "train")
    assert not caplog.records
    (tmp_path / "test/a/4.mp4").symlink_to(tmp_path / "train/a/1.mp4")
    (tmp_path / "test/a/5.mp4").write_bytes(b"video 1")
    load(tmp_path, "train"), load(tmp_path, "test")
    example = "2 of the videos of 'test' are also in 'train', for example train/a/1.mp4 and test/a/4.mp4"
    assert len(caplog.records) == 1 and example in caplog.text
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text("path,label\ntrain/a/1.mp4,a\n")
    load(tmp_path, "test", csv="{split}.csv")
    assert "1 of the videos of 'test' are also in 'train', for example train/a/1.mp4" in caplog.text


@pytest.mark.parametrize(
    "options, message",
    [
        ({"seed": "x"}, "option 'seed' of dataset video_folder must be int, not 'x'"),
        ({"seed": True}, "must be int, not True"),
        ({"test_fraction": "0.2"}, "'test_fraction' .* must be float or None, not '0.2'"),
        ({"test_groups": "p1"}, r"must be a list of str, not 'p1'"),
        ({"test_groups": [None]}, r"must be a list of str, not \[None\]"),
        ({"csv": ["a.csv"]}, "must be str or None"),
        ({"directional": "yes"}, "must be bool, not 'yes'"),
    ],
)
def test_options_of_the_wrong_type_are_one_line_errors(folder, options, message):
    with pytest.raises(UserError, match=message):
        load(folder, **options)


def test_numbers_are_accepted_as_names(tmp_path, monkeypatch):
    touch(tmp_path, "2024/1.mp4", "2024/2.mp4")
    (tmp_path / "2024/7.csv").write_text("path,label,group\n1.mp4,a,7\n2.mp4,a,8\n")
    monkeypatch.chdir(tmp_path)
    assert len(load_source("video_folder", "test", path=2024, csv="7.csv", test_groups=[7])) == 1
