"""What a CPU computes fast, by its flags as Linux names them in /proc/cpuinfo."""

from collections.abc import Collection

_BFLOAT16 = {"avx512_bf16", "amx_bf16"}
_INT8 = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}


def has_native_bfloat16(flags: Collection[str]) -> bool:
    """Whether bfloat16 products are an instruction; without it half precision saves memory but no time."""
    return not _BFLOAT16.isdisjoint(flags)


def has_int8_dot_product(flags: Collection[str]) -> bool:
    """Whether INT8 products accumulate in 32 bits in one instruction; older CPUs saturate at 16 bits."""
    return not _INT8.isdisjoint(flags)
