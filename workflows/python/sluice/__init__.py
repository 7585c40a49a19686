"""Reads the runs of Sluice as Arrow tables.

    import sluice
    run = sluice.run("out.run")
    scores = run.scores("aesthetic")        # a pyarrow.Table: image_id, score
    kept = run.decisions()                  # what was kept, and why the rest was not

A place is a path or a URI that Arrow's file systems know (`s3://`, `gs://`, `file://`). Needs pyarrow:
`pip install 'sluice-curate[arrow]'`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.dataset
    import pyarrow.fs

__all__ = ["Run", "run"]


def run(place: str | Path) -> Run:
    """Returns the run at a place.

    :param place: what was given as `--run`
    :raises FileNotFoundError: there is no run
    """
    return Run(place)


class Run:
    """A run: what each step wrote, partition by partition."""

    def __init__(self, place: str | Path) -> None:
        from pyarrow import fs

        text = str(place)
        if "://" in text:
            self._fs, self._root = fs.FileSystem.from_uri(text.rstrip("/"))
        else:
            self._fs, self._root = fs.LocalFileSystem(), str(Path(text).absolute())
        info = f"{self._root}/run.json"
        if self._fs.get_file_info(info).type == fs.FileType.NotFound:
            raise FileNotFoundError(f"{place}: no run (it has no run.json)")
        self.info: dict[str, Any] = self._json(info)
        """The content of `run.json`."""

    def steps(self) -> list[str]:
        """Returns the names of the steps that have receipts, sorted."""
        return sorted({path.split("/")[0] for path in self._paths("") if "/receipts/" in path})

    def receipts(self, step: str) -> list[dict[str, Any]]:
        """Returns the receipts of a step, sorted by the names of their units."""
        paths = [path for path in self._paths(f"{step}/receipts") if path.endswith(".json")]
        return [self._json(f"{self._root}/{path}") for path in sorted(paths)]

    def manifests(self, step: str, kind: str) -> pyarrow.dataset.Dataset:
        """Returns what a step wrote, as a dataset that is read when it is asked for: `read/images`, `embed/embeddings`, …

        :raises FileNotFoundError: the step wrote nothing of this kind
        """
        from pyarrow import dataset

        paths = sorted(path for path in self._paths(f"{step}/{kind}") if path.endswith(".parquet"))
        if not paths:
            raise FileNotFoundError(f"{self._root}: step {step} wrote no {kind}")
        return dataset.dataset([f"{self._root}/{path}" for path in paths], filesystem=self._fs, format="parquet")

    def images(self, columns: list[str] | None = None) -> pyarrow.Table:
        """Returns a row for each sample: what `read` found."""
        return self.manifests("read", "images").to_table(columns=columns)

    def scores(self, step: str) -> pyarrow.Table:
        """Returns the scores of a step: `image_id`, and a column for each score of its model."""
        return self.manifests(step, "scores").to_table()

    def embeddings(self, step: str = "embed") -> pyarrow.dataset.Dataset:
        """Returns the embeddings of a step, as a dataset: they may be larger than memory."""
        return self.manifests(step, "embeddings")

    def decisions(self, step: str = "export") -> pyarrow.Table:
        """Returns the decisions of a step. Those of `export` join all steps: kept or not, and the reason."""
        return self.manifests(step, "decisions").to_table()

    def duplicates(self, step: str = "dedup") -> pyarrow.Table:
        """Returns the duplicates that a step found, each with the image that stays in its place."""
        return self.manifests(step, "duplicates").to_table()

    def _json(self, path: str) -> dict[str, Any]:
        with self._fs.open_input_file(path) as file:
            content: dict[str, Any] = json.loads(file.read())
        return content

    def _paths(self, below: str) -> list[str]:
        """Returns the paths of the objects below a folder of the run, relative to the run."""
        from pyarrow import fs

        folder = f"{self._root}/{below}".rstrip("/")
        found = self._fs.get_file_info(fs.FileSelector(folder, allow_not_found=True, recursive=True))
        return [info.path.removeprefix(f"{self._root}/") for info in found if info.type == fs.FileType.File]
