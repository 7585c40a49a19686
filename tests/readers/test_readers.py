"""Opens curated datasets with common libraries, by the code of their dataset cards.

Usage: test_readers.py [unittest's options]. `SLUICE` is the program. Needs no network.
"""

import io
import json
import os
import pathlib
import re
import subprocess
import tarfile
import tempfile
import unittest

SLUICE = pathlib.Path(os.environ["SLUICE"]).absolute()
CACHE = tempfile.TemporaryDirectory()
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": CACHE.name, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}

import datasets  # noqa: E402
import mlcroissant  # noqa: E402
import pyarrow.parquet  # noqa: E402
from PIL import Image  # noqa: E402

PIPELINE = """
[[steps]]
stage = "read"

[[steps]]
stage = "export"
output = "${output}"
"""

FORMATS = ["jpg", "png", "webp", "bmp", "gif"]


def picture(number, extension):
    image = Image.effect_noise((16 + number % 100, 16), 90).convert("RGB")
    image.putpixel((0, 0), (number, 0, 0))
    data = io.BytesIO()
    image.save(data, {"jpg": "JPEG"}.get(extension, extension.upper()))
    return data.getvalue()


def members(number, extensions):
    """Returns a sample. The image formats alternate, and only some samples have text or metadata."""
    extension = extensions[number % len(extensions)]
    yield extension, picture(number, extension)
    if number % 2:
        yield "txt", f"caption {number}".encode()
    if number % 3 == 0:
        yield "json", json.dumps({"n": number} if number else ["of", 2, "types"]).encode()


class Dataset:
    """An input of some samples, and its curated dataset."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.out = self.folder / "out"

    def fill(self, numbers, extensions):
        source = self.folder / "in"
        source.mkdir(exist_ok=True)
        with tarfile.open(source / "a.tar", "w") as tar:
            for number in numbers:
                for extension, data in members(number, extensions):
                    member = tarfile.TarInfo(f"{number:05}.{extension}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))

    def curate(self, run="run", flags=""):
        pipeline = self.folder / "pipeline.toml"
        pipeline.write_text(PIPELINE + flags)
        line = [SLUICE, "run", "--pipeline", pipeline, "--input", "in", "--output", "out", "--run", run, "--overwrite"]
        subprocess.run(line, cwd=self.folder, check=True, capture_output=True, text=True)

    def card(self):
        return (self.out / "README.md").read_text()

    def blocks(self):
        """Returns the card's Python blocks, by the library that they import last."""
        blocks = re.findall(r"```python\n(.*?)```", self.card(), re.DOTALL)
        return {re.findall(r"(?:from|import) (\w+)", block)[-2 if "from datasets" in block else -1]: block for block in blocks}

    def run(self, block, folder=None):
        """Runs a block in the dataset's folder, or in another one; returns its variables."""
        here, variables = os.getcwd(), {}
        os.chdir(folder or self.out)
        try:
            exec(block, variables)  # noqa: S102
        finally:
            os.chdir(here)
        return variables

    def load(self, **options):
        return datasets.load_dataset(str(self.out), split="train", **options)


class Readers(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dataset = Dataset(folder.name)

    def curated(self, flags="images-per-shard = 7\n"):
        self.dataset.fill(range(20), FORMATS)
        self.dataset.curate(flags=flags)
        return self.dataset

    def test_every_block_of_the_card_runs(self):
        dataset = self.curated()
        blocks = dataset.blocks()
        self.assertEqual(sorted(blocks), ["datasets", "duckdb", "mlcroissant", "polars", "pyarrow", "webdataset"])
        found = {library: dataset.run(block) for library, block in blocks.items()}
        self.assertEqual(len(found["datasets"]["dataset"]), 20)
        self.assertEqual(len(list(found["datasets"]["stream"])), 20)
        self.assertEqual(len(found["datasets"]["tables"]), 20)
        self.assertEqual(found["pyarrow"]["table"].num_rows, 7)

    def test_the_lines_of_the_readme_run(self):
        dataset = self.curated()
        readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
        block = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "load_dataset" in block)
        self.assertEqual(len(dataset.run(block, dataset.folder)["dataset"]), 20)

    def test_formats_that_differ_within_the_first_samples_load(self):
        dataset = self.curated()
        for stream in [False, True]:
            rows = list(dataset.load(streaming=stream))
            self.assertEqual(len(rows), 20)
            for number, row in enumerate(rows):
                extension = FORMATS[number % len(FORMATS)]
                self.assertEqual(row[extension].size, (16 + number, 16))
                self.assertEqual([name for name in FORMATS if row[name]], [extension])
                self.assertEqual(row["txt"], f"caption {number}" if number % 2 else None)
                self.assertEqual(row["json"], (({"n": number} if number else ["of", 2, "types"]) if number % 3 == 0 else None))

    def test_every_configuration_loads(self):
        for flags in ["", 'format = "parquet"\n']:
            dataset = self.curated(flags)
            names = datasets.get_dataset_config_names(str(dataset.out))
            self.assertEqual([len(dataset.load(name=name)) for name in names], [20])

    def test_a_second_curation_is_not_served_from_the_cache(self):
        dataset = self.dataset
        for first in [0, 100]:
            # Bitmaps: as many bytes, other pixels.
            dataset.fill(range(first, first + 3), ["bmp"])
            dataset.curate(run=f"run-{first}")
            self.assertEqual(dataset.load()[0]["bmp"].getpixel((0, 0))[0], first)

    def test_parquet_holds_pictures(self):
        dataset = self.curated('format = "parquet"\nimages-per-shard = 7\n')
        blocks = dataset.blocks()
        self.assertEqual(sorted(blocks), ["datasets", "duckdb", "mlcroissant", "polars", "pyarrow"])
        found = {library: dataset.run(block) for library, block in blocks.items()}
        for rows in [found["datasets"]["dataset"], list(found["datasets"]["stream"])]:
            self.assertEqual([row["image"].size for row in rows], [(16 + number, 16) for number in range(20)])
        schema = pyarrow.parquet.read_schema(dataset.out / "shard-00000.parquet")
        self.assertEqual(schema.names[0], "image")
        record = next(iter(mlcroissant.Dataset(dataset.out / "croissant.json").records("samples")))
        self.assertEqual(record["samples/image"].size, (16, 16))

    def test_splits_load(self):
        for flags in ["", 'format = "parquet"\n']:
            dataset = self.curated(flags + 'split = { train = 0.6, val = 0.4 }\nimages-per-shard = 3\n')
            loaded = datasets.load_dataset(str(dataset.out))
            self.assertEqual(sorted(loaded), ["train", "val"])
            self.assertEqual(sum(map(len, loaded.values())), 20)
            streamed = datasets.load_dataset(str(dataset.out), streaming=True)
            self.assertEqual({name: len(list(split)) for name, split in streamed.items()}, {name: len(split) for name, split in loaded.items()})
            for block in dataset.blocks().values():
                dataset.run(block)
            self.assertEqual(len(list(mlcroissant.Dataset(dataset.out / "croissant.json").records("samples"))), 20)

    def test_croissant_is_valid(self):
        dataset = self.curated('license = "cc-by-4.0"\n')
        described = mlcroissant.Dataset(dataset.out / "croissant.json")
        self.assertEqual(list(described.metadata.conforms_to), ["http://mlcommons.org/croissant/1.1"])
        self.assertEqual(described.metadata.license, ["cc-by-4.0"])
        self.assertEqual(len(described.metadata.ctx.issues.errors), 0)
        self.assertEqual(len(list(described.records("samples"))), 20)


if __name__ == "__main__":
    unittest.main()
