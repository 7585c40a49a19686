#!/usr/bin/env bash
# Installs the wheels of a folder into an empty environment outside the repository, and curates a folder of pictures
# there. Prints the seconds from the installation to the report.
#
#   wheel.sh DIST MODELS PICTURES      wheels, models of the preset small, shards with at least 100 pictures
set -euo pipefail

dist=$(realpath "$1")
models=$(realpath "$2")
shards=$(realpath "$3")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/all" "$work/pictures"
for shard in "$shards"/*.tar; do
    tar -C "$work/all" -xf "$shard" --wildcards '*.jpg' 2>/dev/null || true # some shards have none
done
find "$work/all" -name '*.jpg' | LC_ALL=C sort | head -n 100 | xargs mv -t "$work/pictures"

cd "$work"
unset ORT_DYLIB_PATH SLUICE_MODELS
started=$SECONDS
"${PYTHON:-python3}" -m venv venv
pip() { venv/bin/python -m pip install -q --disable-pip-version-check --find-links "$dist" "$@"; }
pip sluice-curate
installed=$((SECONDS - started))
venv/bin/sluice run --preset small --models "$models" --input pictures --output out >result.json
echo "wheel: $(find pictures -type f | wc -l) pictures: installed after $installed s, report after $((SECONDS - started)) s"

venv/bin/sluice verify --run out.run | tail -n 1
venv/bin/sluice-read --version
pip 'sluice-curate[arrow]'
venv/bin/python - <<'PYTHON'
import sluice

run = sluice.run("out.run")
images, decisions = run.images(["image_id"]), run.decisions()
assert images.num_rows == decisions.num_rows == 100, (images.num_rows, decisions.num_rows)
assert run.scores("aesthetic").column_names[0] == "image_id"
assert run.embeddings().count_rows() > 0
assert {"read", "embed", "export"} <= set(run.steps())
print(f"wheel: {images.num_rows} images read from Python")
PYTHON
