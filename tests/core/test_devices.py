"""Peak rates of devices."""

import pytest

from tlc_jax.core.devices import peak_flops


@pytest.mark.parametrize(
    ("kind", "matmul", "expected"),
    [
        ("TPU v5 lite", "bfloat16", 197e12),
        ("TPU v5", "mix", 459e12),
        ("TPU v5p", "mix", 459e12),
        ("TPU v4", "float32", None),
        ("TPU v4 lite", "mix", None),
        ("NVIDIA H100 80GB HBM3", "mix", 989e12),
        ("NVIDIA H100 PCIe", "mix", 756e12),
        ("NVIDIA A100-SXM4-80GB", "float32", 156e12),
        ("Tesla V100-SXM2-16GB", "mix", None),
        ("NVIDIA A10", "mix", 125e12),
        ("NVIDIA A10G", "mix", 70e12),
        ("NVIDIA L40S", "mix", 362e12),
        ("cpu", "float32", None),
    ],
)
def test_peaks(kind, matmul, expected):
    assert peak_flops(kind, matmul) == expected
