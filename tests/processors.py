"""Processors that differ in which product is the fastest: what `devices.capabilities` says of each."""

PROCESSORS = {
    "Intel": {"avx512_f": True, "cpu_name": "Intel Xeon"},
    "matrix units": {"avx512_f": True, "amx_bf16": True, "cpu_name": "Intel Xeon"},
    "AMD": {"avx512_f": True, "avx512_bf16": True, "cpu_name": "AMD EPYC"},
    "AMD, AVX2": {"avx2": True, "cpu_name": "AMD EPYC"},
    "ARM": {"bf16": True, "architecture": "aarch64"},
    "unknown": {},
}
