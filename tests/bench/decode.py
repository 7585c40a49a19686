"""JPEG bytes to CLIP's 3x224x224 floats: Sluice compared with common Python stacks, on one thread and on two.

    cargo build --release -p sluice-pixels --examples
    python3 tests/bench/decode.py --photos FOLDER_OF_TAR_SHARDS
    python3 tests/bench/decode.py --photos FOLDER_OF_TAR_SHARDS --large
    python3 tests/bench/decode.py --photos FOLDER_OF_TAR_SHARDS --together

Sluice and the two Hugging Face processors use Pillow's bicubic filter; OpenCV's INTER_AREA is another filter, and DALI's
row only decodes. --large first generates photographs of 12 to 24 megapixels from the others.
With --together, two small models of `make models` run on the photographs, each in a pass of its own and both in one.
"""

import shlex
import subprocess
import sys
from pathlib import Path

import paired

STACKS = {
    "PIL + HF processor, slow": "pil-hf-slow",
    "PIL + HF processor, fast": "pil-hf-fast",
    "DALI decoding + HF processor, fast": "dali-hf-fast",
    "torchvision": "torchvision",
    "OpenCV, INTER_AREA": "opencv-area",
    "DALI decoding alone": "dali-decode",
}
SLUICE = paired.PROGRAMS / "examples/preprocess"
PEERS = Path(__file__).parent / "peers"
QUIET = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}


def main():
    parser = paired.arguments(__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of tar shards with JPEGs")
    parser.add_argument("--large", nargs="?", type=int, const=24, help="use this number of photographs of 12 to 24 megapixels")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--only", nargs="*", choices=STACKS.values(), default=list(STACKS.values()))
    parser.add_argument("--together", action="store_true", help="two models in one pass, against each in its own")
    options = parser.parse_args()
    if options.together:
        return together(options)
    python = paired.environment("images")
    shards = sorted(options.photos.glob("*.tar"))
    if options.large:
        shards = [large(python, options.photos, options.large)]
    if not shards or not SLUICE.exists():
        sys.exit(f"no shards in {options.photos}" if SLUICE.exists() else f"build first: {SLUICE} is missing")

    runs = {}
    for threads in options.threads:
        sides = [paired.Side("Sluice", [SLUICE, threads, *shards])]
        if options.large:
            sides.append(paired.Side("Sluice, exact", [SLUICE, threads, *shards], env={"EXACT": "1"}))
        for name, stack in STACKS.items():
            if stack in options.only:
                sides.append(paired.Side(name, [python, PEERS / "images.py", stack, threads, *shards], env=QUIET))
        found = paired.measure(sides, options.rounds)
        paired.show(found, against="Sluice", title=f"{threads} thread{'s' * (threads > 1)}")
        runs |= {f"{name}, {threads}": own for name, own in found.items()}
    if {"Sluice, 1", "Sluice, 2"} <= runs.keys():
        speed = [paired.median(runs[f"Sluice, {n}"], lambda run: run.images / run.seconds) for n in (1, 2)]
        print(f"\nSluice's second thread: {speed[1] / speed[0]:.2f} times the images a second.")
    paired.keep(runs, options.json)


def together(options):
    """Sluice's embedder and its classifier of pixels, which read and decode the same images."""
    with paired.workspace() as work:
        run, thread = work / "run", ["--jobs", options.threads[0]]
        program = lambda name: [paired.PROGRAMS / f"sluice-{name}", "--run", run]
        paired.once(paired.Side("partition", [*program("partition"), "--input", options.photos]))
        paired.once(paired.Side("read", program("read")))
        count = len(list(paired.photographs(options.photos)))
        common = ["--models", paired.CACHE / "models", "--force", *thread]
        embed = [*program("embed"), "--model", "efficientnet-lite0", *common]
        nsfw = [*program("nsfw"), "--model", "opennsfw", *common]
        quoted = [shlex.join(map(str, command)) for command in (embed, nsfw)]
        named = [[Path(command[0]).name, *command[1:]] for command in (embed, nsfw)]
        one_pass = [paired.PROGRAMS / "sluice", "steps", "--", *named[0], "+", *named[1]]
        sides = [
            paired.Side("one after the other", ["sh", "-c", " && ".join(quoted)], images=count),
            paired.Side("one pass", one_pass, images=count),
        ]
        found = paired.measure(sides, options.rounds)
        paired.show(found, against="one after the other", title=f"two models, {count} images")
        paired.keep(found, options.json)


def large(python, photos, count):
    shard = paired.BENCH / f"large-{count}.tar"
    if not shard.exists():
        unfinished = shard.with_suffix(".part")
        subprocess.run([python, PEERS / "photos.py", photos, unfinished, str(count)], check=True)
        unfinished.rename(shard)
    return shard


main()
