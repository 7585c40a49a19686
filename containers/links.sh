#!/bin/sh
# Makes links to `sluice`, one for each stage's program: links.sh PROGRAMS OUT
set -eu
mkdir -p "$2"
for program in "$1"/sluice-*; do
    ln -sf sluice "$2/${program##*/}"
done
