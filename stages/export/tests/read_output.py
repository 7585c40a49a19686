"""Reads an output of sluice-export with Python's own readers and compares every member.

Usage: read_output.py OUT EXPECTED.json, where EXPECTED lists, for each shard, its samples: key, and SHA-256 of each
member by extension.
"""

import hashlib
import json
import os
import pathlib
import sys
import tarfile
import types


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def lower(members):
    return {extension.lower(): digest for extension, digest in members.items()}


def check_tarfile(out, expected):
    for number, samples in enumerate(expected):
        wanted = [
            (f"{sample['key']}.{extension}", digest)
            for sample in samples
            for extension, digest in sample["members"].items()
        ]
        with tarfile.open(out / f"shard-{number:05}.tar") as tar:
            members = tar.getmembers()
            found = [(member.name, sha256(tar.extractfile(member).read())) for member in members]
        assert sorted(found) == sorted(wanted), (number, found, wanted)
        assert all(member.isreg() and member.mtime == 0 and member.uid == 0 for member in members)
    print("tarfile: ok")


def check_webdataset(out, expected):
    import webdataset

    urls = f"{out}/shard-{{00000..{len(expected) - 1:05}}}.tar"
    found = [
        (sample["__key__"], {name: sha256(data) for name, data in sample.items() if not name.startswith("__")})
        for sample in webdataset.WebDataset(urls, shardshuffle=False)
    ]
    wanted = [(sample["key"], lower(sample["members"])) for samples in expected for sample in samples]
    assert found == wanted, (found, wanted)
    print("webdataset: ok")


def check_index(out, expected):
    index = json.loads((out / "index.json").read_text())
    assert index["__kind__"] == "wids-shard-index-v1" and index["wids_version"] == 1
    for number, (shard, samples) in enumerate(zip(index["shardlist"], expected, strict=True)):
        path = out / shard["url"]
        assert shard["url"] == f"shard-{number:05}.tar"
        assert shard["nsamples"] == len(samples)
        assert shard["filesize"] == path.stat().st_size
    print("index.json: ok")


def check_wids(out, expected):
    try:
        import torch.distributed  # noqa: F401
    except ImportError:
        # wids imports it for the names of base classes; what is done here needs nothing of it.
        base = type("Base", (), {"__class_getitem__": classmethod(lambda cls, item: cls)})
        for name in ["torch", "torch.distributed", "torch.utils", "torch.utils.data"]:
            sys.modules[name] = types.ModuleType(name)
        sys.modules["torch"].distributed = sys.modules["torch.distributed"]
        sys.modules["torch.utils.data"].Dataset = sys.modules["torch.utils.data"].Sampler = base
    try:
        import wids
    except ImportError as missing:
        print(f"wids: SKIPPED ({missing}; webdataset 0.2 has it)")
        return
    pathlib.Path(os.environ["WIDS_CACHE"]).mkdir(parents=True, exist_ok=True)
    dataset = wids.ShardListDataset(str(out / "index.json"), transformations=[], keep=True)
    wanted = [sample for samples in expected for sample in samples]
    assert len(dataset) == len(wanted)
    for number, sample in enumerate(wanted):
        found = dataset[number]
        members = {name[1:]: sha256(data.read()) for name, data in found.items() if name.startswith(".")}
        assert found["__key__"] == sample["key"], (found, sample)
        assert members == sample["members"], (members, sample)
    print("wids: ok")


def main():
    out, expected = pathlib.Path(sys.argv[1]), json.loads(pathlib.Path(sys.argv[2]).read_text())
    check_tarfile(out, expected)
    check_webdataset(out, expected)
    check_index(out, expected)
    check_wids(out, expected)


main()
