#!/usr/bin/env bash
# A CUDA 13.0 toolkit out of Python wheels: enough to build `--features cuda` on a machine with no GPU and no CUDA.
#
#   tools/cuda/toolkit.sh DIR            then:  . DIR/env.sh && cargo build --release --features cuda
#   LAZY=1 tools/cuda/toolkit.sh DIR     the binary opens the driver and CUDA's libraries when it starts instead of linking
#                                        to them, so that it also runs (on the CPU) where there are none
#
# Needs python3 with venv, gcc, binutils and cargo. Where a lazy binary is to use a GPU, LD_LIBRARY_PATH must name the
# folders of libcublas.so.13, libcublasLt.so.13, libcurand.so.10 and libnvrtc.so.13: PyTorch's nvidia wheels hold them.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:?usage: toolkit.sh DIR}"
dir=$(cd "$1" && pwd)

python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check \
  "nvidia-cuda-nvcc==13.0.*" "nvidia-cuda-runtime==13.0.*" "nvidia-cuda-cccl==13.0.*" "nvidia-cuda-crt==13.0.*" \
  "nvidia-nvvm==13.0.*" "nvidia-cuda-nvrtc==13.0.*" nvidia-curand "nvidia-cublas==13.*"

# The wheels' files under the names a toolkit has.
site=$(echo "$dir"/venv/lib/python3.*/site-packages/nvidia/cu13)
lib=$dir/cuda/lib64
rm -rf "$dir/cuda" "$dir/lazy"
mkdir -p "$lib/stubs"
for part in bin include nvvm; do ln -s "$site/$part" "$dir/cuda/$part"; done
ln -s "$site"/lib/* "$lib/"
ln -s lib64 "$dir/cuda/lib"
for name in cublas.so.13 cublasLt.so.13 curand.so.10 nvrtc.so.13 cudart.so.13; do
  ln -sf "lib$name" "$lib/lib${name%.*}"
done

# No wheel holds a stand-in for the driver's library to link with: it is made of the names that cudarc declares.
(cd "$here/../.." && cargo fetch --locked --quiet --target "$(rustc --print host-tuple)")
grep -rhoE 'pub (unsafe )?fn cu[A-Z]\w+' "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-*/src/driver/sys |
  awk '{print $NF}' | sort -u > "$dir/driver_symbols.txt"
test -s "$dir/driver_symbols.txt" || { echo "no cudarc source found: run 'cargo fetch'" >&2; exit 1; }

if [ "${LAZY:-0}" = 1 ]; then
  mkdir "$dir/lazy"
  python3 "$here/lazy.py" "$lib" "$dir/driver_symbols.txt" "$dir/lazy"
  for name in cuda cublas cublasLt curand nvrtc; do
    gcc -O1 -fPIC -c "$dir/lazy/$name.c" -o "$dir/lazy/$name.o"
    ar rcs "$dir/lazy/lib$name.a" "$dir/lazy/$name.o"
    rm -f "$lib/lib$name.so"
    echo "INPUT($dir/lazy/lib$name.a)" > "$lib/lib$name.so"
  done
  rm -rf "$lib/stubs" "$lib/libcudart.so"
  echo "INPUT($lib/libcudart_static.a)" > "$lib/libcudart.so"
else
  sed 's/.*/int &(void) { return 3; }/' "$dir/driver_symbols.txt" > "$dir/driver.c"
  gcc -shared -fPIC -w -fno-builtin -Wl,-soname,libcuda.so.1 -o "$lib/stubs/libcuda.so" "$dir/driver.c"
fi

cat > "$dir/env.sh" <<END
export CUDA_HOME=$dir/cuda CUDA_PATH=$dir/cuda CUDAFORGE_HOME=$dir/cudaforge PATH=$dir/cuda/bin:\$PATH
export CUDA_COMPUTE_CAP=\${CUDA_COMPUTE_CAP:-90} # 75 Turing, 80 A100, 86 RTX 30, 89 RTX 40, 90 H100, 120 RTX 50
END
echo "ready: . $dir/env.sh && cargo build --release --features cuda"
