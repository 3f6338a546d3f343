"""A worker: the VAE in NumPyro, the whole training loop one compiled program.

    python -m benchmarks.peers.numpyro_epoch epoch      # n steps per call, in a fori_loop
    python -m benchmarks.peers.numpyro_epoch step       # one step per call

The networks are JAX's stax, as in NumPyro's own VAE example; ``SVI`` with ``Trace_ELBO`` and Adam.  What is fair about
it: in ``epoch`` gathering, binarizing, gradient and update are compiled together, nothing returns to Python between the
steps, and the state is donated, so that no parameter is copied.  Random bits are JAX's default, threefry, which is
faster here than its hardware generators.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from benchmarks.peers import settings
from benchmarks.timing import Work, Worker, serve


def numpyro_vae(arrangement: str, python: str) -> Worker:
    """The contender; ``arrangement`` is ``epoch`` or ``step``, ``python`` an interpreter that has NumPyro."""
    names = {"epoch": "NumPyro, jitted epoch", "step": "NumPyro, jitted step"}
    return Worker(names[arrangement], ["-m", __name__, arrangement], python)


def build(arrangement: str) -> Work:
    """The work, compiled."""
    import jax
    import jax.numpy as jnp
    from jax import lax, random

    pixels = jnp.asarray(settings.images())
    order = jnp.asarray(settings.order(settings.BATCH_SIZE).astype("int32"))
    svi = make_svi()
    shape = (settings.BATCH_SIZE, settings.NUM_PIXELS)

    def step(index: Any, carry: Any) -> Any:
        state, key, position, total = carry
        key, noise = random.split(key)
        gray = pixels[order[position]] / 255.0
        x = (random.uniform(noise, shape) < gray).astype(jnp.float32)
        state, loss = svi.update(state, x)
        return state, key, (position + 1) % len(order), total + loss / settings.BATCH_SIZE

    @partial(jax.jit, donate_argnums=0)
    def loop(carry: Any, steps: Any) -> Any:
        return lax.fori_loop(0, steps, step, carry)

    once = jax.jit(partial(step, 0), donate_argnums=0)
    start = svi.init(random.key(0), jnp.zeros(shape)), random.key(1), jnp.int32(0)

    def work(steps: int) -> float:
        nonlocal start
        carry = (*start, jnp.float32(0))
        if arrangement == "epoch":
            carry = loop(carry, steps)
        else:
            for _ in range(steps):
                carry = once(carry)
        *rest, total = jax.block_until_ready(carry)
        start = tuple(rest)
        return float(total) / steps

    return work


def make_svi() -> Any:
    """NumPyro's SVI on the VAE: 784-400-50 and back, a normal with loc and exp(log_scale), Bernoulli pixels."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from jax.example_libraries import stax
    from numpyro.infer import SVI, Trace_ELBO

    size, dim = settings.BATCH_SIZE, settings.LATENT_DIM
    hidden = (stax.Dense(settings.HIDDEN), stax.Relu)
    heads = stax.parallel(stax.Dense(dim), stax.serial(stax.Dense(dim), stax.Exp))
    encoder, decoder = (
        stax.serial(*hidden, stax.FanOut(2), heads),
        stax.serial(*hidden, stax.Dense(settings.NUM_PIXELS)),
    )

    def model(x: Any) -> None:
        decode = numpyro.module("decoder", decoder, (size, dim))
        with numpyro.plate("data", size):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(dim), 1.0).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)

    def guide(x: Any) -> None:
        encode = numpyro.module("encoder", encoder, (size, settings.NUM_PIXELS))
        loc, scale = encode(x)
        with numpyro.plate("data", size):
            numpyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return SVI(model, guide, numpyro.optim.Adam(settings.LEARNING_RATE), Trace_ELBO())


if __name__ == "__main__":
    serve(partial(build, sys.argv[1]), ("jax", "numpyro"))
