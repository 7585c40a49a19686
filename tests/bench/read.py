"""`sluice-read` compared with a plain decoder, and with a decoder that also hashes.

    cargo build --release -p sluice-partition -p sluice-read
    python3 tests/bench/read.py --photos FOLDER_OF_TAR_SHARDS

`sluice-read` indexes every member, decodes every photo strictly, computes SHA-256, a perceptual hash and six quality
measures, and writes Parquet, including its start. DALI's reader only decodes. imagededup's PHash decodes and hashes images
in memory. All use both cores.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import paired

PEERS = Path(__file__).parent / "peers"


def main():
    parser = paired.arguments(__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of tar shards with JPEGs")
    options = parser.parse_args()
    python = paired.environment("images")
    photos = options.photos.resolve()
    shards = sorted(photos.glob("*.tar"))
    listed = (subprocess.run(["tar", "tf", shard], check=True, capture_output=True, text=True) for shard in shards)
    images = sum(name.endswith(".jpg") for one in listed for name in one.stdout.split("\n"))
    if not images:
        sys.exit(f"no photos in {photos}")

    run = paired.BENCH / "read-run"

    def afresh():
        shutil.rmtree(run, ignore_errors=True)
        plan = [paired.PROGRAMS / "sluice-partition", "--input", photos, "--run", run]
        subprocess.run(plan, check=True, capture_output=True)

    def peer(name, stack):
        quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
        return paired.Side(name, [python, PEERS / "images.py", stack, 2, *shards], env=quiet)

    sides = [
        paired.Side("sluice-read", [paired.PROGRAMS / "sluice-read", "--run", run], images=images, before=afresh),
        peer("DALI reader and decoder", "dali-decode"),
        peer("imagededup PHash", "imagededup-phash"),
    ]
    found = paired.measure(sides, options.rounds)
    paired.show(found, against="sluice-read", title="Reading shards")
    paired.keep(found, options.json)


main()
