"""Affine maps, layer normalization and GELU, with gradients that move little memory.

On accelerators the step's products run near the chip's rate, and what remains is passes over
activations. So the gradients of norm and GELU keep their input alone, and compute the rest again.

Shapes in names: T rows, I inputs, O outputs, D width.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array, lax

_TYPES = {
    "float32": (jnp.float32, jnp.float32),
    "mix": (jnp.bfloat16, jnp.float32),
    "bfloat16": (jnp.bfloat16, jnp.bfloat16),
}
"""Types of the sides of a matrix product and of its result, by `impl.matmul`."""


def affine(
    x: Array, kernel: Array, bias_O: Array, precision: str, kernel_is_OxI: bool = False
) -> Array:
    """Computes `x_...xI @ kernel_IxO + bias_O`, with gradients of kernel and bias in float32.

    Args:
      x: any leading axes, then I.
      kernel: [I, O], or [O, I] if `kernel_is_OxI`, float32.
      bias_O: float32.
      precision: types of the products, forward and backward: "float32", everything as it is;
        "mix", both sides rounded to bfloat16, the result in float32; "bfloat16", the result in
        bfloat16 as well.
      kernel_is_OxI: the kernel is stored transposed, as an embedding table is.
    """
    y_TxO = _affine(x.reshape(-1, x.shape[-1]), kernel, bias_O, precision, kernel_is_OxI)
    return y_TxO.reshape(*x.shape[:-1], -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _affine(
    x_TxI: Array, kernel: Array, bias_O: Array, precision: str, kernel_is_OxI: bool
) -> Array:
    return _affine_forward(x_TxI, kernel, bias_O, precision, kernel_is_OxI)[0]


Residuals = tuple[Array, Array, Array]


def _affine_forward(
    x_TxI: Array, kernel: Array, bias_O: Array, precision: str, kernel_is_OxI: bool
) -> tuple[Array, Residuals]:
    # On CPUs with bfloat16 instructions "mix" doubles the rate; bfloat16 results undo the gain.
    inputs, result = _TYPES[precision]
    like_x = jnp.zeros((), x_TxI.dtype)
    # On TPUs the compiler would otherwise round the kernels of all layers at once, in more time.
    kernel = lax.platform_dependent(kernel, tpu=lax.optimization_barrier, default=lambda x: x)
    x_TxI, kernel = x_TxI.astype(inputs), kernel.astype(inputs)
    y_TxO = _dot(x_TxI, kernel, 1 if kernel_is_OxI else 0, result)
    return y_TxO + bias_O.astype(result), (x_TxI, kernel, like_x)


def _affine_backward(
    precision: str, kernel_is_OxI: bool, residuals: Residuals, g_TxO: Array
) -> tuple[Array, Array, Array]:
    # JAX's own rule would leave the cotangent in float32, and with it both products.
    x_TxI, kernel, like_x = residuals
    g_TxO = g_TxO.astype(x_TxI.dtype)
    gradient_TxI = _dot(g_TxO, kernel, 0 if kernel_is_OxI else 1, like_x.dtype)
    gradient_IxO, gradient_O = lax.platform_dependent(
        x_TxI,
        g_TxO,
        cpu=_parameter_gradients_on_cpu,
        tpu=_parameter_gradients_on_tpu,
        default=_parameter_gradients,
    )
    return gradient_TxI, gradient_IxO.T if kernel_is_OxI else gradient_IxO, gradient_O


_affine.defvjp(_affine_forward, _affine_backward)


def _parameter_gradients(x_TxI: Array, g_TxO: Array) -> tuple[Array, Array]:
    gradient_IxO = lax.dot_general(
        x_TxI, g_TxO, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )
    return gradient_IxO, jnp.sum(g_TxO, axis=0, dtype=jnp.float32)


def _parameter_gradients_on_tpu(x_TxI: Array, g_TxO: Array) -> tuple[Array, Array]:
    """The same for TPUs, where a product with ones costs less than a sum that stands alone."""
    # Sums over the gradients of an attention kernel do. Wider outputs are those of a feed-forward
    # layer, whose sum costs next to nothing in the program of GELU's gradient.
    gradient_IxO, gradient_O = _parameter_gradients(x_TxI, g_TxO)
    if g_TxO.dtype == jnp.bfloat16 and g_TxO.shape[1] <= x_TxI.shape[1]:
        gradient_O = _dot(jnp.ones((8, g_TxO.shape[0]), g_TxO.dtype), g_TxO, 0, jnp.float32)[0]
    return gradient_IxO, gradient_O


def _parameter_gradients_on_cpu(x_TxI: Array, g_TxO: Array) -> tuple[Array, Array]:
    """The same for XLA's CPU backend, 1.1 (float32) to 3.4 times (bfloat16) as fast."""
    # That backend multiplies a matrix transposed on the left at half speed, and bfloat16 ones in
    # float32 or not at all. So the narrower side is transposed first, and barriers keep XLA from
    # moving that back into the product.
    if x_TxI.shape[1] <= g_TxO.shape[1]:
        gradient_IxO = lax.optimization_barrier(_dot(_transposed(x_TxI), g_TxO, 0, jnp.float32))
    else:
        gradient_IxO = lax.optimization_barrier(_dot(_transposed(g_TxO), x_TxI, 0, jnp.float32)).T
    # It also sums over rows slowly. A product with ones is quicker; XLA would turn one with a
    # single row of ones into a sum, so there are two rows.
    ones_2xT = jnp.ones((2, g_TxO.shape[0]), g_TxO.dtype)
    return gradient_IxO, _dot(ones_2xT, g_TxO, 0, jnp.float32)[0]


def _transposed(x: Array) -> Array:
    """The transpose, copied in memory: reshaping to a flat array forces the copy."""
    return lax.optimization_barrier(x.T.reshape(-1)).reshape(x.shape[1], x.shape[0])


def _dot(x: Array, y: Array, contract_y: int, result: jax.typing.DTypeLike) -> Array:
    """The product of two matrices over the second axis of x and axis `contract_y` of y."""
    return lax.dot_general(x, y, (((1,), (contract_y,)), ((), ())), preferred_element_type=result)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def layer_norm(
    x: Array, scale_D: Array, bias_D: Array, epsilon: float, dtype: jax.typing.DTypeLike
) -> Array:
    """Normalizes the last axis to mean 0 and variance 1, then scales and shifts it.

    All of it is computed in float32, whatever the types of input and result.

    Args:
      x: any leading axes, then D.
      scale_D: float32.
      bias_D: float32.
      epsilon: added to the variance.
      dtype: type of the result.
    """
    return _layer_norm_forward(x, scale_D, bias_D, epsilon, dtype)[0]


def _layer_norm_forward(
    x: Array, scale_D: Array, bias_D: Array, epsilon: float, dtype: jax.typing.DTypeLike
) -> tuple[Array, tuple[Array, ...]]:
    x32 = x.astype(jnp.float32)
    mean = jnp.mean(x32, axis=-1, keepdims=True)
    variance = jnp.maximum(jnp.mean(x32 * x32, axis=-1, keepdims=True) - mean * mean, 0.0)
    inverse = lax.rsqrt(variance + epsilon)
    y = (x32 - mean) * (inverse * scale_D) + bias_D
    return y.astype(dtype), (x, mean, inverse, scale_D)


def _layer_norm_backward(
    epsilon: float, dtype: jax.typing.DTypeLike, residuals: tuple[Array, ...], g: Array
) -> tuple[Array, Array, Array]:
    x, mean, inverse, scale_D = residuals
    normal, g = (x.astype(jnp.float32) - mean) * inverse, g.astype(jnp.float32)
    scaled = g * scale_D
    along_normal = jnp.mean(scaled * normal, axis=-1, keepdims=True)
    centered = scaled - jnp.mean(scaled, axis=-1, keepdims=True)
    gradient = inverse * (centered - normal * along_normal)
    rows = tuple(range(x.ndim - 1))
    return gradient.astype(x.dtype), jnp.sum(g * normal, rows), jnp.sum(g, rows)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """The exact GELU, x times the standard normal distribution function of x."""
    return _gelu_forward(x)[0]


def _gelu_forward(x: Array) -> tuple[Array, Array]:
    # On TPUs the compiler would otherwise store x in float32, and compute y again in each of the
    # products that read it.
    barrier = lax.optimization_barrier if x.dtype == jnp.bfloat16 else lambda x: x
    x = barrier(x)
    x32 = x.astype(jnp.float32)
    return barrier((x32 * _normal_cdf(x32)[0]).astype(x.dtype)), x


def _gelu_backward(x: Array, g: Array) -> tuple[Array]:
    x32 = x.astype(jnp.float32)
    below, bell = _normal_cdf(x32)
    gradient = g.astype(jnp.float32) * (below + x32 * bell * (1.0 / math.sqrt(2.0 * math.pi)))
    return (gradient.astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


def _normal_cdf(x: Array) -> tuple[Array, Array]:
    """The standard normal distribution function, and exp(-x^2 / 2), which its density needs too."""
    # XLA's GPU compiler keeps an exponential that the forward pass computed for the backward pass:
    # half as much memory again for the whole step, and six percent more time.
    return lax.platform_dependent(x, cpu=_by_formula, tpu=_by_formula, default=_by_erf)


def _by_erf(x: Array) -> tuple[Array, Array]:
    return 0.5 + 0.5 * lax.erf(math.sqrt(0.5) * x), jnp.exp(-0.5 * x * x)


def _by_formula(x: Array) -> tuple[Array, Array]:
    """By formula 7.1.26 of Abramowitz and Stegun, Handbook of Mathematical Functions (1964).

    GELU comes out as close as with XLA's erf (4e-7), for fewer operations.
    """
    bell = jnp.exp(-0.5 * x * x)
    t = 1.0 / (1.0 + 0.3275911 * math.sqrt(0.5) * jnp.abs(x))
    above = jnp.zeros((), x.dtype)
    for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        above = t * (above + coefficient)
    above = 0.5 * above * bell
    return jnp.where(x < 0, above, 1.0 - above), bell
