"""Asks the processor for rows of a table before they are needed: rows of a large one lie anywhere in memory."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LINE_BYTES = 64
"""Of a cache line, on x86 and most of arm64; where it is another, this costs time and nothing else."""


@intrinsic
def prefetch_row(typing, table, row):  # type: ignore[no-untyped-def]
    """``prefetch_row(table, row)``: has row ``row`` of a 2-d array read into the cache; no result is changed.

    Processors see ahead a few rows only, while memory answers some hundred cycles later.
    """

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = cgutils.unpack_tuple(builder, array.strides)[0]
        number = context.cast(builder, arguments[1], signature.args[1], types.intp)
        byte = ir.PointerType(ir.IntType(8))
        start = builder.gep(builder.bitcast(array.data, byte), [builder.mul(number, stride)])
        flag = ir.IntType(32)
        fetch = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        )
        with cgutils.for_range_slice(builder, stride.type(0), stride, stride.type(LINE_BYTES)) as (offset, _):
            builder.call(fetch, [builder.gep(start, [offset]), flag(0), flag(3), flag(1)])  # to read, keep, data
        return context.get_dummy_value()

    return types.void(table, row), generate
