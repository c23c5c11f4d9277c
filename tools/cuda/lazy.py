#!/usr/bin/env python3
"""CUDA's libraries opened at run time: C sources whose every function jumps through a table that dlopen and dlsym fill.

usage: lazy.py LIBRARIES DRIVER_SYMBOLS OUT

LIBRARIES holds libcublas.so.13 and the others; DRIVER_SYMBOLS lists the driver's functions, one a line. Linked in place of
the libraries, the tables are filled before main. Where there is no driver every function returns its library's word for
"there is nothing here", and the program goes on.
"""
import subprocess
import sys
from pathlib import Path

# Name, file, and the code of "no device" or "not initialised" of each library.
LIBRARIES = [
    ("cublas", "libcublas.so.13", 1),
    ("cublasLt", "libcublasLt.so.13", 1),
    ("curand", "libcurand.so.10", 203),
    ("nvrtc", "libnvrtc.so.13", 5),
]
DRIVER = ("cuda", "libcuda.so.1", 100)

SOURCE = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

static long missing(void) {{ return {code}; }}
__attribute__((visibility("hidden"))) void *{name}_table[{count}];
static const char *const names[] = {{{names}}};

__attribute__((constructor(101))) static void fill(void) {{
    void *driver = dlopen("{driver}", RTLD_NOW | RTLD_GLOBAL);
    void *library = driver ? dlopen("{file}", RTLD_NOW | RTLD_GLOBAL) : NULL;
    for (size_t i = 0; i < {count}; i++) {{
        void *found = library ? dlsym(library, names[i]) : NULL;
        {name}_table[i] = found ? found : (void *)missing;
    }}
}}
"""
# x86-64: a tail call that leaves every argument where it is.
JUMP = '__asm__(".text\\n.globl {symbol}\\n.type {symbol},@function\\n{symbol}: jmp *{name}_table+{offset}(%rip)\\n");\n'


def exported(path):
    """The functions that a shared library offers."""
    command = ["nm", "-D", "--defined-only", str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[-1].split("@")[0] for line in lines if " T " in line]


def source(name, file, code, symbols):
    """The C source that stands in for a library."""
    symbols = sorted(set(symbols))
    names = ",".join(f'"{symbol}"' for symbol in symbols)
    head = SOURCE.format(name=name, file=file, code=code, count=len(symbols), names=names, driver=DRIVER[1])
    return head + "".join(JUMP.format(symbol=s, name=name, offset=8 * i) for i, s in enumerate(symbols))


def main(libraries, driver_symbols, out):
    every = [(*DRIVER, Path(driver_symbols).read_text().split())]
    for name, file, code in LIBRARIES:
        every.append((name, file, code, [s for s in exported(Path(libraries, file)) if s.startswith(name)]))
    for name, file, code, symbols in every:
        Path(out, f"{name}.c").write_text(source(name, file, code, symbols))


main(*sys.argv[1:])
