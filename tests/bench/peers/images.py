"""Common Python stacks for JPEGs, most of them to CLIP's 3x224x224 floats: `images.py STACK THREADS SHARD...`.

Prints a JSON line, so that neither the start nor reading the files counts. Two threads are two forked workers for stacks
that process one picture at a time (without locks between them, their best case), and DALI's own threads for DALI.
"""

import io
import json
import os
import resource
import sys
import tarfile
import time

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def main():
    stack, threads, shards = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    if stack.startswith("dali"):
        work = dali(shards, threads, stack)
        work()
    else:
        files = [content for shard in shards for content in members(shard)]
        function = STACKS[stack]()
        for content in files[:20]:
            function(content)
        work = lambda: forked(function, files, threads)
    before, started = cpu(), time.perf_counter()
    images = work()
    print(json.dumps({"images": images, "seconds": time.perf_counter() - started, "cpu": cpu() - before}))


def cpu():
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def members(shard):
    with tarfile.open(shard) as tar:
        return [tar.extractfile(member).read() for member in tar if member.name.endswith(".jpg")]


def forked(function, files, workers):
    pids = []
    for worker in range(workers):
        pid = os.fork() if workers > 1 else 0
        if pid:
            pids.append(pid)
            continue
        for content in files[worker::workers]:
            function(content)
        if workers > 1:
            os._exit(0)
    for pid in pids:
        if os.waitpid(pid, 0)[1]:
            sys.exit("a worker failed")
    return len(files)


def processor(kind):
    import torch
    import transformers

    torch.set_num_threads(1)
    return getattr(transformers, kind)(
        size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}, resample=3, image_mean=MEAN, image_std=STD
    )


def hugging_face(kind):
    from PIL import Image

    process = processor(kind)
    return lambda content: process(images=[Image.open(io.BytesIO(content)).convert("RGB")], return_tensors="pt")


def torchvision():
    import torch
    from torchvision import transforms as t
    from torchvision.io import ImageReadMode, decode_jpeg

    torch.set_num_threads(1)
    process = t.Compose(
        [
            t.Resize(224, t.InterpolationMode.BICUBIC, antialias=True),
            t.CenterCrop(224),
            t.ConvertImageDtype(torch.float32),
            t.Normalize(MEAN, STD),
        ]
    )
    return lambda content: process(decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB))


def opencv():
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    factor = (1 / (255 * np.array(STD, np.float32))).reshape(3, 1, 1)
    offset = (np.array(MEAN, np.float32) / np.array(STD, np.float32)).reshape(3, 1, 1)

    def process(content):
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        height, width = picture.shape[:2]
        scale = 224 / min(height, width)
        size = max(224, round(width * scale)), max(224, round(height * scale))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        top, left = (size[1] - 224) // 2, (size[0] - 224) // 2
        picture = picture[top : top + 224, left : left + 224, ::-1]
        return picture.transpose(2, 0, 1).astype(np.float32) * factor - offset

    return process


def imagededup():
    import numpy as np
    from imagededup.methods import PHash
    from PIL import Image

    method = PHash(verbose=False)
    return lambda content: method.encode_image(image_array=np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))


def dali(shards, threads, stack):
    import warnings

    warnings.filterwarnings("ignore")
    from nvidia.dali import fn, pipeline_def, types

    # Photos of 20 megapixels fill 60 MB each.
    batch = 100 if os.path.getsize(shards[0]) < 30 << 20 else 4

    @pipeline_def(batch_size=batch, num_threads=threads, device_id=None)
    def decoded():
        raw = fn.readers.webdataset(paths=shards, ext=["jpg"], missing_component_behavior="skip")
        return fn.decoders.image(raw, device="cpu", output_type=types.RGB)

    pipeline = decoded()
    pipeline.build()
    process = None
    if stack == "dali-hf-fast":
        import torch

        process = processor("CLIPImageProcessor")
        torch.set_num_threads(threads)

    def epoch():
        total, done = next(iter(pipeline.epoch_size().values())), 0
        while done < total:
            found = pipeline.run()[0]
            pictures = [found.at(index) for index in range(min(len(found), total - done))]
            for start in range(0, len(pictures), 32) if process else ():
                process(images=pictures[start : start + 32], return_tensors="pt")
            done += len(pictures)
        return done

    return epoch


STACKS = {
    "pil-hf-slow": lambda: hugging_face("CLIPImageProcessorPil"),
    "pil-hf-fast": lambda: hugging_face("CLIPImageProcessor"),
    "torchvision": torchvision,
    "opencv-area": opencv,
    "imagededup-phash": imagededup,
}

main()
