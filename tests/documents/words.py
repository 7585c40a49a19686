#!/usr/bin/env python3
"""Counts what makes the code hard to read: words, names, missing docs.

    words.py [ROOT] [CRATE...]            a table with one row for each crate
    words.py --list [ROOT] [CRATE...]     every finding, as path:line: what: text
    words.py --check [ROOT]               exits with 1 if a count is above its limit
    words.py --sentences SEED N [ROOT]    N sentences of the comments, chosen by a seed

ROOT is a copy of this repository, this one by default.

Counted are, in the comments of all Rust files of a crate, the avoided words of `AVOIDED` for each
1,000 words, and in `src/`:

- public functions that return a `Result` without saying when they fail (`# Errors`),
- docstrings of public items with four words or fewer,
- `match` on a `bool`,
- names that serve two public types, in the whole workspace except the crate of the tests.
"""

import argparse
import random
import re
import sys
from collections import defaultdict
from pathlib import Path

AVOIDED = {
    "tell": r"tells?|told|telling",
    "lie": r"lies?|lay|lying",
    "stand": r"stands?|stood|standing",
    "of it": r"of (?:it|them)",
    "stretch": r"stretch(?:es)?",
    "want": r"wants?|wanted",
    "heed": r"heed(?:s|ed)?",
    "settle": r"settle[sd]?",
    "beside": r"besides?",
    "behind": r"behind",
    "what has": r"what (?:it|they) (?:has|have)",
    "is no": r"(?:is|are) no (?:number|size|name|path|image|integer|date|key)",
    "whom": r"whom",
    "anew": r"anew|thereby|therein|thereof|wherein|whence",
    "holds": r"holds",
    "says": r"says|said",
}
AVOIDED = {word: re.compile(rf"\b(?:{pattern})\b") for word, pattern in AVOIDED.items()}
# The maximum of each avoided word in 1,000 words of comments.
MOST = 0.4
SHORT = 4
# Every program has its arguments, and every stage the settings that its receipts record.
CONVENTIONS = {"Args", "Command", "Settings"}

COMMENT = re.compile(r"\s*//[/!]?(.*)")
TYPE = re.compile(r"^pub (?:struct|enum|trait|union|type) (\w+)", re.M)
ITEM = re.compile(r"(?:pub )(?:async |const |unsafe )*(?:fn|struct|enum|trait|type|const|static|mod) (\w+)")
TESTS = re.compile(r"^#\[cfg\(test\)\]\n(?:#\[.*\n)*mod \w+ \{", re.M)


def sources(root):
    """The paths of the Rust files and the manifests, without generated ones."""
    kept = ("shared/", "stages/", "workflows/", "tests/")
    paths = [path.relative_to(root).as_posix() for top in kept for path in (root / top).rglob("*")]
    paths = [path for path in paths if path.endswith((".rs", "Cargo.toml")) and "/target/" not in path]
    return sorted(paths)


class Crate:
    """The Rust files of one crate, and the names that it exports."""

    def __init__(self, root, name, files):
        self.name = name
        own = [path for path in files if path.startswith(name + "/") and path.endswith(".rs")]
        self.texts = {path: (root / path).read_text() for path in own}
        self.source = {
            path: TESTS.split(text)[0]
            for path, text in self.texts.items()
            if path.startswith(name + "/src/") and not path.endswith("tests.rs") and "/tests/" not in path
        }
        uses = re.findall(r"^pub use (?:\w+::)*(\w+)::(\{[^;]*\}|\w+);", "\n".join(self.source.values()), re.M)
        self.exported = {(module, name) for module, names in uses for name in re.findall(r"\w+", names)}
        self.types = {name for text in self.source.values() for name in TYPE.findall(text)}

    def is_public(self, path):
        """Whether a file's module can be named from other crates."""
        where, folder = [f"{self.name}/src/lib.rs"], f"{self.name}/src"
        for part in path[len(folder) + 1 : -len(".rs")].removesuffix("/mod").split("/"):
            if part == "lib":
                return True
            if not any(re.search(rf"^pub mod {part};", self.source.get(parent, ""), re.M) for parent in where):
                return False
            where, folder = [f"{folder}/{part}.rs", f"{folder}/{part}/mod.rs"], f"{folder}/{part}"
        return True

    def exports(self, path, name):
        """Whether other crates can name an item of this file."""
        module = path.removesuffix("/mod.rs").removesuffix(".rs").rsplit("/", 1)[1]
        return self.is_public(path) or (module, name) in self.exported

    def public_types(self):
        """The types that other crates can name, as (name, path:line)."""
        for path, text in self.source.items():
            for found in TYPE.finditer(text):
                if self.exports(path, found[1]):
                    yield found[1], f"{path}:{line_of(text, found.start())}"

    def comments(self):
        for path, text in self.texts.items():
            for number, line in enumerate(text.split("\n"), 1):
                if found := COMMENT.match(line):
                    yield f"{path}:{number}", found[1].strip()

    def undocumented_results(self):
        """Public functions that return a Result, as (path:line, name, whether they have `# Errors`)."""
        for path, text in self.source.items():
            owner, docs = None, []
            lines = text.split("\n")
            for number, line in enumerate(lines):
                word = line.strip()
                if found := re.match(r"(?:unsafe )?impl(?:<.*?>)? (\w+)", line):
                    owner = None if " for " in line else found[1]
                if word.startswith("///"):
                    docs.append(word)
                    continue
                if word.startswith(("#[", "//")) or word.endswith(")]"):
                    continue
                if found := re.match(r"pub (?:async |const |unsafe )*fn (\w+)", word):
                    inside = line.startswith(" ")
                    seen = owner in self.types if inside else self.exports(path, found[1])
                    if seen and returns_result(lines, number):
                        yield f"{path}:{number + 1}", found[1], any("# Errors" in doc for doc in docs)
                if word:
                    docs = []

    def short_docs(self):
        """Docstrings of public items with few words."""
        for path, text in self.source.items():
            lines = text.split("\n")
            for number, line in enumerate(lines[:-1]):
                before = lines[number - 1].strip() if number else ""
                doc, item = line.strip(), lines[number + 1].strip()
                if doc.startswith("///") and not before.startswith("///") and ITEM.match(item):
                    if len(re.findall(r"[\w'-]+", doc[3:])) <= SHORT:
                        yield f"{path}:{number + 1}", doc

    def bool_matches(self):
        for path, text in self.source.items():
            for found in re.finditer(r"match [^{;]*\{\s*(?://.*\s*)*(?:true|false) =>", text):
                yield f"{path}:{line_of(text, found.start())}", found[0].split("{")[0].strip()


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def returns_result(lines, number):
    signature = lines[number]
    while not re.search(r"[{;]\s*$", signature) and number + 1 < len(lines):
        number += 1
        signature += " " + lines[number].strip()
    output = re.split(r"\)\s*->", signature)
    return len(output) > 1 and bool(re.match(r"\s*(?:Option<)?(?:\w+::)*Result\b", output[-1]))


def crates_of(root, names):
    files = sources(root)
    manifests = [path for path in files if re.fullmatch(r"(shared|stages|workflows)/\w+/Cargo\.toml|tests/Cargo\.toml", path)]
    every = sorted(path.removesuffix("/Cargo.toml") for path in manifests)
    return [Crate(root, name, files) for name in every if not names or name in names]


def places_of_types(crates):
    """The names of the public types, each with its places."""
    places = defaultdict(list)
    for crate in crates:
        for name, place in crate.public_types() if crate.name != "tests" else []:
            places[name].append(place)
    return places


def shared_names(crates):
    """Names that serve two public types, with the places."""
    places = places_of_types(crates).items()
    return {name: at for name, at in places if len(at) > 1 and name not in CONVENTIONS}


class Counts:
    """The counts of one crate, or of several."""

    def __init__(self, crates):
        texts = [text for crate in crates for _, text in crate.comments()]
        self.words = sum(len(re.findall(r"[A-Za-z']+", text)) for text in texts)
        low = "\n".join(texts).lower()
        self.avoided = {word: len(pattern.findall(low)) for word, pattern in AVOIDED.items()}
        self.returns = len(re.findall(r"\breturns?\b", low))
        results = [found for crate in crates for found in crate.undocumented_results()]
        self.results = len(results)
        self.silent = sum(not documented for *_, documented in results)
        self.short = sum(1 for crate in crates for _ in crate.short_docs())
        self.matches = sum(1 for crate in crates for _ in crate.bool_matches())

    def rate(self, word):
        return 1000 * self.avoided[word] / max(self.words, 1)

    def row(self, name):
        rates = " ".join(f"{self.rate(word):8.2f}" for word in AVOIDED)
        returns = 1000 * self.returns / max(self.words, 1)
        return (
            f"{name:18} {self.words:7} {rates} {returns:8.2f} {self.results:7} {self.silent:7}"
            f" {self.short:6} {self.matches:6}"
        )


def print_table(crates):
    words = " ".join(f"{word:>8}" for word in AVOIDED)
    print(f"{'crate':18} {'words':>7} {words} {'returns':>8} {'Results':>7} {'silent':>7} {'short':>6} {'match':>6}")
    for crate in crates:
        print(Counts([crate]).row(crate.name))
    print(Counts(crates).row("all"))
    types = sum(map(len, places_of_types(crates).values()))
    print(f"public types: {types}; names that serve two of them: {len(shared_names(crates))}")


def findings(crates):
    for crate in crates:
        for place, text in crate.comments():
            for word, pattern in AVOIDED.items():
                if pattern.search(text.lower()):
                    yield f"{place}: {word}: {text}"
        for place, name, documented in crate.undocumented_results():
            if not documented:
                yield f"{place}: no # Errors: {name}"
        for place, text in crate.short_docs():
            yield f"{place}: short: {text}"
        for place, text in crate.bool_matches():
            yield f"{place}: match on a bool: {text}"
    for name, places in sorted(shared_names(crates).items()):
        yield f"{places[0]}: one name for two types: {name}: {', '.join(places[1:])}"


def check(crates):
    """Returns what is above its limit."""
    counts = Counts(crates)
    wrong = [
        f"{word!r}: {counts.rate(word):.2f} in 1,000 words, more than {MOST}"
        for word in AVOIDED
        if counts.rate(word) > MOST
    ]
    kinds = ["no # Errors", "match on a bool", "one name for two types"]
    wrong += [line for line in findings(crates) if any(f": {kind}" in line for kind in kinds)]
    return wrong


def sentences(crates):
    for crate in crates:
        blocks, last = [], None
        for place, text in crate.comments():
            path, number = place.rsplit(":", 1)
            follows = last == (path, int(number) - 1)
            last = (path, int(number))
            if follows and blocks:
                blocks[-1][1] += " " + text
            else:
                blocks.append([place, text])
        for place, text in blocks:
            for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z`])", text):
                if len(sentence.split()) >= 5:
                    yield f"{place}: {sentence}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--sentences", nargs=2, type=int, metavar=("SEED", "N"))
    parser.add_argument("paths", nargs="*", metavar="ROOT or CRATE")
    args = parser.parse_args()
    root = Path(__file__).resolve().parents[2]
    if args.paths and (Path(args.paths[0]) / "Cargo.lock").exists():
        root = Path(args.paths.pop(0))
    crates = crates_of(root, args.paths)
    if args.sentences:
        seed, count = args.sentences
        print("\n".join(random.Random(seed).sample(sorted(sentences(crates)), count)))
    elif args.list:
        print("\n".join(findings(crates)))
    elif args.check:
        wrong = check(crates)
        print("\n".join(wrong))
        sys.exit(bool(wrong))
    else:
        print_table(crates)


if __name__ == "__main__":
    main()
