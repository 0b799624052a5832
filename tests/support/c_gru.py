"""A GRU's backward in C, compiled where a compiler is, and mistakes in it."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

COMPILER = shutil.which("cc") or shutil.which("gcc")
SIGNATURE = (
    "const float *x, const float *U, const float *W, const float *dstates, "
    "float *dx, float *dU, float *dW, int T = x[0], int B = x[1], int D = x[2], int H = W[1]"
)
SOURCE = r"""
#include <math.h>
#include <stdlib.h>
#include <string.h>

static float sigmoid(float a) { return 1 / (1 + expf(-a)); }

void gru_backward(const float *x, const float *U, const float *W, const float *dstates,
                  float *dx, float *dU, float *dW, int T, int B, int D, int H) {
  float *h = calloc((size_t)(T + 1) * B * H, sizeof(float));
  float *gates = calloc((size_t)T * B * 4 * H, sizeof(float)); /* r, z, n, W_n h */
  for (int t = 0; t < T; t++)
    for (int b = 0; b < B; b++) {
      const float *before = h + (t * B + b) * H, *in = x + (t * B + b) * D;
      float *g = gates + (t * B + b) * 4 * H, *after = h + ((t + 1) * B + b) * H;
      for (int i = 0; i < H; i++) {
        float a[3] = {0, 0, 0}, c[3] = {0, 0, 0};
        for (int k = 0; k < 3; k++) {
          for (int d = 0; d < D; d++) a[k] += U[(k * H + i) * D + d] * in[d];
          for (int j = 0; j < H; j++) c[k] += W[(k * H + i) * H + j] * before[j];
        }
        g[i] = sigmoid(a[0] + c[0]);
        g[H + i] = sigmoid(a[1] + c[1]);
        g[3 * H + i] = c[2];
        g[2 * H + i] = tanhf(a[2] + g[i] * c[2]);
        after[i] = (1 - g[H + i]) * g[2 * H + i] + g[H + i] * before[i];
      }
    }
  memset(dU, 0, sizeof(float) * 3 * H * D);
  memset(dW, 0, sizeof(float) * 3 * H * H);
  float *dh = calloc((size_t)B * H, sizeof(float)), *next = calloc((size_t)B * H, sizeof(float));
  for (int t = T - 1; t >= 0; t--) {
    for (int i = 0; i < B * H; i++) dh[i] += dstates[t * B * H + i];
    memset(next, 0, sizeof(float) * B * H);
    for (int b = 0; b < B; b++) {
      const float *before = h + (t * B + b) * H, *in = x + (t * B + b) * D;
      const float *g = gates + (t * B + b) * 4 * H;
      float *out = dx + (t * B + b) * D;
      memset(out, 0, sizeof(float) * D);
      for (int i = 0; i < H; i++) {
        float r = g[i], z = g[H + i], n = g[2 * H + i], d = dh[b * H + i];
        float dn = d * (1 - z) * (1 - n * n), dz = d * (before[i] - n) * z * (1 - z);
        float dr = dn * g[3 * H + i] * r * (1 - r);
        float da[3] = {dr, dz, dn}, dc[3] = {dr, dz, dn * r};
        next[b * H + i] += d * z;
        for (int k = 0; k < 3; k++) {
          for (int e = 0; e < D; e++) {
            dU[(k * H + i) * D + e] += da[k] * in[e];
            out[e] += U[(k * H + i) * D + e] * da[k];
          }
          for (int j = 0; j < H; j++) {
            dW[(k * H + i) * H + j] += dc[k] * before[j];
            next[b * H + j] += W[(k * H + i) * H + j] * dc[k];
          }
        }
      }
    }
    memcpy(dh, next, sizeof(float) * B * H);
  }
  free(h); free(gates); free(dh); free(next);
}
"""
MISTAKES = {
    "the reset gate is missing from a product": (
        "dc[3] = {dr, dz, dn * r}",
        "dc[3] = {dr, dz, dn}",
    ),
    "the last row of dx is not written": (
        "memset(out, 0, sizeof(float) * D);\n",
        "if (b == B - 1 && t == 0) out = (float[64]){0};\n"
        "      memset(out, 0, sizeof(float) * D);\n",
    ),
}


def compile_gru(folder: Path, mistake: str = "") -> Path:
    """Compile the kernel, with one mistake in it or none; return the library."""
    old, new = MISTAKES.get(mistake, ("", ""))
    assert not mistake or SOURCE.count(old) == 1
    return compile_c(SOURCE.replace(old, new) if mistake else SOURCE, folder, "gru")


def compile_c(text: str, folder: Path, name: str = "kernel") -> Path:
    """Compile a source text to a shared library; return its path."""
    source, library = folder / f"{name}.c", folder / f"{name}.so"
    source.write_text(text)
    command = [str(COMPILER), "-O1", "-shared", "-fPIC", "-o", library, source, "-lm"]
    subprocess.run(command, check=True)
    return library


def gru(x: Any, U: Any, W: Any) -> Any:
    """The GRU that the kernel differentiates: all states."""
    H = W.shape[1]
    h, states = jnp.zeros((x.shape[1], H), x.dtype), []
    for each in x:
        a, c = each @ U.T, h @ W.T
        r, z = (jax.nn.sigmoid((a + c)[:, k * H : (k + 1) * H]) for k in (0, 1))
        n = jnp.tanh(a[:, 2 * H :] + r * c[:, 2 * H :])
        h = (1 - z) * n + z * h
        states.append(h)
    return jnp.stack(states)


def draw_gru(T: int = 3, B: int = 2, D: int = 3, H: int = 4) -> tuple[Any, ...]:
    """Arguments of the GRU in float32."""
    rng = np.random.default_rng(5)
    shapes = (T, B, D), (3 * H, D), (3 * H, H)
    return tuple((0.7 * rng.normal(size=shape)).astype(np.float32) for shape in shapes)
