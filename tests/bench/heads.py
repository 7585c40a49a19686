#!/usr/bin/env python3
"""A million embeddings through the heads: `sluice-aesthetic` and `sluice-nsfw` compared with torch.

    python3 tests/bench/heads.py --photos FOLDER [--rows 1000000] [--rounds 3]

One manifest has embeddings of 768 random values. Sluice reads it, scores, decides and writes the scores, from the start of
its process to its end. `torch, Parquet` reads the same manifest with pyarrow, scores in batches and writes ids and scores.
`torch, ready` has the embeddings in memory and writes nothing. torch's times exclude its start and imports. The heads are
LAION's aesthetic V2 (five layers without activations) and V1 (one layer), and the NSFW detector. Goal: ten times torch's
speed.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import paired
from paired import BENCH, Side

MODELS = BENCH / "models"
HEADS = {"aesthetic-mlp": "aesthetic", "aesthetic-affine": "aesthetic", "nsfw": "nsfw"}
# `sluice models pull` folds V2's five layers into one, so Sluice runs one layer.
FOLDED = {"aesthetic-mlp": "aesthetic-affine"}


def main():
    parser = paired.arguments(__doc__, rounds=3)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of WebDataset shards")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--heads", default=",".join(HEADS))
    args = parser.parse_args()
    paired.inside("nemo")

    with paired.workspace() as work:
        paired.single_shards(args.photos, work / "in", 1)
        steps = paired.steps(work / "in", work / "run", work / "out")
        for name in ("partition", "read", "embed"):
            paired.once(Side(name, steps[name]))
        manifest = work / "run/embed/embeddings/part-00000.parquet"
        fill(manifest, args.rows)
        for head in args.heads.split(","):
            command = list(steps[HEADS[head]])
            command[command.index("--model") + 1] = MODELS / f"{FOLDED.get(head, head)}-tiny"
            torch = [sys.executable, __file__, "--torch", head, manifest]
            sides = [
                Side(f"sluice-{HEADS[head]}", [*command, "--force"], args.rows),
                Side("torch, Parquet", torch, args.rows),
                Side("torch, ready", [*torch, "--ready"], args.rows),
            ]
            runs = paired.measure(sides, args.rounds)
            paired.show(runs, against="torch, Parquet", title=f"{head}, {args.rows} embeddings")
            paired.keep(runs, args.json and args.json.with_stem(f"{args.json.stem}-{head}"))


def fill(manifest, rows):
    """Replaces the manifest's one row by random embeddings, with the same schema and row groups."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    about = pq.read_metadata(manifest).metadata
    schema = pq.read_schema(manifest).with_metadata({k: v for k, v in about.items() if k != b"ARROW:schema"})
    random = np.random.default_rng(0)
    with pq.ParquetWriter(manifest, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, rows, 1024):
            count = min(1024, rows - start)
            vectors = random.standard_normal((count, 768), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            columns = []
            for field in schema:
                if field.name == "embedding":
                    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=field.type)
                else:
                    column = pa.array([f"shard/{start + row:09}" for row in range(count)], field.type)
                columns.append(column)
            writer.write_batch(pa.record_batch(columns, schema=schema), row_group_size=1024)


def torch_side():
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--ready", action="store_true")
    args = parser.parse_args()
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from models import head_network

    head, file = head_network(args.torch), pq.ParquetFile(args.manifest)

    def batches():
        for batch in file.iter_batches(16384, columns=["image_id", "embedding"]):
            values = batch.column("embedding").values.to_numpy().reshape(-1, 768)
            yield batch.column("image_id"), torch.from_numpy(values)

    ready = list(batches()) if args.ready else None
    began, cpu = time.perf_counter(), time.process_time()
    ids, scores = [], []
    with torch.inference_mode():
        for batch, vectors in ready or batches():
            ids.append(batch)
            scores.append(head(vectors).ravel())
    scores = torch.cat(scores).numpy()
    if not args.ready:
        table = pa.table({"image_id": pa.chunked_array(ids), "score": scores, "keep": scores < 2})
        pq.write_table(table, args.manifest.with_name("torch.parquet"))
    took = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    print(json.dumps(took | {"images": len(scores)}))


if __name__ == "__main__":
    torch_side() if "--torch" in sys.argv else main()
