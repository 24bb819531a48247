"""Vectors without NumPy: reading them from a reply and comparing them."""

from __future__ import annotations

import ast
import base64
import math
import struct
from typing import Any

from checks.client import Reply, expect

Vector = tuple[float, ...]


def vectors_of(reply: Reply, dimension: int) -> list[Vector]:
    """The `items[].embedding` of an embed reply: each a unit vector of ``dimension``."""
    found = [tuple(item["embedding"]) for item in items_of(reply)]
    for vector in found:
        check_unit(vector, dimension, reply.asked)
    return found


def items_of(reply: Reply) -> list[dict[str, Any]]:
    """The items in order, none of them an error."""
    items: list[dict[str, Any]] = reply.json()["items"]
    expect([item["index"] for item in items] == list(range(len(items))), f"{reply.asked}: items are out of order")
    for item in items:
        expect("error" not in item or item["error"] is None, f"{reply.asked}: item {item['index']}: {item.get('error')}")
    return items


def check_unit(vector: Vector, dimension: int, asked: str) -> None:
    expect(len(vector) == dimension, f"{asked}: {len(vector)} numbers, not {dimension}")
    length = math.sqrt(sum(x * x for x in vector))
    expect(abs(length - 1) < 1e-3, f"{asked}: length {length}, not 1")


def cosine(left: Vector, right: Vector) -> float:
    lengths = math.sqrt(sum(x * x for x in left) * sum(y * y for y in right))
    return sum(x * y for x, y in zip(left, right, strict=True)) / lengths


def same(left: Vector, right: Vector, what: str) -> None:
    """Equal up to the last bits of float32: a batch may be summed in another order."""
    furthest = max(abs(x - y) for x, y in zip(left, right, strict=True))
    expect(furthest <= 1e-5, f"{what}: the vectors differ by {furthest:.2e}")


def from_base64(text: str) -> Vector:
    """Little-endian float32."""
    data = base64.b64decode(text, validate=True)
    return struct.unpack(f"<{len(data) // 4}f", data)


def from_npy(data: bytes) -> list[Vector]:
    """The rows of an `(n, d)` little-endian float32 .npy file of format 1 to 3."""
    expect(data[:6] == b"\x93NUMPY", f"not an .npy file: {data[:16]!r}")
    width = 2 if data[6] == 1 else 4
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    header = ast.literal_eval(data[8 + width : start].decode().strip())
    expect(header["descr"] == "<f4" and not header["fortran_order"], f"not float32 rows: {header}")
    rows, columns = header["shape"]
    numbers = struct.unpack(f"<{rows * columns}f", data[start:])
    return [numbers[row * columns : (row + 1) * columns] for row in range(rows)]
