#!/usr/bin/env python3
"""Mean and largest difference of two PNG pictures, in levels of 255; the standard library alone.

usage: compare.py A.png B.png
"""
import struct
import sys
import zlib


def samples(path):
    """(width, height, channels, every byte) of an 8-bit PNG without interlacing."""
    data = open(path, "rb").read()
    at, header, packed = 8, None, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        header = struct.unpack(">IIBBBBB", body) if kind == b"IHDR" else header
        packed += body if kind == b"IDAT" else b""
        at += size + 12
    width, height, depth, colour, _, _, interlaced = header
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    assert depth == 8 and not interlaced, f"{path}: depth {depth}, interlacing {interlaced}"
    return width, height, channels, unfiltered(zlib.decompress(packed), width * channels, height, channels)


def unfiltered(raw, stride, height, channels):
    out, above = bytearray(), bytearray(stride)
    for row in range(height):
        kind, line = raw[row * (stride + 1)], bytearray(raw[row * (stride + 1) + 1:(row + 1) * (stride + 1)])
        for i in range(stride):
            left = line[i - channels] if i >= channels else 0
            corner = above[i - channels] if i >= channels else 0
            line[i] = line[i] + predicted(kind, left, above[i], corner) & 255
        out += line
        above = line
    return out


def predicted(kind, left, up, corner):
    if kind == 4:
        ways = [(abs(up - corner), left), (abs(left - corner), up), (abs(left + up - 2 * corner), corner)]
        return min(ways, key=lambda way: way[0])[1]
    return (0, left, up, (left + up) // 2)[kind]


a, b = samples(sys.argv[1]), samples(sys.argv[2])
assert a[:3] == b[:3], f"{a[:3]} and {b[:3]}: sizes differ"
differences = [abs(x - y) for x, y in zip(a[3], b[3])]
print(f"{sum(differences) / len(differences):.4f} {max(differences)}")
