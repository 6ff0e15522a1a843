#!/bin/sh
# run.sh [ARGS]: unpacks what bench:pack put beside this file, and runs `bench:gpu ARGS` without a
# network. It needs sh, tar, either xz or Python, and the GPU's driver.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
called_from=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

unpacked() {
  if command -v xz >/dev/null; then
    xz -dc "$1"
  else
    python3 -c 'import lzma, shutil, sys
shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' "$1"
  fi
}

mkdir "$work/bin" "$work/lib" "$work/cache" "$work/octograd"
unpacked "$here/deno.xz" >"$work/bin/deno"
chmod +x "$work/bin/deno"
unpacked "$here/cache.tar.xz" | tar -xf - -C "$work/cache"
unpacked "$here/octograd.tar.xz" | tar -xf - -C "$work/octograd"
export PATH="$work/bin:$PATH:/usr/sbin:/sbin" DENO_DIR="$work/cache" DENO_NO_UPDATE_CHECK=1
export DENO_WEBGPU_BACKEND=vulkan XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-$work}"
export INIT_CWD="$called_from"

# Take the packed Vulkan loader if there is none here, and point it to NVIDIA's driver if that lies
# where the loader would not look.
if ! ldconfig -p | grep -q 'libvulkan\.so\.1'; then
  cp "$here/libvulkan.so.1" "$work/lib/"
  export LD_LIBRARY_PATH="$work/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
known() { ls /etc/vulkan/icd.d/nvidia*.json /usr/share/vulkan/icd.d/nvidia*.json 2>/dev/null; }
if [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] && [ -z "$(known || :)" ]; then
  drivers=$(find /usr /opt -path '*vulkan/icd.d/nvidia_icd*.json' ! -name '*i[36]86*' 2>/dev/null |
    head -n 1)
  if [ -z "$drivers" ]; then
    # Which of the driver's two libraries can be loaded depends on what else is installed.
    for library in libGLX_nvidia.so.0 libEGL_nvidia.so.0; do
      ldconfig -p | grep -q "$library" || continue
      icd='{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "1.3.0"}}'
      # shellcheck disable=SC2059 # the format has one %s
      printf "$icd" "$library" >"$work/lib/$library.json"
      drivers=$drivers${drivers:+:}$work/lib/$library.json
    done
  fi
  # Old loaders know the second name, new ones the first.
  [ -z "$drivers" ] || export VK_DRIVER_FILES="$drivers" VK_ICD_FILENAMES="$drivers"
fi

deno task --quiet --config "$work/octograd/deno.json" bench:gpu "$@"
