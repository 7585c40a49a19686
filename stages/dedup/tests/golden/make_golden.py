#!/usr/bin/env python3
"""Writes the golden files of the semantic duplicate search.

usage: python3 make_golden.py        (needs numpy; writes next to itself)

A restatement of NVIDIA NeMo Curator's semantic deduplication (version 1.4.0)
in plain numpy, float64 throughout, one loop per definition, no blocking and no
tricks. The names in quotes are NeMo's columns and settings:

1. Each embedding (L2-normalised) belongs to the nearest raw centroid by
   Euclidean distance ("centroid"). "cosine_dist_to_cent" is 1 minus the dot
   product with the normalised centroid.
2. Inside a cluster the rows are ranked by "which_to_keep":
     hard    cosine_dist_to_cent descending, ties by id descending
     easy    cosine_dist_to_cent ascending,  ties by id ascending
     random  a seeded shuffle: here by SHA-256(seed, cluster, id)
     best    (Sluice's own) highest score, then most pixels, then smallest id
3. Pairwise: each row's highest cosine similarity with an earlier-ranked row
   ("cosine_sim_score") and that row's id ("max_id"), the earliest of equals.
4. A row is removed when that is at least 1 - eps. Two rules:
     any-earlier  (NeMo Curator) all earlier rows count
     kept-only    (Sluice)       only earlier rows that stay count

The data is random with planted near-duplicates, chains of them, and exact
copies. The checks at the end of each step make sure that no result hangs on the
order of a float summation: values that are compared are equal or far apart.
"""
import hashlib
import json
import pathlib

import numpy as np

HERE = pathlib.Path(__file__).parent
KEEPS = ["best", "hard", "easy", "random"]
RULES = ["kept-only", "any-earlier"]
SEED = 42  # of the random ranking

# Name, rows, dimensions, clusters, eps, and the noise of near-duplicates: their
# cosine similarity with the original is about 1 - noise^2 / 2.
SETS = [
    dict(name="small", n=90, dim=8, k=12, eps=[0.01, 0.2], noise=0.15, rng=11),
    dict(name="medium", n=240, dim=32, k=5, eps=[0.01, 0.07], noise=0.15, rng=22),
    dict(name="large", n=420, dim=48, k=3, eps=[0.002, 0.05], noise=0.2, rng=33),
    dict(name="wide", n=60, dim=129, k=2, eps=[0.08], noise=0.35, rng=44),
]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def make_vectors(rng, n, dim, k, noise):
    """Random topics with, in the second half, copies of earlier rows: exact ones
    (every tenth), and noisy ones, some of them of noisy ones (chains)."""
    topics = rng.standard_normal((2 * k, dim))
    x = unit(topics[rng.integers(0, 2 * k, n)] + 0.7 * rng.standard_normal((n, dim)))
    x = x.astype(np.float32)
    for i in range(n // 2, n):
        original = x[rng.integers(0, i)]
        if i % 10 == 0:
            x[i] = original
        elif i % 5 != 1:
            step = unit(rng.standard_normal(dim)) * noise * rng.uniform(0.1, 1.6)
            x[i] = unit(original + step)
    return x[rng.permutation(n)]


def make_images(rng, n):
    """Ids in no order; scores with ties and gaps; few different sizes."""
    ids = [f"photos/{i // 100:05d}/{i:06d}" for i in rng.permutation(n)]
    scores = [None if rng.random() < 0.2 else float(np.float32(s)) for s in np.round(rng.uniform(0, 10, n), 1)]
    pixels = [int(p) for p in rng.choice([224 * 224, 640 * 480, 1920 * 1080], n)]
    return ids, scores, pixels


def far_apart(values, gap, what):
    """Sorted neighbours among values are equal or at least a gap apart."""
    steps = np.diff(np.sort(np.asarray(values)))
    close = steps[(steps > 0) & (steps < gap)]
    assert not len(close), f"{what}: values only {close.min():.1e} apart, choose another rng"


def assign(x, centroids):
    """Step 1. Each row on its own, so that equal rows get equal distances."""
    clusters, distances = [], []
    for row in x.astype(np.float64):
        squared = ((row - centroids.astype(np.float64)) ** 2).sum(axis=1)
        far_apart(squared, 1e-6, "distances to centroids")
        nearest = int(squared.argmin())
        normalised = unit(centroids[nearest].astype(np.float64))
        clusters.append(nearest)
        distances.append(float(np.float32(1 - (row * normalised).sum())))
    return clusters, distances


def random_key(cluster, image_id):
    seed = SEED.to_bytes(8, "little") + cluster.to_bytes(4, "little")
    return hashlib.sha256(seed + image_id.encode()).digest()


def rank(rows, keep, cluster, ids, scores, pixels, distances):
    """Step 2: the rows of one cluster, most preferred first."""
    if keep == "hard":
        return sorted(rows, key=lambda i: (distances[i], ids[i]), reverse=True)
    if keep == "easy":
        return sorted(rows, key=lambda i: (distances[i], ids[i]))
    if keep == "random":
        return sorted(rows, key=lambda i: random_key(cluster, ids[i]))
    worst = -float("inf")
    return sorted(rows, key=lambda i: (-(worst if scores[i] is None else scores[i]), -pixels[i], ids[i]))


def removed(ranked, x, eps, rule):
    """Steps 3 and 4 for one cluster: [removed row, row that it duplicates,
    similarity], in rank order."""
    result, gone = [], set()
    for position, row in enumerate(ranked):
        earlier = [r for r in ranked[:position] if rule == "any-earlier" or r not in gone]
        if not earlier:
            continue
        # Rounded, so that exact copies tie exactly; argmax takes the first.
        similarities = np.round(x[earlier].astype(np.float64) @ x[row].astype(np.float64), 9)
        far_apart(similarities[similarities > 0.7], 1e-7, "similarities")
        far_apart([similarities.max(), 1 - eps], 1e-5, "threshold")
        best = int(similarities.argmax())
        if similarities[best] >= 1 - eps:
            gone.add(row)
            result.append([row, earlier[best], float(similarities[best])])
    return result


def main():
    for s in SETS:
        rng = np.random.default_rng(s["rng"])
        x = make_vectors(rng, s["n"], s["dim"], s["k"], s["noise"])
        ids, scores, pixels = make_images(rng, s["n"])
        # Any centroids will do, since they are given: means of random groups,
        # plus one that no row is near.
        centroids = np.stack([x[rng.integers(0, s["n"], 3)].mean(axis=0) for _ in range(s["k"])])
        centroids = np.concatenate([centroids, -3 * x[:1]]).astype(np.float32)
        clusters, distances = assign(x, centroids)
        # Distances count within a cluster, for rows that are not exact copies.
        members = {c: [i for i in range(s["n"]) if clusters[i] == c] for c in range(len(centroids))}
        for rows in members.values():
            far_apart([distances[i] for i in rows], 2e-7, "distances in a cluster")

        rankings, removals = {}, []
        for keep in KEEPS:
            rankings[keep] = [rank(rows, keep, c, ids, scores, pixels, distances) for c, rows in members.items()]
            for eps in s["eps"]:
                for rule in RULES:
                    rows = [r for ranked in rankings[keep] for r in removed(ranked, x, eps, rule)]
                    removals.append(dict(keep=keep, eps=eps, rule=rule, rows=rows))

        golden = dict(
            dim=s["dim"], seed=SEED, image_ids=ids, scores=scores, pixels=pixels,
            clusters=clusters, distances=distances, rankings=rankings, removals=removals,
        )
        # Little-endian float32, row after row.
        (HERE / f"{s['name']}.vectors.f32").write_bytes(x.astype("<f4").tobytes())
        (HERE / f"{s['name']}.centroids.f32").write_bytes(centroids.astype("<f4").tobytes())
        lines = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in golden.items()]
        (HERE / f"{s['name']}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
        for r in removals:
            print(s["name"], r["keep"], r["eps"], r["rule"], len(r["rows"]))


main()
