"""Reads a curated dataset with the Python package `webdataset` and compares every member with its source.

Usage: read_back.py SOURCE_FOLDER OUTPUT_FOLDER
Prints a JSON object of counts; exits with an error at the first difference.
"""

import json
import sys
import tarfile
from pathlib import Path

import pyarrow.parquet as parquet
import webdataset


def source_members(shard: Path) -> dict[str, dict[str, bytes]]:
    """Returns the members of a shard by key and extension, read by Python's own tarfile."""
    members: dict[str, dict[str, bytes]] = {}
    with tarfile.open(shard) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            members.setdefault(key, {})[extension] = tar.extractfile(member).read()
    return members


def main(source: Path, output: Path) -> None:
    index = json.loads((output / "index.json").read_text())
    assert index["__kind__"] == "wids-shard-index-v1", index
    names = [shard["url"] for shard in index["shardlist"]]
    assert names == sorted(path.name for path in output.glob("*.tar")), names
    counts = {"shards": len(names), "samples": 0, "members": 0, "bytes": 0, "full": 0}
    largest = max(shard["nsamples"] for shard in index["shardlist"])
    sources: dict[str, dict[str, dict[str, bytes]]] = {}
    for shard in index["shardlist"]:
        path = output / shard["url"]
        assert path.stat().st_size == shard["filesize"], shard
        rows = parquet.read_table(path.with_suffix(".parquet")).to_pylist()
        samples = list(webdataset.WebDataset(str(path), shardshuffle=False))
        assert len(samples) == len(rows) == shard["nsamples"], shard
        counts["full"] += len(samples) == largest
        for sample, row in zip(samples, rows):
            assert sample["__key__"] == row["key"], (sample["__key__"], row["key"])
            name = row["source_shard"]
            if name not in sources:
                sources[name] = source_members(source / name)
            members = {k: v for k, v in sample.items() if not k.startswith("__")}
            expected = sources[name][row["source_key"]]
            assert members == expected, f"{row['image_id']}: {sorted(members)} {sorted(expected)}"
            assert row["caption"] == expected["txt"].decode()
            assert row["metadata"] == expected["json"].decode()
            assert abs(sum(x * x for x in row["embedding"]) - 1) < 1e-4
            counts["samples"] += 1
            counts["members"] += len(members)
            counts["bytes"] += sum(map(len, members.values()))
    print(json.dumps(counts))


main(Path(sys.argv[1]), Path(sys.argv[2]))
