"""Reading protocol buffers without their generated classes.

    for number, value in fields(memoryview(data)):
        print(number, value)

Only what frozen TensorFlow graphs and ONNX files need: varints, 32-bit and 64-bit words and
length-delimited fields, as laid down in https://protobuf.dev/programming-guides/encoding/.
Nothing is copied: a length-delimited value is a view into the data.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeward.errors import ModelError

__all__ = ["fields", "signed", "text", "varint", "varints", "view"]

Value = int | memoryview


def varint(data: memoryview, position: int) -> tuple[int, int]:
    """The unsigned varint at `position` and the position after it. Raises ModelError when it is cut off."""
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFF_FFFF_FFFF_FFFF, position
    raise ModelError("damaged model file: a number in it is cut off or too long; obtain the file again")


def fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield (field number, value) of one message, in the order of the file.

    A value is an int for a varint, else a view of its bytes. Raises ModelError on bytes that are no message.
    """
    position = 0
    while position < len(data):
        key, position = varint(data, position)
        match key & 7:
            case 0:
                number, position = varint(data, position)
                yield key >> 3, number
                continue
            case 1:
                size = 8
            case 2:
                size, position = varint(data, position)
            case 5:
                size = 4
            case kind:
                raise ModelError(f"damaged model file: unknown wire type {kind}; obtain the file again")
        if size > len(data) - position:
            raise ModelError(
                f"damaged model file: a field states {size} bytes where {len(data) - position} are left; "
                "obtain the file again"
            )
        yield key >> 3, data[position : position + size]
        position += size


def varints(value: Value) -> list[int]:
    """A repeated integer field in either of its forms: one number, or many packed together."""
    if isinstance(value, int):
        return [value]
    numbers, position = [], 0
    while position < len(value):
        number, position = varint(value, position)
        numbers.append(number)
    return numbers


def signed(number: int) -> int:
    """A varint read as a two's complement int64."""
    return number - (1 << 64) if number >= 1 << 63 else number


def view(value: Value) -> memoryview:
    """`value` as bytes; ModelError when the file has a number there."""
    if isinstance(value, int):
        raise ModelError("damaged model file: a number where text or a message belongs; obtain the file again")
    return value


def text(value: Value) -> str:
    """`value` as UTF-8 text; ModelError when it is none."""
    try:
        return str(view(value), "utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"damaged model file: {error}; obtain the file again") from error
