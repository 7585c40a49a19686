"""Exports models as users do, runs them with Sluice and with their own libraries, and writes the differences.

    python3 tests/models/table.py [--pictures FOLDER] [--work FOLDER] [--only TEXT] [--references] [--python PYTHON]

Creates a virtual environment in --work (default: .cache/model-table) with the libraries of requirements.txt, builds the
example `feed` of shared/model, exports each model with random weights, and writes the table "Exports" of
shared/model/README.md. With --references it also writes the references of shared/model/tests. --python is a Python that
already has the libraries. --pictures is a folder of image files (default: the kit's, next to the repository).
"""

import argparse
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PICTURES = ROOT.parent / "shared/fixtures/clip-reference/images"
README = ROOT / "shared/model/README.md"
BEGIN, END = "<!-- tests/models/table.py writes what follows -->", "<!-- up to here -->"
JUDGED = "<!-- tests/models/table.py writes the verdicts -->"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pictures", type=Path, default=PICTURES)
    arguments.add_argument("--work", type=Path, default=ROOT / ".cache/model-table")
    arguments.add_argument("--only", default="")
    arguments.add_argument("--references", action="store_true")
    arguments.add_argument("--python", type=Path)
    arguments.add_argument("--feed", type=Path, help="the example, if it is already built")
    options = arguments.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if not os.environ.get("SLUICE_MODEL_TABLE"):
        python = options.python or environment(options.work / "venv")
        inside = os.environ | {"SLUICE_MODEL_TABLE": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
        sys.exit(subprocess.call([str(python), __file__, *sys.argv[1:]], env=inside))
    if options.references:
        import references

        references.main(ROOT / "shared/model/tests/references")
    rows = list(compare(options))
    if not options.only:
        write(rows)
    failed = [row for row in rows if not row["fits"]]
    for row in failed:
        print(f"does not fit: {row}", file=sys.stderr)
    sys.exit(1 if failed else 0)


def environment(folder):
    python = folder / "bin/python"
    if not python.exists():
        subprocess.check_call([sys.executable, "-m", "venv", str(folder)])
    subprocess.check_call([str(python), "-m", "pip", "install", "--quiet", "--requirement", str(HERE / "requirements.txt")])
    return python


def rows_of():
    """Yields the name of the export, the layout as text, the role, the layout, and whether it is refused."""
    import cases
    import layouts as L

    for name, (config, _, task) in cases.TRANSFORMERS.items():
        is_classifier = task == "image-classification"
        yield name, "torch.onnx" if task == "image_embeds" else "optimum", "scorer" if is_classifier else "embedder", None, name in ("ViT, LABEL_0 and LABEL_1", "BEiT")
    for name, (_, _, labels) in cases.TIMMS.items():
        yield name, "torch.onnx", "scorer" if labels else "embedder", None, False
    for name in cases.OPEN_CLIPS:
        yield name, "torch.onnx", "embedder", None, False

    clip, vit, falconsai = "CLIP, image encoder", "ViT", "ViT, normal and nsfw (Falconsai)"
    mean = cases.ALL["clip"]
    for words, layout in {
        "`onnx/model.onnx`": L.hub,
        "`onnx/vision_model.onnx` beside `text_model.onnx`": L.vision,
        "a file, its specs above it": L.named_file,
        "external data of any name": L.external,
        "`processor_config.json`": L.nested_processor,
        "float16 input": L.edit(L.half),
        "float16 input and outputs": L.edit(L.half_out),
        "uint8 input": L.edit(L.uint8(mean)),
        "NHWC": L.edit(L.nhwc),
        "batches of 1": L.edit(L.rows(1)),
        "batches of 4": L.edit(L.rows(4)),
        "an unknown key": partial(L.states, do_blur=True),
        "`do_pad`": partial(L.states, do_pad=True),
        "an unknown processor": partial(L.states, image_processor_type="DPTImageProcessor"),
        "no crop": partial(L.states, do_center_crop=False),
        "an input of one channel less": L.edit(lambda graph: setattr(L.pixels(graph).type.tensor_type.shape.dim[1], "dim_value", 1)),
    }.items():
        refused = ("an unknown key", "`do_pad`", "an unknown processor", "no crop", "an input of one channel less")
        yield clip, words, "embedder", layout, words in refused
    yield vit, "the class by `config.json` alone", "embedder", L.untyped, False
    yield falconsai, "as an embedder", "embedder", None, True
    yield vit, "as a scorer", "scorer", None, True
    yield "timm EfficientNet", "`[N, C, 1, 1]`", "embedder", L.edit(L.square_out), False
    yield "timm EfficientNet", "`crop_mode = border`", "embedder", partial(L.timm_states, crop_mode="border"), True
    yield "open_clip ViT", "`resize_mode = longest`", "embedder", partial(L.open_clip_states, resize_mode="longest"), True


def compare(options):
    import cases
    import layouts

    feed = options.feed or built()
    pictures = sorted(path for path in options.pictures.iterdir() if path.is_file())
    exported = {}
    for name, words, role, layout, is_refused in rows_of():
        if options.only not in f"{name}: {words}":
            continue
        folder = options.work / "models" / name.replace(" ", "-").replace(",", "")
        if name not in exported:
            exported[name] = cases.make(name, folder)
        model = layouts.copied(folder, options.work / "layout" / folder.name)
        if layout:
            model = layout(model)
        found = one(feed, role, model, pictures, exported[name], options.work)
        row = {"model": name, "layout": words, "role": role, **found}
        row["fits"] = fits(row, is_refused)
        print(json.dumps(row), flush=True)
        yield row


def built():
    subprocess.check_call(["cargo", "build", "--release", "--package", "sluice-model", "--example", "feed"], cwd=ROOT)
    return ROOT / "target/release/examples/feed"


def fits(row, is_refused):
    if is_refused or "refused" in row:
        return is_refused and "refused" in row
    return row["pixels"] < 0.01 and row["cosine"] >= 0.9999 and not row.get("other_verdicts")


def one(feed, role, model, pictures, network, work):
    """Compares Sluice on the pictures with the library's processor and network."""
    import numpy as np

    import libraries

    out = work / "feed"
    command = [str(feed), role, str(model), str(out), *map(str, pictures)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return {"refused": done.stderr.strip().replace(str(work), "…")}
    said = json.loads(done.stdout)
    ours = np.fromfile(f"{out}.input", "<f4").reshape(said["shape"])
    if said["spec"]["preprocess"]["layout"] == "nhwc":
        ours = ours.transpose(0, 3, 1, 2)
    folder = model.parent.parent if model.suffix == ".onnx" else model
    theirs = libraries.tensors(folder, [upright(path) for path in pictures])
    preprocess = said["spec"]["preprocess"]
    if preprocess["std"] == [1.0] * 3 and preprocess["rescale"] == 1.0 and theirs.min() < 0:
        pixels = abs(ours - back(theirs, folder))
    else:
        pixels = abs(ours - theirs) * np.reshape(preprocess["std"], (3, 1, 1)) / preprocess["rescale"]
    expected = output(network, theirs, said["spec"])
    found = np.fromfile(f"{out}.output", "<f4").reshape(len(pictures), -1)
    if said["spec"]["kind"] == "classifier":
        import verdicts

        judged = verdicts.compare(network, folder, [upright(path) for path in pictures], said["spec"], found)
        return {"pixels": float(pixels.max()), "cosine": 1 - float(abs(found - expected).max()), **judged}
    products = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    return {"pixels": float(pixels.max()), "cosine": float(products.min())}


def back(tensors, folder):
    """Returns the bytes that the library's values represent."""
    import numpy as np

    config = json.loads((folder / "preprocessor_config.json").read_text())
    mean, std = (np.reshape(config[key], (3, 1, 1)) for key in ("image_mean", "image_std"))
    return (tensors * std + mean) * 255


def upright(path):
    """Returns the picture as Sluice decodes it: upright, alpha over white, RGB."""
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.mode.startswith("I;16") or picture.mode == "I":
        raise SystemExit(f"{path}: 16 bits a channel, which Pillow does not convert")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def output(network, tensors, spec):
    """Returns embeddings or scores of the network itself."""
    import numpy as np
    import torch

    with torch.no_grad():
        inputs = torch.from_numpy(np.ascontiguousarray(tensors))
        name = type(network).__name__
        if name in ("CLIPModel", "SiglipModel"):
            found = network.get_image_features(pixel_values=inputs)
        else:
            found = network(inputs)
    if spec["kind"] == "classifier":
        logits = getattr(found, "logits", found)
        return scores(torch.softmax(logits, -1).numpy(), spec)
    for key in ("image_embeds", "pooler_output"):
        value = getattr(found, key, None)
        if value is not None and spec.get("pooling") is None:
            return value.flatten(1).numpy()
    value = getattr(found, "last_hidden_state", found)
    if spec.get("pooling") == "cls" and value.dim() == 3:
        value = value[:, 0]
    elif value.dim() == 3:
        value = value.mean(1)
    elif value.dim() == 4:
        value = value.mean((2, 3))
    return value.numpy()


def scores(probabilities, spec):
    import numpy as np

    labels = spec["labels"]
    columns = [score["column"] for score in spec.get("scores") or [spec["score"]]]
    added = [[labels.index(label) for label in ([column] if isinstance(column, str) else column)] for column in columns]
    return np.stack([probabilities[:, column].sum(1) for column in added], axis=1)


def write(rows):
    lines = ["| model | layout | as | largest pixel difference | smallest cosine |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        if "refused" in row:
            end = f"refused: {message(row['refused'])} | |"
        else:
            end = f"{row['pixels']:.3f} | {row['cosine']:.6f} |"
        lines.append(f"| {row['model']} | {row['layout']} | {row['role']} | {end}")
    put(BEGIN, lines)
    judged = ["| classifier | its lines | rule | pictures kept | other verdicts | largest difference |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        if row.get("rule"):
            cells = [row["model"], row["lines"], row["rule"], row["kept"], row["other_verdicts"], f"{row['difference']:.0e}"]
            judged.append(f"| {' | '.join(map(str, cells))} |")
    put(JUDGED, judged)


def put(begin, lines):
    """Writes a table between its marks."""
    before, rest = README.read_text().split(begin)
    README.write_text(before + begin + "\n\n" + "\n".join(lines) + "\n\n" + END + rest.split(END, 1)[1])


def message(text):
    """Returns the first sentence of an error, without the file's path."""
    return text.splitlines()[0].split("…", 1)[-1].split(": ", 1)[-1].replace("|", "\\|")


if __name__ == "__main__":
    main()
