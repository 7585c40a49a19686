#!/usr/bin/env bash
# Takes what is in the images and is no program of ours out of Python wheels, pinned by version and hash.
#
#   wheels.sh certificates OUT     cacert.pem
#   wheels.sh cpu OUT              ONNX Runtime: libonnxruntime.so and its licences
#   wheels.sh cuda OUT             ONNX Runtime's GPU build, and the libraries of CUDA and cuDNN
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

what=$1
out=$2
python=${PYTHON:-python3}
onnxruntime=('onnxruntime/capi/libonnxruntime.so.*' onnxruntime/LICENSE onnxruntime/ThirdPartyNotices.txt)
case $what in
    certificates)
        requirements=containers/certificates.txt
        files=(certifi/cacert.pem)
        ;;
    cpu)
        requirements=shared/model/convert/onnxruntime.txt
        files=("${onnxruntime[@]}")
        ;;
    cuda)
        requirements=containers/onnxruntime-cuda.txt
        files=("${onnxruntime[@]}" 'onnxruntime/capi/libonnxruntime_providers_[cs]*.so' 'nvidia/cudnn/lib/libcudnn*.so.9'
            'nvidia/cu13/lib/lib'{cublas,cublasLt,cudart,curand,nvrtc,nvrtc-builtins}'.so.*')
        ;;
    *)
        echo "error: $what is none of certificates, cpu, cuda" >&2
        exit 2
        ;;
esac
[ "$out" -nt "$requirements" ] && exit # taken out already

work=$(mktemp -d)
trap 'rm -rf "$work" "$out.part"' EXIT
rm -rf "$out" "$out.part"
mkdir -p "$out.part"

# For a stated platform, whatever Python runs here, so that the hashes are the same everywhere.
platforms=()
for libc in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014; do
    platforms+=(--platform "${libc}_$(uname -m)")
done
"$python" -m pip download -q --disable-pip-version-check --dest "$work/wheels" --no-deps --only-binary=:all: \
    --require-hashes --implementation cp --python-version 3.12 "${platforms[@]}" -r "$requirements"
for wheel in "$work"/wheels/*.whl; do
    "$python" -m zipfile -e "$wheel" "$work/files"
    rm "$wheel"
done

shopt -s nullglob
for pattern in "${files[@]}"; do
    # shellcheck disable=SC2206  # the pattern is to be expanded
    found=("$work/files/"$pattern)
    if [ ${#found[@]} = 0 ]; then
        echo "error: no wheel of $requirements holds $pattern" >&2
        exit 1
    fi
    mv "${found[@]}" "$out.part/"
done
for library in "$out.part"/libonnxruntime.so.*; do
    mv "$library" "$out.part/libonnxruntime.so" # what ORT_DYLIB_PATH names, whatever the version
done
chmod -R a+rX "$out.part"
mv "$out.part" "$out"
touch "$out"
