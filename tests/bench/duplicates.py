#!/usr/bin/env python3
"""Duplicates as the programs find them, beside brute force and faiss: recall, reference sets, a million vectors, skew, tasks.

    make build && cargo build --release -p sluice-dedup --example made
    python3 tests/bench/duplicates.py [--what semantic,perceptual,tasks,skew,references,photos,benchmark,chain] [--dups FOLDER …]

Every row runs the programs on a run on disk, whose steps before `dedup` `made` writes from made-up hashes and vectors, or that
`read` and `embed` made from photographs. Brute force is faiss's or NumPy's, by the rule of `best`, on the same data in the same run.

- `perceptual`: 100,000 hashes of 64 and of 256 bits: a clump of 20,000, near-copies, chains, random ones. By one process and in parts.
- `semantic`: 100,000 vectors of the same kinds, with 1, 2, 4 and 8 probes.
- `photos`: the real vectors of an encoder, of the photographs of --dups and --photos, in 16 clusters.
- `benchmark`: the originals of --dups as a reference set, the other photographs against it.
- `references`: an index of 10 million hashes against a million images, and one of 100,000 vectors against 100,000.
- `chain`: fit, assign and match of a million vectors of 768 values, beside faiss's IVF index with the same clusters and threshold.
- `skew`: 500,000 near-copies in one cluster, beside as many in even ones.
- `tasks`: 1, 4 and 16 tasks, and tasks that are killed and started again, write the same bytes.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import paired

paired.inside("duplicates")
# Threads that wait for each other burn CPU seconds on a machine that has other work.
os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}

import faiss  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow.parquet as parquet  # noqa: E402

WHAT = ["semantic", "perceptual", "tasks", "skew", "references", "photos", "benchmark", "chain"]
EPS = 0.01
BITS = {"phash": 4, "pdq": 31}
PARTITIONS = 16
ROWS = 1_000_000
TRANSFORMATIONS = "hflip,vflip,rot90,rot180,transpose"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", default=",".join(WHAT[:5]), help=f"of {','.join(WHAT)}")
    parser.add_argument("--rows", type=int, help="images, in place of the documented number")
    parser.add_argument("--tasks", default="1,4", help="of references: numbers of tasks")
    parser.add_argument("--probes", default="1", help="of chain; each takes as much room on the disk as the vectors")
    parser.add_argument("--dups", type=Path, help="shards and truth.csv, as of dups.py")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="more shards")
    parser.add_argument("--models", type=Path, default=paired.CACHE / "models")
    parser.add_argument("--embedder", default="efficientnet-lite0")
    args = parser.parse_args()
    for what in args.what.split(","):
        with paired.workspace() as folder:
            print(f"\n## {what}\n", flush=True)
            globals()[what](folder, args)


# ------------------------------------------------------------------------------------------- runs


def made(run, hashes, pdq=None, vectors=None, partitions=PARTITIONS):
    """A run of these images. The order of the rows is the rank."""
    files = run.parent
    hashes.tofile(files / "hashes")
    words = [f"hashes={files / 'hashes'}"]
    if pdq is not None:
        pdq.tofile(files / "pdq")
        words.append(f"pdq={files / 'pdq'}")
    if vectors is not None:
        path, dimension = vectors
        words.append(f"vectors={path},{dimension}")
    return paired.once(paired.Side("made", [paired.PROGRAMS / "examples/made", run, partitions, *words]))


def sluice(program, run, *words, env={}):
    command = [paired.PROGRAMS / f"sluice-{program}", *words, "--run", run]
    return paired.once(paired.Side(" ".join(map(str, words[:1])), command, env=env))


def dedup(run, subcommand, method, step, *words):
    return sluice("dedup", run, subcommand, "--methods", method, "--step", step, *words)


def duplicates(run, step):
    """The rows of all duplicates of a step: lists by column."""
    columns = ["image_id", "duplicate_of", "reference", "similarity"]
    found = {column: [] for column in columns}
    for path in sorted((run / step / "duplicates").glob("*.parquet")):
        table = parquet.read_table(path, columns=columns).to_pydict()
        for column in columns:
            found[column] += table[column]
    return found


def places(ids, rows, partitions=PARTITIONS):
    """The rows of made-up images, by their ids."""
    bounds = [rows * part // partitions for part in range(partitions)]
    return np.array([bounds[int(name[:5])] + int(name[6:]) for name in ids], np.int64)


def removed(run, step, rows):
    mask = np.zeros(rows, bool)
    mask[places(duplicates(run, step)["image_id"], rows)] = True
    return mask


def table(heads):
    print("|", " | ".join(heads), "|")
    print("|---" * len(heads) + "|", flush=True)


def row(*cells):
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def shares(found, truth):
    """Recall and precision of removed rows."""
    both = int((found & truth).sum())
    return f"{both / max(1, truth.sum()):.5f}", f"{both / max(1, found.sum()):.5f}"


def total(runs):
    """CPU seconds together, and the peak of the largest, in MB."""
    return f"{sum(run.cpu for run in runs):.1f}", f"{max(run.peak_mb for run in runs):.0f}"


# ------------------------------------------------------------------------------------------- made-up data


def kinds(random, rows):
    """What each row is: 0, 1 in the clump, 2 a near-copy, 3 in a chain, others its own."""
    return random.integers(0, 10, rows).clip(0, 9) * (np.arange(rows) > 0)


def made_hashes(rows, bits, seed=0):
    """Hashes as bytes, in an order that says nothing about their kind."""
    random = np.random.default_rng(seed)
    distance = BITS["phash" if bits == 64 else "pdq"]
    hashes = random.integers(0, 256, (rows, bits // 8), np.uint8)
    centre = random.integers(0, 256, bits // 8, np.uint8)

    def flip(value, count):
        value = value.copy()
        for bit in random.choice(bits, count, replace=False):
            value[bit // 8] ^= 1 << (bit % 8)
        return value

    for number, kind in enumerate(kinds(random, rows)):
        if kind in (0, 1):
            hashes[number] = flip(centre, random.integers(0, 3 * distance // 4 + 1))
        elif kind == 2:
            hashes[number] = flip(hashes[random.integers(0, number)], random.integers(0, 3 * distance // 2))
        elif kind == 3:
            hashes[number] = flip(hashes[number - 1], 3 * distance // 4)
    return hashes[random.permutation(rows)]


def made_vectors(rows, dimension, seed=0):
    random = np.random.default_rng(seed)
    unit = lambda values: values / np.linalg.norm(values, axis=-1, keepdims=True)  # noqa: E731
    normal = lambda *shape: random.standard_normal(shape, np.float32)  # noqa: E731
    noise = unit(normal(rows, dimension))
    topics, clump = unit(normal(rows // 50 + 1, dimension)), unit(normal(dimension))
    vectors = unit(topics[random.integers(0, len(topics), rows)] + 1.2 * noise)
    for number, kind in enumerate(kinds(random, rows)):
        if kind in (0, 1):
            vectors[number] = unit(clump + 0.05 * noise[number])
        elif kind == 2:
            vectors[number] = unit(vectors[random.integers(0, number)] + 0.08 * noise[number])
        elif kind == 3:
            # A step is within 0.01, two steps are not.
            vectors[number] = unit(vectors[number - 1] + 0.13 * noise[number])
    return vectors[random.permutation(rows)]


# ------------------------------------------------------------------------------------------- brute force


def best_by_vectors(vectors, threshold, block=512):
    """Which rows the rule of `best` removes over all pairs. Products near the threshold are computed in float64."""
    rows, dimension = vectors.shape
    kept, count = np.empty_like(vectors), 0
    out = np.zeros(rows, bool)
    for start in range(0, rows, block):
        part = vectors[start : start + block]
        products = part @ kept[:count].T
        own = part @ part.T
        highest = products.max(1) if count else np.full(len(part), -2, np.float32)
        stays = []
        for i in range(len(part)):
            best = max(highest[i], own[i, stays].max()) if stays else highest[i]
            if abs(best - threshold) < 1e-4:
                near = np.concatenate([kept[:count][products[i] > threshold - 1e-3], part[stays]])
                best = (near.astype(np.float64) @ part[i].astype(np.float64)).max()
            if best >= threshold:
                out[start + i] = True
            else:
                stays.append(i)
        kept[count : count + len(stays)] = part[stays]
        count += len(stays)
    return out


def best_by_hashes(hashes, distance, block=512):
    """As `best_by_vectors`, within `distance` bits: for each row the distance to the nearest that stays, or -1."""
    index = faiss.IndexBinaryFlat(8 * hashes.shape[1])
    out = np.full(len(hashes), -1, np.int64)
    for start in range(0, len(hashes), block):
        part = hashes[start : start + block]
        nearest = index.search(part, 1)[0][:, 0].astype(np.int64) if index.ntotal else np.full(len(part), 1 << 20)
        nearest[nearest < 0] = 1 << 20
        words = part.view(np.uint64)
        own = np.bitwise_count(words[:, None] ^ words[None]).sum(2)
        stays = []
        for i in range(len(part)):
            best = min(nearest[i], own[i, stays].min()) if stays else nearest[i]
            if best <= distance:
                out[start + i] = best
            else:
                stays.append(i)
        index.add(np.ascontiguousarray(part[stays]))
    return out


# ------------------------------------------------------------------------------------------- what is shown


def perceptual(folder, args):
    rows = args.rows or 100_000
    table(["hash", "by", "removed", "recall", "precision", "other distances", "CPU s", "peak MB of a task"])
    for kind, bits in (("phash", 64), ("pdq", 256)):
        hashes = made_hashes(rows, bits)
        run = folder / f"run-{kind}"
        own = hashes.view("<u8")[:, 0] if kind == "phash" else np.arange(rows, dtype="<u8")
        made(run, own, hashes if kind == "pdq" else None)
        began = time.process_time()
        truth = best_by_hashes(hashes, BITS[kind])
        brute = truth >= 0
        row(kind, "brute force, faiss", brute.sum(), 1, 1, 0, f"{time.process_time() - began:.1f}", "")
        for ranges in (1, 4, 16):
            step, words = f"ranges-{ranges}", ["--hash", kind, "--ranges", ranges]
            tasks = ["--task-count", ranges, "--task-index"]
            parts = [dedup(run, "pairs", "perceptual", step, *words, *tasks, task) for task in range(ranges) if ranges > 1]
            last = dedup(run, "perceptual", "perceptual", step, *words)
            found = duplicates(run, step)
            mask = removed(run, step, rows)
            similar = {place: round((1 - value) * bits) for place, value in zip(places(found["image_id"], rows), found["similarity"])}
            other = sum(similar[place] != truth[place] for place in np.flatnonzero(mask & brute))
            name = f"`pairs`, {ranges} tasks, and `perceptual`" if parts else "`perceptual` alone"
            row(kind, name, mask.sum(), *shares(mask, brute), other, *total([*parts, last]))


def semantic(folder, args):
    rows, dimension = args.rows or 100_000, 256
    vectors = made_vectors(rows, dimension)
    vectors.tofile(folder / "vectors")
    run = folder / "run"
    made(run, np.arange(rows, dtype="<u8"), vectors=(folder / "vectors", dimension))
    began = time.process_time()
    brute = best_by_vectors(vectors, 1 - EPS)
    seconds = time.process_time() - began
    fitted = dedup(run, "fit", "semantic", "near", "--clusters", max(1, rows // 1000))
    print(f"{rows} vectors of {dimension} values in {rows // 1000} clusters; fit: {fitted.cpu:.1f} CPU s, {fitted.peak_mb:.0f} MB\n")
    probed(run, "near", rows, EPS, brute, seconds)


def probed(run, step, rows, eps, brute, seconds):
    """The table of recall by probes, beside brute force."""
    table(["probes", "removed", "recall", "precision", "CPU s", "peak MB"])
    row("all pairs, NumPy", brute.sum(), 1, 1, f"{seconds:.1f}", "")
    for probes in (1, 2, 4, 8):
        runs = [dedup(run, "assign", "semantic", step, "--probes", probes), dedup(run, "match", "semantic", step, "--eps", eps)]
        mask = brute_like(run, step, rows)
        row(probes, mask.sum(), *shares(mask, brute), *total(runs))


def brute_like(run, step, rows):
    return removed(run, step, rows) if isinstance(rows, int) else np.isin(rows, duplicates(run, step)["image_id"])


def photos(folder, args):
    """Vectors of photographs and of changed copies of them, in far smaller clusters than the default."""
    run = folder / "run"
    shards = folder / "shards"
    shards.mkdir()
    for number, source in enumerate([args.dups, *args.photos]):
        for shard in sorted(source.glob("*.tar")):
            (shards / f"{number}-{shard.name}").symlink_to(shard.resolve())
    embed(run, shards, args)
    names, vectors = [], []
    for path in sorted((run / "embed/embeddings").glob("*.parquet")):
        found = parquet.read_table(path)
        names += found["image_id"].to_pylist()
        vectors.append(np.stack(found["embedding"].to_numpy(zero_copy_only=False)))
    vectors, order = np.concatenate(vectors), ranked(run, names)
    for eps in (0.05, 0.15):
        began = time.process_time()
        by_rank = best_by_vectors(np.ascontiguousarray(vectors[order]), 1 - eps)
        brute = np.zeros(len(names), bool)
        brute[order] = by_rank
        step = f"eps-{round(100 * eps)}"
        dedup(run, "fit", "semantic", step, "--clusters", 16)
        print(f"\n{len(names)} photographs and changed copies, {args.embedder}, 16 clusters, eps {eps}\n")
        probed(run, step, np.array(names), eps, brute, time.process_time() - began)


def embed(run, shards, args, *read):
    sluice("partition", run, "--input", shards)
    sluice("read", run, *read)
    sluice("embed", run, "--model", args.embedder, "--models", args.models)


def ranked(run, names):
    """The places of the images in the order of `best` without a score: most pixels first, then by name."""
    pixels = {}
    for path in (run / "read/images").glob("*.parquet"):
        found = parquet.read_table(path, columns=["image_id", "width", "height"]).to_pydict()
        pixels |= {name: (w or 0) * (h or 0) for name, w, h in zip(*found.values())}
    return np.array(sorted(range(len(names)), key=lambda place: (-pixels[names[place]], names[place])))


def benchmark(folder, args):
    """The originals of --dups as a reference set: its changed copies must be found among the others, and nothing else."""
    rows = list(csv.DictReader((args.dups / "truth.csv").open()))
    truth = {f"{row['shard'].removesuffix('.tar')}/{row['key']}": row["transformation"] for row in rows}
    bench, data = folder / "bench", folder / "data"
    embed(bench, args.dups, args, "--hashes", "pdq,transformed")
    shutil.copytree(bench, data)
    chosen = json.dumps(sorted(name for name, change in truth.items() if change == "original"))
    for run, rule in ((bench, f"image_id in {chosen}"), (data, f"!(image_id in {chosen})")):
        sluice("filter", run, "--rule", f"half={rule}")
    index = folder / "bench.index"
    sluice("dedup", bench, "index", "--survivors-of", "filter", "--output", index)
    copies = {name: change for name, change in truth.items() if change not in ("original", "single")}
    others = len(truth) - len(chosen.split(",")) - len(copies)
    print(f"{len(chosen.split(','))} photographs in the set, {len(copies)} changed copies of them among {len(copies) + others}\n")
    common = ["--survivors-of", "filter", "--against", index]
    steps = {
        "exact": ("exact", []),
        "perceptual, 4 bits": ("perceptual", ["--transformations", TRANSFORMATIONS]),
        "perceptual, PDQ": ("perceptual", ["--hash", "pdq"]),
        "semantic": ("semantic", []),
    }
    found = {}
    for number, (name, (method, words)) in enumerate(steps.items()):
        step = f"step-{number}"
        if method == "semantic":
            dedup(data, "fit", method, step, "--clusters", 4)
            dedup(data, "assign", method, step, "--survivors-of", "filter")
            dedup(data, "match", method, step, *common)
        else:
            dedup(data, method, method, step, *common, *words)
        rows = duplicates(data, step)
        found[name] = {image for image, set_ in zip(rows["image_id"], rows["reference"]) if set_}
    found["all of the default"] = found["exact"] | found["perceptual, 4 bits"] | found["semantic"]
    changes = sorted(set(copies.values()))
    table(["found by", *changes, "others"])
    for name, images in found.items():
        share = [sum(image in images for image in copies if copies[image] == change) for change in changes]
        row(name, *share, len(images - set(copies)))


def references(folder, args):
    entries, rows = 10 * (args.rows or ROWS), args.rows or ROWS
    random = np.random.default_rng(1)
    known = random.integers(0, 2**64, entries, np.uint64)
    own = random.integers(0, 2**64, rows, np.uint64)
    copies = np.flatnonzero(random.random(rows) < 0.1)
    own[copies] = known[random.integers(0, entries, len(copies))]
    for _ in range(6):
        flipped = copies[random.random(len(copies)) < 0.5]
        own[flipped] ^= np.uint64(1) << random.integers(0, 64, len(flipped), np.uint64)
    bench, run, index = folder / "bench", folder / "run", folder / "bench.index"
    made(bench, known, partitions=64)
    indexed = sluice("dedup", bench, "index", "--output", index)
    shutil.rmtree(bench)
    made(run, own)
    size = sum(path.stat().st_size for path in index.iterdir()) / entries
    print(f"index of {entries:,} hashes: {indexed.cpu:.1f} CPU s, {indexed.peak_mb:.0f} MB, {size:.0f} bytes an entry\n")
    table(["method", "images", "entries", "found", "as brute force", "CPU s", "wall s", "peak MB of a task"])
    counts = list(map(int, args.tasks.split(",")))
    for ranges in counts:
        words = ["--against", index, "--ranges", ranges]
        tasks = [dedup(run, "exact", "exact", f"exact-{ranges}", *words, "--task-count", ranges, "--task-index", task) for task in range(ranges)]
        found = duplicates(run, f"exact-{ranges}")
        is_known = np.isin(own, known)
        in_set = places([name for name, of in zip(found["image_id"], found["reference"]) if of], rows)
        same = np.array_equal(np.sort(in_set), np.flatnonzero(is_known))
        row(f"exact, {ranges} tasks", rows, entries, len(in_set), f"all: {same}", *with_wall(tasks))
    index_of = faiss.IndexBinaryFlat(64)
    index_of.add(known.view(np.uint8).reshape(-1, 8))
    sample = np.sort(random.permutation(rows)[:2000])
    nearest = index_of.search(own[sample].view(np.uint8).reshape(-1, 8), 1)[0][:, 0]
    del index_of
    for ranges in counts:
        step, words = f"near-{ranges}", ["--against", index, "--ranges", ranges]
        shared = ["--task-count", ranges, "--task-index"]
        tasks = [dedup(run, "pairs", "perceptual", step, *words, *shared, task) for task in range(ranges) if ranges > 1]
        tasks.append(dedup(run, "perceptual", "perceptual", step, *words))
        found = duplicates(run, step)
        distance = np.full(rows, 99)
        in_set = [place for place, of in enumerate(found["reference"]) if of]
        at = places([found["image_id"][place] for place in in_set], rows)
        distance[at] = [round(64 * (1 - found["similarity"][place])) for place in in_set]
        same = np.array_equal(distance[sample], np.where(nearest <= BITS["phash"], nearest, 99))
        row(f"perceptual, {ranges} tasks", rows, entries, len(in_set), f"of {len(sample)}: {same}", *with_wall(tasks))
    semantic_references(folder, (args.rows or ROWS) // 10, random)


def semantic_references(folder, rows, random, dimension=256):
    known, own = made_vectors(rows, dimension, 2), made_vectors(rows, dimension, 3)
    copies = np.flatnonzero(random.random(rows) < 0.1)
    own[copies] = known[copies] + 0.005 * random.standard_normal((len(copies), dimension), np.float32)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    bench, run, index = folder / "bench-v", folder / "run-v", folder / "vectors.index"
    for place, vectors in ((bench, known), (run, own)):
        vectors.tofile(folder / "vectors")
        made(place, np.arange(rows, dtype="<u8"), vectors=(folder / "vectors", dimension))
    sluice("dedup", bench, "index", "--output", index)
    dedup(run, "fit", "semantic", "near")
    dedup(run, "assign", "semantic", "near")
    matched = dedup(run, "match", "semantic", "near", "--eps", EPS, "--against", index)
    found = duplicates(run, "near")
    mask = np.zeros(rows, bool)
    mask[places([name for name, of in zip(found["image_id"], found["reference"]) if of], rows)] = True
    sample = random.permutation(rows)[:2000]
    highest = (own[sample].astype(np.float64) @ known.T.astype(np.float64)).max(1)
    same = np.array_equal(mask[sample], highest >= 1 - EPS)
    row(f"semantic, {dimension} values", rows, rows, mask.sum(), f"of {len(sample)}: {same}", *with_wall([matched]))


def with_wall(runs):
    cpu, peak = total(runs)
    return cpu, f"{sum(run.seconds for run in runs):.0f}", peak


def chain(folder, args):
    rows, dimension = args.rows or ROWS, 768
    clusters = max(1, rows // 1000)
    path = folder / "vectors"
    with path.open("wb") as file:
        for seed, start in enumerate(range(0, rows, 50_000)):
            topical(min(50_000, rows - start), dimension, seed).tofile(file)
    vectors = np.memmap(path, np.float32, "r").reshape(-1, dimension)
    sample = np.sort(np.random.default_rng(9).permutation(rows)[:2000])
    queries = vectors[sample].astype(np.float32)
    has_near = np.zeros(len(sample), bool)
    for start in range(0, rows, 50_000):
        products = queries @ vectors[start : start + 50_000].T
        inside = (sample >= start) & (sample < start + 50_000)
        products[np.flatnonzero(inside), sample[inside] - start] = -1
        has_near |= (products >= 1 - EPS).any(1)
    truth = sample[has_near]
    run = folder / "run"
    made(run, np.arange(rows, dtype="<u8"), vectors=(path, dimension), partitions=64)
    print(f"{rows:,} vectors of {dimension} values, {clusters} clusters; recall of {len(truth)} sampled images with a near one\n")
    table(["", "CPU s", "wall s", "peak MB", "recall"])
    fitted = dedup(run, "fit", "semantic", "near", "--clusters", clusters)
    row("`fit`", *with_wall([fitted]), "")
    for probes in map(int, args.probes.split(",")):
        runs = [fitted]
        for subcommand, words in (("assign", ["--probes", probes]), ("match", ["--eps", EPS])):
            runs.append(dedup(run, subcommand, "semantic", "near", *words))
            row(f"`{subcommand}`, {probes} probes", *with_wall(runs[-1:]), "")
        found = duplicates(run, "near")
        linked = np.union1d(places(found["image_id"], rows, 64), places(found["duplicate_of"], rows, 64))
        row("all three", *with_wall(runs), f"{np.isin(truth, linked).mean():.4f}")
    shutil.rmtree(run)
    peer = paired.once(paired.Side("faiss", [paired.environment("duplicates"), __file__, "peer", path, dimension, clusters, folder / "linked.npy"]))
    for name, seconds in peer.printed["parts"].items():
        row(f"faiss, {name}", f"{seconds:.1f}", "", "", "")
    row("faiss, together", *with_wall([peer]), f"{np.isin(truth, np.load(folder / 'linked.npy')).mean():.4f}")


def topical(rows, dimension, seed, topics=2000):
    """As `make_vectors` of dedup.py."""
    centres = np.random.default_rng(0).standard_normal((topics, dimension), np.float32)
    random = np.random.default_rng(seed + 1)
    part = centres[random.integers(0, topics, rows)] * 0.8 + random.standard_normal((rows, dimension), np.float32)
    copies = np.flatnonzero(random.random(rows) < 0.1)
    part[copies] = part[random.integers(0, rows, len(copies))] + 0.1 * random.standard_normal((len(copies), dimension), np.float32)
    return part / np.linalg.norm(part, axis=1, keepdims=True)


def peer(path, dimension, clusters, output):
    """faiss's IVF index, one probe: each vector against those of its cluster, as `match` does."""
    dimension, clusters = int(dimension), int(clusters)
    vectors = np.memmap(path, np.float32, "r").reshape(-1, dimension)
    quantizer = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFFlat(quantizer, dimension, clusters, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.spherical = 20, True
    parts, began = {}, time.process_time()

    def lap(name):
        nonlocal began
        parts[name], began = time.process_time() - began, time.process_time()

    step = max(1, len(vectors) // (256 * clusters))
    index.train(np.ascontiguousarray(vectors[::step][: 256 * clusters]))
    lap("train")
    for start in range(0, len(vectors), 50_000):
        index.add(np.ascontiguousarray(vectors[start : start + 50_000]))
    lap("add")
    linked = []
    for start in range(0, len(vectors), 10_000):
        limits, _, _ = index.range_search(np.ascontiguousarray(vectors[start : start + 10_000]), 1 - EPS)
        # Each finds itself.
        linked.append(start + np.flatnonzero(np.diff(limits.astype(np.int64)) > 1))
    lap("range search")
    np.save(output, np.concatenate(linked))
    print(json.dumps({"parts": parts}))


def skew(folder, args):
    """Near-copies of one vector by real runs: in one cluster, and the same number in even ones."""
    rows, dimension = args.rows or 500_000, 256
    random = np.random.default_rng(4)
    table(["clusters", "", "CPU s", "wall s", "peak MB", "removed"])
    for name, clusters in (("even", rows // 1000), ("one", 1)):
        centres = random.standard_normal((clusters, dimension), np.float32)
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        with (folder / "vectors").open("wb") as file:
            for start in range(0, rows, 50_000):
                noise = random.standard_normal((min(50_000, rows - start), dimension), np.float32)
                part = centres[random.integers(0, clusters, len(noise))] + 0.05 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
                (part / np.linalg.norm(part, axis=1, keepdims=True)).astype(np.float32).tofile(file)
        run = folder / f"run-{name}"
        made(run, np.arange(rows, dtype="<u8"), vectors=(folder / "vectors", dimension))
        dedup(run, "fit", "semantic", "near", "--clusters", clusters)
        for subcommand, words in (("assign", []), ("match", ["--eps", EPS])):
            done = dedup(run, subcommand, "semantic", "near", *words)
            found = len(duplicates(run, "near")["image_id"]) if subcommand == "match" else ""
            row(name, subcommand, *with_wall([done]), found)
        shutil.rmtree(run)


def tasks(folder, args):
    """Every fanned-out subcommand by 1, 4 and 16 tasks, and by tasks that are killed and started again."""
    rows, dimension = args.rows or 100_000, 64
    made_vectors(rows, dimension, 5).tofile(folder / "vectors")
    hashes = made_hashes(rows, 64, 6).view("<u8")[:, 0]
    run = folder / "run"
    made(run, hashes, vectors=(folder / "vectors", dimension))
    steps = [("exact", ["--ranges", 16]), ("pairs", ["--ranges", 16]), ("perceptual", ["--ranges", 16]), ("fit", []), ("assign", ["--probes", 2])]
    steps.append(("match", ["--eps", EPS, "--groups", 16]))
    table(["tasks", "killed", "digest of all manifests", "CPU s", "peak MB of a task"])
    for count, kill in ((1, False), (4, False), (16, False), (4, True), (16, True)):
        runs, killed = [], 0
        for subcommand, words in steps:
            command = [paired.PROGRAMS / "sluice-dedup", subcommand, "--run", run, *words]
            for task in range(count if subcommand not in ("perceptual", "fit") else 1):
                shared = ["--task-count", count, "--task-index", task] if subcommand not in ("perceptual", "fit") else []
                if kill:
                    killed += killed_in_its_work([*command, *shared], run)
                runs.append(paired.once(paired.Side(subcommand, [*command, *shared])))
        digest = hashlib.sha256()
        for path in sorted((run / "dedup").rglob("*.parquet")):
            digest.update(path.relative_to(run).as_posix().encode() + path.read_bytes())
        row(count, killed, digest.hexdigest()[:16], *total(runs))
        shutil.rmtree(run / "dedup")


def killed_in_its_work(command, run):
    """Starts a program and kills it when it has written something, or has worked for a while. Returns whether it was at work."""
    before = len(list((run / "dedup").rglob("*"))) if (run / "dedup").exists() else 0
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ends = time.monotonic() + 0.5
    while process.poll() is None and time.monotonic() < ends:
        if (run / "dedup").exists() and len(list((run / "dedup").rglob("*"))) > before:
            break
        time.sleep(0.005)
    was_at_work = process.poll() is None
    process.kill()
    process.wait()
    return was_at_work


if __name__ == "__main__":
    import sys

    sys.exit(peer(*sys.argv[2:]) if sys.argv[1:2] == ["peer"] else main())
