#!/usr/bin/env python3
"""Prints random sentences from the comments of the Rust sources, to judge their language.

    python3 tests/documents/sentences.py [--revision HEAD] [--seed 1] [--count 40] [FOLDER…]

A sentence is prose of at least five words in a comment or docstring. The same seed and the same revision give the same
sentences.
"""

import argparse
import random
import re
import subprocess


def git(*words):
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def comments(text):
    """Yields the comments of a source file, the lines of each joined."""
    block = []
    for line in [*text.split("\n"), ""]:
        comment = re.match(r"\s*//[/!]?(.*)", line)
        part = comment[1].strip() if comment else ""
        if part and not re.match(r"[-|#`]|\d+\.", part):
            block.append(part)
        elif block:
            yield " ".join(block)
            block = []


def sentences(text):
    for comment in comments(text):
        for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z`])", comment):
            if len(sentence.split()) >= 5:
                yield sentence


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--revision", default="HEAD")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("folders", nargs="*", default=["."])
    args = parser.parse_args()
    paths = git("ls-tree", "-r", "--name-only", args.revision, *args.folders).split("\n")
    found = []
    for path in sorted(path for path in paths if path.endswith(".rs")):
        found += [(path, sentence) for sentence in sentences(git("show", f"{args.revision}:{path}"))]
    chosen = random.Random(args.seed).sample(found, min(args.count, len(found)))
    for path, sentence in chosen:
        print(f"{path}: {sentence}")


if __name__ == "__main__":
    main()
