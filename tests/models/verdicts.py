"""Compares the decisions of classifiers with their authors' documented code."""

import numpy as np


def compare(network, folder, pictures, spec, found):
    """Returns the number of pictures with another decision, or nothing for models with several scores."""
    score = spec.get("score")
    if score is None or score.get("threshold") is None:
        return {}
    # In a picture with one or three rows, transformers mistakes the rows for channels.
    clear = [at for at, picture in enumerate(pictures) if picture.height not in (1, 3)]
    pictures, found = [pictures[at] for at in clear], found[clear]
    lines, answers = documented(network, folder, pictures, spec["labels"])
    column = score["column"] if isinstance(score["column"], list) else [score["column"]]
    theirs = np.array([sum(answer[label] for label in column) for answer in answers])
    ours = found[:, 0]
    # Random weights may put all pictures on one side of the threshold, but never on one side of the median.
    median = float(np.median(theirs))
    verdicts = [(side(ours, limit, score), side(theirs, limit, score)) for limit in (score["threshold"], median)]
    near = [np.abs(theirs - limit) < 1e-6 for limit in (score["threshold"], median)]
    other = sum(int(((a != b) & ~close).sum()) for (a, b), close in zip(verdicts, near))
    return {
        "lines": lines,
        "rule": f"`{' + '.join(column)}` {'below' if score['keep'] == 'below' else 'at least'} {score['threshold']}",
        "kept": f"{int(verdicts[0][0].sum())} of {len(pictures)}",
        "other_verdicts": other,
        "difference": float(np.abs(ours - theirs).max()),
    }


def side(scores, limit, score):
    return scores < limit if score["keep"] == "below" else scores >= limit


def documented(network, folder, pictures, labels):
    """Returns the documented labels, and for each picture the probability of each label."""
    if (folder / "preprocessor_config.json").exists():
        return "`pipeline`", by_pipeline(network, folder, pictures)
    return "timm", by_timm(network, folder, pictures, labels)


def by_pipeline(network, folder, pictures):
    from transformers import AutoImageProcessor, pipeline

    processor = AutoImageProcessor.from_pretrained(str(folder))
    classify = pipeline("image-classification", model=network, image_processor=processor, top_k=None, function_to_apply="softmax")
    return [{answer["label"]: answer["score"] for answer in classify(picture)} for picture in pictures]


def by_timm(network, folder, pictures, labels):
    import torch

    import libraries

    with torch.no_grad():
        logits = network(torch.from_numpy(libraries.tensors(folder, pictures)))
    return [dict(zip(labels, row)) for row in torch.softmax(logits, -1).numpy()]
