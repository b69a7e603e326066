"""Writes a prepared folder, see `vidjax.data.prepare.read`, shard by shard.

The videos of a split are divided into shards before the first is encoded, so what a shard holds does not
depend on who writes it: worker processes of this machine or of an Apache Beam cluster. Until the split is
complete, `progress/SPLIT` in the folder holds

  plan.json        settings and number of shards
  00003.records    the records of a shard, pickled
  00003.json       what was written of it; the shard is then complete

A shard and its JSON file appear atomically, so a killed preparation loses at most the shards in work.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pickle
import platform
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

import vidjax
from vidjax import files
from vidjax.data import targets
from vidjax.data.datasets import Source, fingerprint
from vidjax.data.decode import DecodeError
from vidjax.data.prepare import read
from vidjax.data.prepare.encode import Settings, encode
from vidjax.data.record import Record
from vidjax.data.workers import Workers
from vidjax.errors import UserError

_VIDEOS = 128  # in a shard, about 50 MB of Kinetics at 320 pixels
_SHARDS = 64  # at least, of a split that has as many videos, to occupy the workers
_PROGRESS = "progress"
_ERROR = re.compile(r"[\w.]+(Error|Exception): \S")  # the last line of a Python traceback
_BEAM = (
    'the option --runner needs Apache Beam: install "apache-beam>=2.77" (vidjax[beam]) in an environment '
    "without the exact pins of requirements.txt, since Beam requires protobuf<7, pyarrow<26, pillow<13 and "
    "python-dateutil<3"
)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What is prepared: a dataset, its options, and how its videos are stored."""

    name: str
    options: Mapping[str, Any]
    settings: Settings

    def to_json(self) -> dict[str, Any]:
        about = {"name": self.name, "options": self.options, "settings": dataclasses.asdict(self.settings)}
        return json.loads(json.dumps(about, default=os.fspath))


@dataclasses.dataclass(frozen=True)
class Summary:
    """What was written of a split."""

    records: int
    videos: int
    bad: int
    bytes: int
    fingerprint: str


def prepare_split(
    out: epath.PathLike,
    dataset: Dataset,
    split: str,
    source: Source,
    run: "Runner",
    bad_limit: float = 0.05,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Summary:
    """Writes one split, or what is missing of it.

    Args:
      out: the prepared folder, local or on an object store.
      dataset: what is prepared; must be the same for all splits of a folder.
      split: name of the split.
      source: its records.
      run: writes the shards, see `local` and `beam`.
      bad_limit: fraction of the records whose videos may be unreadable.
      progress: called with the number of videos that are done, and of all.

    Raises:
      UserError: the folder cannot be written or holds other data, the targets cannot be stored in a file, or
        too many videos are unreadable.
    """
    out = files.absolute(out)
    try:
        meta = _meta(out, dataset, source)
        if split in meta["splits"]:
            return _summary(meta["splits"][split])
        place = out / _PROGRESS / split
        sizes = _plan(place, dataset, source)
        done = {
            shard: _report(place, shard) for shard in range(len(sizes)) if _report_file(place, shard).exists()
        }
        total = sum(sizes)
        bad = _Bad(out, split, len(source), bad_limit)
        bad.add(done.values())
        progress(sum(sizes[shard] for shard in done), total)
        pending = [shard for shard in range(len(sizes)) if shard not in done]
        for shard in run(os.fspath(out), split, pending):
            done[shard] = _report(place, shard)
            bad.add([done[shard]])
            progress(sum(sizes[shard] for shard in done), total)
        return _finish(out, dataset, split, source, [done[shard] for shard in range(len(sizes))], meta)
    except OSError as e:
        raise UserError(f"cannot write to {out} ({e.strerror or e})") from e


Runner = Callable[[str, str, Sequence[int]], Iterator[int]]


def local(workers: int) -> Runner:
    """Returns a runner that writes shards in this process, or in `workers` others."""

    def run(out: str, split: str, shards: Sequence[int]) -> Iterator[int]:
        if workers < 2 or len(shards) < 2:
            for shard in shards:
                yield write_shard(out, split, shard)
            return
        pool = Workers(lambda i: write_shard(out, split, shards[i]), 0, len(shards), workers, ahead=2)
        try:
            yield from pool
        finally:
            pool.close()

    return run


def beam(runner: str, options: Sequence[str]) -> Runner:
    """Returns a runner that writes shards by Apache Beam.

    Args:
      runner: name of the Beam runner, such as "DirectRunner" or "DataflowRunner".
      options: command-line arguments of Beam, such as "--region=us-central1".

    Raises:
      UserError: Beam is not installed.
    """
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise UserError(_BEAM) from None

    def run(out: str, split: str, shards: Sequence[int]) -> Iterator[int]:
        if not shards:
            return
        try:
            with apache_beam.Pipeline(options=PipelineOptions([f"--runner={runner}", *options])) as pipeline:
                # Create distributes the shards over the workers.
                numbers = pipeline | "Shards" >> apache_beam.Create(list(shards))
                _ = numbers | "Write" >> apache_beam.Map(_write_shard_of, out, split)
        except Exception as e:  # runners have exceptions of their own
            raise UserError(f"the Beam runner {runner} failed: {_reason(e)}") from e
        place = epath.Path(out) / _PROGRESS / split
        missing = sum(not _report_file(place, shard).exists() for shard in shards)
        if missing:
            raise UserError(
                f"the Beam runner {runner} ended without {missing} of {len(shards)} shards in {out}: use "
                "a folder that all workers share, such as one on an object store"
            )
        yield from shards

    return run


def _reason(error: Exception) -> str:
    """Returns the line of a message that names the error, which traces of Python or Java may surround."""
    text = str(error) or type(error).__name__
    named = [line for line in text.splitlines() if _ERROR.match(line)]
    return named[-1] if named else " ".join(text.split())


def _write_shard_of(shard: int, out: str, split: str) -> int:
    return write_shard(out, split, shard)


def write_shard(out: str, split: str, shard: int) -> int:
    """Writes one shard of a planned split, and returns its number."""
    folder = epath.Path(out)
    place = folder / _PROGRESS / split
    plan = json.loads((place / "plan.json").read_text())
    settings, shards = Settings(**plan["dataset"]["settings"]), len(plan["sizes"])
    videos: list[list[tuple[int, Record]]] = pickle.loads(_records_file(place, shard).read_bytes())
    rows, bad, size, number, images = [], [], 0, 0, 0
    with contextlib.ExitStack() as stack:
        name = read.shard_name(plan["dataset"]["name"], split, shard, shards)
        examples = stack.enter_context(_Shard(folder / name))
        if settings.storage == "jpeg":
            frames = stack.enter_context(_Shard(folder / read.shard_name("frames", split, shard, shards)))
        for numbered in videos:
            position = {record.id: n for n, record in numbered}
            try:
                encoded = encode([record for _, record in numbered], settings)
            except DecodeError as error:
                bad += [_bad(record, str(error)) for _, record in numbered]
                continue
            bad += [_bad(record, error) for record, error in encoded.bad]
            if not encoded.records:
                continue
            about = [read.row_of(record) for record in encoded.records]
            example = {"video": encoded.video, "index": encoded.index, "first": images}
            size += examples.write(_serialize(example | {"records": json.dumps(about)}))
            for image in encoded.images:
                size += frames.write(image)
            rows += [{"n": position[row["id"]], "video": number, **row} for row in about]
            number, images = number + 1, images + len(encoded.images)
    report = {"videos": number, "bytes": size, "records": rows, "bad": bad}
    files.write(_report_file(place, shard), json.dumps(report))
    return shard


def _serialize(example: Mapping[str, Any]) -> bytes:
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    features = read.features()
    serializer = ExampleSerializer(features.get_serialized_info())
    # By default, protobuf writes the entries of a map in an arbitrary order.
    return serializer.get_tf_example(features.encode_example(example)).SerializeToString(deterministic=True)


class _Shard:
    """Context manager that writes an array_record file, which appears once it is complete."""

    def __init__(self, path: epath.Path):
        self._path, self._remote = path, files.is_remote(path)
        folder = tempfile.mkdtemp() if self._remote else path.parent
        self._part = Path(folder, f".{path.name}.{platform.node()}.{os.getpid()}.part")

    def __enter__(self) -> "_Shard":
        self._writer = ArrayRecordWriter(os.fspath(self._part), "group_size:1")
        return self

    def write(self, data: bytes) -> int:
        """Adds a record, and returns its size."""
        self._writer.write(data)
        return len(data)

    def __exit__(self, kind: type | None, *_: Any) -> None:
        try:
            self._writer.close()
            if kind is None and self._remote:
                epath.Path(self._part).copy(self._path, overwrite=True)
            elif kind is None:
                os.replace(self._part, self._path)
        finally:
            self._part.unlink(missing_ok=True)
            if self._remote:
                self._part.parent.rmdir()


class _Bad:
    """Lists unreadable videos in bad_videos.jsonl, and raises `UserError` if there are too many."""

    def __init__(self, out: epath.Path, split: str, total: int, limit: float):
        self._file, self._total, self._limit, self._split = out / "bad_videos.jsonl", total, limit, split
        self._rows = [row for row in files.read_rows(self._file) if row.get("split") != split]
        self._others = len(self._rows)

    def add(self, reports: Sequence[Mapping[str, Any]]) -> None:
        found = [{"split": self._split, **row} for report in reports for row in report["bad"]]
        if not found:
            return
        self._rows += found
        files.write(self._file, "".join(json.dumps(row) + "\n" for row in self._rows))
        count = len(self._rows) - self._others
        if count > min(self._limit * self._total, self._total - 1):
            raise UserError(
                f"{count} of the {self._total} records of split '{self._split}' cannot be read, more than "
                f"--bad-limit {self._limit:g} allows: see {self._file}"
            )


def _bad(record: Record, error: str) -> dict[str, str | None]:
    return {"id": record.id, "path": record.video if isinstance(record.video, str) else None, "error": error}


def _meta(out: epath.Path, dataset: Dataset, source: Source) -> dict[str, Any]:
    """Returns the metadata of a folder so far. Raises `UserError` if it holds other data."""
    file = out / read.META
    new = {
        "format": read.FORMAT,
        **dataset.to_json(),
        "target": source.target.__name__ if source.target else None,
        "class_names": list(source.class_names),
        "directional": source.directional,
        "mirror": source.mirror and list(source.mirror),
        "splits": {},
    }
    if source.target and source.target.__name__ not in targets.TARGETS:
        raise UserError(f"targets of type {source.target.__name__} cannot be stored in a file: set --target")
    if not file.exists():
        return new
    old = read.read_meta(out, file.read_bytes())
    _same(out, old, {key: new[key] for key in new if key not in ("format", "splits")})
    return old


def _same(out: epath.Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raises `UserError` if a folder was begun with other settings."""
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            _same(out, {k: before.get(k) for k in {**before, **value}}, {**dict.fromkeys(before), **value})
        elif before != value:
            what = f"{key}={before}, not {value}" if key != "class_names" else "other class names"
            raise UserError(f"{out} holds data prepared with {what}: use another --out, or delete it")


def _plan(place: epath.Path, dataset: Dataset, source: Source) -> list[int]:
    """Divides the videos of a split into shards unless that is done, and returns the number of each."""
    file = place / "plan.json"
    about = {"dataset": dataset.to_json(), "fingerprint": source.fingerprint}
    if file.exists():
        plan = json.loads(file.read_text())
        _same(place.parent.parent, plan, about)
        return plan["sizes"]
    videos: dict[Any, list[tuple[int, Record]]] = {}
    for n in range(len(source)):
        record = source[n]
        videos.setdefault(record.video, []).append((n, record))
    if not videos:
        raise UserError(f"the dataset {dataset.name} has no records: check its options")
    per_shard = min(_VIDEOS, -(-len(videos) // _SHARDS))
    if not files.is_remote(place):  # there, it would only create a misspelled bucket
        place.mkdir(parents=True, exist_ok=True)
    sizes = []
    grouped = list(videos.values())
    for shard, first in enumerate(range(0, len(grouped), per_shard)):
        part = grouped[first : first + per_shard]
        files.write(_records_file(place, shard), pickle.dumps(part))
        sizes.append(len(part))
    files.write(file, json.dumps(about | {"sizes": sizes}))
    return sizes


def _records_file(place: epath.Path, shard: int) -> epath.Path:
    return place / f"{shard:05}.records"


def _report_file(place: epath.Path, shard: int) -> epath.Path:
    return place / f"{shard:05}.json"


def _report(place: epath.Path, shard: int) -> dict[str, Any]:
    return json.loads(_report_file(place, shard).read_text())


def _finish(
    out: epath.Path,
    dataset: Dataset,
    split: str,
    source: Source,
    reports: Sequence[Mapping[str, Any]],
    meta: dict[str, Any],
) -> Summary:
    """Writes the records and the metadata of a split whose shards are complete."""
    rows, first = [], 0
    for report in reports:
        rows += [row | {"video": first + row["video"]} for row in report["records"]]
        first += report["videos"]
    rows.sort(key=lambda row: row["n"])
    with _Shard(out / f"records-{split}.array_record") as file:
        for row in rows:
            file.write(json.dumps(row).encode())
    stored = ((row["id"], row["target"] and targets.from_json(row["target"])) for row in rows)
    whole = len(rows) == len(source)
    about = {
        "records": len(rows),
        "videos": first,
        "bad": sum(len(report["bad"]) for report in reports),
        "bytes": sum(report["bytes"] for report in reports),
        "shards": [report["videos"] for report in reports],
        "fingerprint": source.fingerprint if whole else fingerprint(stored),
        "source_fingerprint": source.fingerprint,
    }
    meta["splits"][split] = about
    meta["versions"] = {
        "vidjax": vidjax.__version__,
        "av": av.__version__,
        "ffmpeg": av.ffmpeg_version_info,
        "tensorflow-datasets": importlib.metadata.version("tensorflow-datasets"),
    }
    _write_tfds(out, meta)
    files.write(out / read.META, json.dumps(meta, indent=1) + "\n")
    (out / _PROGRESS / split).rmtree()
    if not files.is_remote(out):
        with contextlib.suppress(OSError):  # another split is in work
            (out / _PROGRESS).rmdir()
    return _summary(about)


def _summary(about: Mapping[str, Any]) -> Summary:
    return Summary(*(about[field.name] for field in dataclasses.fields(Summary)))


def _write_tfds(out: epath.Path, meta: Mapping[str, Any]) -> None:
    """Writes the metadata with which tensorflow-datasets reads the folder."""
    import tensorflow_datasets as tfds

    from vidjax.data.generated import Info

    identity = tfds.core.dataset_info.DatasetIdentity(
        name=meta["name"], version=tfds.core.Version("1.0.0"), data_dir=os.fspath(out), module_name=""
    )
    info = Info(builder=identity, features=read.features())
    info.set_file_format("array_record")
    template = tfds.core.ShardedFileTemplate(
        data_dir=out, dataset_name=meta["name"], filetype_suffix="array_record"
    )
    splits = [
        tfds.core.SplitInfo(
            name=name, shard_lengths=about["shards"], num_bytes=about["bytes"], filename_template=template
        )
        for name, about in meta["splits"].items()
    ]
    info.set_splits(tfds.core.splits.SplitDict(splits))
    info.write_to_directory(out)
