"""NeMo Curator's image pipeline on a CPU, for pipeline.py and start.py. Runs in the environment of peers/nemo.txt.

    python nemo.py SHARDS OUT MODELS --executor local|xenna|ray_data [--no-models]

`local` calls the stages' own `process` one after the other in this process. It prints a JSON object: the number of images
written, and for each stage when its first and last batch were done, in seconds since the start of this process.

As installed, nemo-curator 1.4.0 does not run on a machine without a GPU. The only changes are:

1. Its reader builds the DALI pipeline with `device_id=0`, which DALI refuses without CUDA. Here it is built with None.
2. transformers 4.57.6 (peers/nemo.txt): with the version that pip selects, CLIP's features are no longer a tensor.
3. Ray is configured with 8 CPUs: with two, the stages together require more, and the executors stop or hang.
   Xenna runs in batch mode, one stage after the other.
"""

import argparse
import json
import os
import sys
import tarfile
import tempfile
import time
from pathlib import Path

# The start of this process by the kernel's clock, so that imports count.
TICKS = os.sysconf("SC_CLK_TCK")
AGE = time.clock_gettime(time.CLOCK_BOOTTIME) - int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / TICKS
BEGAN = time.time() - AGE

# Its client starts `ray` by name.
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
os.environ.update(CUDA_VISIBLE_DEVICES="", RAY_USAGE_STATS_ENABLED="0", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")


def noted(stage, events, **settings):
    """Returns the stage with a record of its finished batches and their times, in any process."""

    class Noted(stage):
        def process(self, task):
            if stage.__name__ == "ImageReaderStage":
                without_device()
            done = super().process(task)
            tasks = done if isinstance(done, list) else [done]
            items = sum(getattr(task, "num_items", 0) for task in tasks)
            with open(events, "a") as file:
                file.write(json.dumps([stage.__name__, time.time() - BEGAN, items]) + "\n")
            return done

    Noted.__name__ = stage.__name__
    return Noted(**settings)


def without_device():
    import nvidia.dali as dali

    if not hasattr(dali, "as_installed"):
        dali.as_installed = dali.pipeline_def
        dali.pipeline_def = lambda **settings: dali.as_installed(**{**settings, "device_id": None})


def stages(args, events):
    from nemo_curator.stages.file_partitioning import FilePartitioningStage
    from nemo_curator.stages.image.embedders.clip_embedder import ImageEmbeddingStage
    from nemo_curator.stages.image.filters.aesthetic_filter import ImageAestheticFilterStage
    from nemo_curator.stages.image.filters.nsfw_filter import ImageNSFWFilterStage
    from nemo_curator.stages.image.io.image_reader import ImageReaderStage
    from nemo_curator.stages.image.io.image_writer import ImageWriterStage

    chosen = [
        noted(FilePartitioningStage, events, file_paths=args.shards, files_per_partition=1, file_extensions=[".tar"]),
        noted(ImageReaderStage, events, dali_batch_size=100, num_threads=args.threads, verbose=False),
    ]
    if not args.no_models:
        models = {"model_dir": args.models}
        chosen += [
            noted(ImageEmbeddingStage, events, **models),
            noted(ImageAestheticFilterStage, events, **models, score_threshold=-100),
            noted(ImageNSFWFilterStage, events, **models, score_threshold=2),
        ]
    writer = {"output_dir": args.out, "images_per_tar": 1000, "remove_image_data": True}
    return [*chosen, noted(ImageWriterStage, events, **writer)]


def run_here(chosen):
    from nemo_curator.tasks import EmptyTask

    for stage in chosen:
        stage.setup()
    tasks = [EmptyTask()]
    for stage in chosen:
        results = [stage.process(task) for task in tasks]
        tasks = [task for result in results for task in (result if isinstance(result, list) else [result])]


def run_in_ray(chosen, executor):
    from nemo_curator.core.client import RayClient
    from nemo_curator.pipeline import Pipeline

    client = RayClient(num_cpus=8, include_dashboard=False, ray_temp_dir=tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    client.start()
    if executor == "ray_data":
        from nemo_curator.backends.ray_data import RayDataExecutor as Executor

        executor = Executor()
    else:
        from nemo_curator.backends.xenna import XennaExecutor

        executor = XennaExecutor(config={"execution_mode": "batch"})
    pipeline = Pipeline(name="image_curation")
    for stage in chosen:
        pipeline.add_stage(stage)
    pipeline.run(executor)
    client.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("shards")
    parser.add_argument("out")
    parser.add_argument("models")
    parser.add_argument("--executor", choices=["local", "xenna", "ray_data"], default="local")
    parser.add_argument("--no-models", action="store_true")
    parser.add_argument("--threads", type=int, default=2, help="of DALI's reader")
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True)
    events = f"{args.out}.events"
    Path(events).touch()
    chosen = stages(args, events)
    if args.executor == "local":
        run_here(chosen)
    else:
        run_in_ray(chosen, args.executor)
    first, last = {}, {}
    for line in Path(events).read_text().splitlines():
        stage, at, _ = json.loads(line)
        first[stage], last[stage] = min(at, first.get(stage, at)), at
    written = 0
    for shard in out.rglob("*.tar"):
        with tarfile.open(shard) as tar:
            written += len(tar.getnames())
    print(json.dumps({"images": written, "first": first, "last": last}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
