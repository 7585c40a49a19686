"""The cases of fixtures/field-cases, each with the desired outcome.

    SLUICE_BIN=… SLUICE_MODELS=… python3 field_cases.py FOLDER CASE

FOLDER contains the cases' `common.py`. The files of a case are written next to this script, which is copied to a
temporary folder. A failed case raises an exception.
"""
import sys

sys.path.insert(0, sys.argv[1])
from common import *
from PIL import ImageDraw


def names(out="out"):
    tars = sorted(glob.glob(f"{HERE}/{out}/*.tar"))
    return [name for path in tars for name in tarfile.open(path).getnames()]


def dropped(p):
    return {s["step"]: s["dropped"] for s in p.json["funnel"]["steps"] if s["dropped"]}


def curate(*args, **kw):
    return run("--min-aesthetic", "0", *args, **kw)


def expect(p, code, *words):
    text = p.stdout + p.stderr
    assert p.returncode == code, (p.returncode, text)
    for word in words:
        assert word in text, (word, text)


def brackets():
    for folder in ("[data] v1", "set{1}", "what?"):
        tar(f"{HERE}/{folder}/x.tar", [("a.jpg", jpg(1))])
        for name in (folder, folder + "/x.tar", folder + "/*.tar"):
            expect(sluice("sluice-partition", "--input", name, "--run", "out.run"), 0)
            clean("out.run")


def caption_lost_with_duplicate():
    tar(f"{HERE}/in/a.tar", [("0.jpg", jpg(1))])
    tar(f"{HERE}/in/b.tar", [("0.jpg", jpg(1)), ("0.txt", b"a caption"), ("0.json", b"{}")])
    expect(curate(), 0)
    assert names() == ["b/0.jpg", "b/0.txt", "b/0.json"], names()


def dot_prefix():
    tar(f"{HERE}/in/a.tar", [("./0.jpg", jpg(1)), ("./0.txt", b"c")])
    expect(curate(), 0)
    assert names() == ["a/0.jpg", "a/0.txt"], names()


def empty_variables():
    tar(f"{HERE}/in/a.tar", [("a.jpg", jpg(1))])
    sluice("sluice-partition", "--input", "in", "--run", "out.run")
    for variable in ("SLUICE_MIN_SIDE", "SLUICE_JOBS", "SLUICE_PARTITIONS", "SLUICE_IMAGES"):
        expect(sluice("sluice-read", "--run", "out.run", env={variable: ""}), 0)


def hidden_files():
    tar(f"{HERE}/in/good.tar", [("x.jpg", jpg(1))])
    os.makedirs(f"{HERE}/in/.ipynb_checkpoints")
    shutil.copy(f"{HERE}/in/good.tar", f"{HERE}/in/.ipynb_checkpoints/good-checkpoint.tar")
    with open(f"{HERE}/in/._good.tar", "wb") as f:
        f.write(b"\0\5\x16\7\0\2\0\0Mac OS X        " + b"\0" * 200)
    p = curate()
    expect(p, 0, "hidden files")
    assert names() == ["good/x.jpg"], names()


def late_validation():
    tar(f"{HERE}/in/a.tar", [("0.jpg", jpg(0))])
    open(f"{HERE}/file", "w").close()
    models = list(MODELS)
    for args, kw, word in (
        ([], {"eps": "3"}, "eps"),
        (["--nsfw", "nosuchmodel"], {}, "nosuchmodel"),
        ([], {"out": "file"}, "not a folder"),
        (["--run", "out.run"], {"out": "/proc/nope/out"}, "/proc/nope/out"),
        (["--bytes-per-shard", "10"], {}, "bytes-per-shard"),
    ):
        MODELS[:] = models[:4] if "--nsfw" in args else models
        p = curate(*args, **kw)
        expect(p, 2, word)
        assert not p.json.get("steps"), p.json
    MODELS[:] = models


def nonfinite_thresholds():
    tar(f"{HERE}/in/a.tar", [("0.jpg", jpg(0))])
    for flag in ("--max-nsfw", "--min-aesthetic", "--max-aspect"):
        expect(run(f"{flag}=NaN"), 2, "NaN")
    for value in ("inf", "-inf"):
        p = run(f"--max-nsfw={value}")
        assert p.returncode in (0, 2), p.stderr
        assert p.returncode == 0 or value in p.error, p.error
    assert not os.path.exists(f"{HERE}/out"), "a refused command decides nothing"


def output_used_twice():
    tar(f"{HERE}/in/a.tar", [(f"{i}.jpg", jpg(i)) for i in range(3)])
    tar(f"{HERE}/in2/b.tar", [("0.jpg", jpg(50))])
    expect(curate("--images-per-shard", "1", "--run", "a.run"), 0)
    expect(curate("--images-per-shard", "1", "--run", "b.run", inp="in2"), 2, "is the output of the run")
    with open(f"{HERE}/out/index.json") as f:
        index = json.load(f)["shardlist"]
    assert len(names()) == sum(s["nsamples"] for s in index) == 3
    assert verify("a.run") == 0
    expect(curate("--overwrite", "--run", "b.run", inp="in2"), 0)
    assert names() == ["b/0.jpg"] and verify("b.run") == 0, names()


def range_gaps():
    for i in (0, 1, 3):
        tar(f"{HERE}/in/{i:05d}.tar", [("a.jpg", jpg(i))])
    for pattern in ("in/{00000..00003}.tar", "in/{00000..00099}.tar", "in/00002.tar"):
        p = sluice("sluice-partition", "--input", pattern, "--run", "out.run")
        expect(p, 3, "00002.tar")


def second_image():
    good, other = jpg(1), jpg(2)
    members = [("a.1.jpg", good), ("a.2.jpg", other), ("b.1.jpg", jpg(3)), ("b.2.jpg", b"\xff\xd8 broken")]
    members += [("c.1.jpg", jpg(4)), ("c.2.jpg", good)]
    tar(f"{HERE}/in/s.tar", members)
    p = curate()
    expect(p, 0, "3 samples have several images")
    p = curate("--images", "all", out="all")
    expect(p, 0)
    assert dropped(p) == {"read": 1} and "s/b.1.jpg" not in names("all"), (dropped(p), names("all"))
    p = curate("--images", "each", out="each")
    expect(p, 0)
    assert p.json["funnel"]["in"] == 6 and dropped(p)["read"] == 1, p.json["funnel"]
    assert names("each") == ["s/a%2E1.jpg", "s/a%2E2.jpg", "s/b%2E1.jpg", "s/c%2E1.jpg"], names("each")
    assert verify("each.run") == 0


def unreadable_folder():
    tar(f"{HERE}/in/a.tar", [("a.jpg", jpg(1))])
    os.mkdir(f"{HERE}/in/lost+found", 0o700)
    os.chmod(HERE, 0o777)
    person = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
    if not person:
        os.chmod(f"{HERE}/in/lost+found", 0)

    def nobody(*args):
        env = dict(ENV, HOME="/nonexistent")
        p = subprocess.run([*person, f"{BIN}/sluice", *args], capture_output=True, text=True, env=env, cwd=HERE)
        p.json = {}
        return p

    args = ["run", "--input", "in", "--output", "out", *MODELS, "--min-aesthetic", "0"]
    expect(nobody(*args), 0, "lost+found")
    os.mkdir(f"{HERE}/used")
    os.chmod(f"{HERE}/used", 0o777)
    os.mkdir(f"{HERE}/used/lost+found", 0o700)
    args[args.index("out")] = "used"
    expect(nobody(*args), 0)
    expect(nobody("verify", "--run", "used.run"), 0)


def unreadable_shards():
    os.makedirs(f"{HERE}/in")
    for i in range(2):
        with open(f"{HERE}/in/{i:05d}.tar", "w") as f:
            f.write(f"version https://git-lfs.github.com/spec/v1\noid sha256:{i:064x}\nsize 1073741824\n")
    expect(run(), 3, "Git LFS pointer")
    assert verify() != 0
    for value, code in (("0", 3), ("NaN", 2)):
        expect(sluice("sluice-read", "--run", "out.run", "--max-bad-fraction", value, "--force"), code)


def verify_partial_run():
    tar(f"{HERE}/in/a.tar", [("a.jpg", jpg(1)), ("b.jpg", jpg(1)), ("c.jpg", jpg(2))])
    for step in (
        "partition --input in",
        "read",
        "dedup exact --step exact --methods exact",
        "export decide --survivors-of exact",
        "export plan --survivors-of exact --output out",
        "export write",
        "export index",
    ):
        name, *args = step.split()
        expect(sluice("sluice-" + name, *args, "--run", "out.run"), 0)
    expect(sluice("sluice", "verify", "--run", "out.run"), 0, "sound")


def white_on_transparent():
    members = []
    for seed in range(8):
        r = np.random.default_rng(seed)
        image = Image.new("RGBA", (256, 256), (255, 255, 255, 0))
        draw = ImageDraw.Draw(image)
        for _ in range(5):
            x, y, w = map(int, r.integers(20, 200, 3))
            box = [x - w // 2, y - w // 3, x + w // 2, y + w // 3]
            draw.ellipse(box, outline=(255, 255, 255, 255), width=9)
        members.append((f"{seed}.png", enc(image, "PNG")))
    tar(f"{HERE}/in/a.tar", members)
    for eps in ("0.01", "0"):
        p = curate(eps=eps, out=f"out{eps}")
        expect(p, 0)
        assert p.json["funnel"]["kept"] == 8, dropped(p)


globals()[sys.argv[2].replace("-", "_")]()
