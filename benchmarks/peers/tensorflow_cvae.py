"""A worker: the convolutional VAE of TensorFlow's tutorial, "Convolutional Variational Autoencoder".

    python -m benchmarks.peers.tensorflow_cvae

Two strided convolutions to a plane of latents, three transposed ones back, one draw's bound with the log-densities
written out, batches of 32, Adam at 1e-4, pixels binarized at 0.5.  What is fair about it: the network is that of the
preset ``cvae_mnist`` to the last weight (the tutorial's own does not pad in the encoder, and starts the decoder from 32
maps instead of 64), and the loop over the steps runs inside one ``tf.function`` of static shapes, which is faster than
a call per step, as the tutorial has it, and than XLA.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any

from benchmarks.peers import settings
from benchmarks.timing import Work, Worker, serve


def tensorflow_cvae(python: str = sys.executable) -> Worker:
    """The contender; ``python`` is an interpreter that has TensorFlow."""
    return Worker("TensorFlow, tf.function", ["-m", __name__], python)


def build() -> Work:
    """The work, traced."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    size, side, dim = settings.CVAE_BATCH_SIZE, settings.SIDE, settings.CVAE_LATENT_DIM
    pixels = tf.constant(settings.images().reshape(-1, side, side, 1))
    order = tf.constant(settings.order(size).astype("int32"))
    encoder, decoder = networks()
    variables = encoder.trainable_variables + decoder.trainable_variables
    optimizer = tf.keras.optimizers.Adam(settings.CVAE_LEARNING_RATE)
    optimizer.build(variables)
    position = tf.Variable(0)

    def log_normal(value: Any, mean: Any, log_variance: Any) -> Any:
        squares = (value - mean) ** 2 * tf.exp(-log_variance)
        return -0.5 * tf.reduce_sum(squares + log_variance + math.log(2 * math.pi), 1)

    def negative_bound(x: Any) -> Any:
        mean, log_variance = tf.split(encoder(x, training=True), 2, axis=1)
        z = mean + tf.exp(0.5 * log_variance) * tf.random.normal((size, dim))
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(logits=decoder(z, training=True), labels=x)
        log_ratio = log_normal(z, 0.0, 0.0) - log_normal(z, mean, log_variance)
        return tf.reduce_mean(tf.reduce_sum(entropy, [1, 2, 3]) - log_ratio)

    @tf.function(input_signature=[tf.TensorSpec((), tf.int32)])
    def loop(steps: Any) -> Any:
        total = tf.constant(0.0)
        for _ in tf.range(steps):
            x = tf.cast(tf.gather(pixels, order[position]) >= 128, tf.float32)
            position.assign((position + 1) % len(order))
            with tf.GradientTape() as tape:
                loss = negative_bound(x)
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            total += loss
        return total

    return lambda steps: float(loop(tf.constant(steps))) / steps


def networks() -> tuple[Any, Any]:
    """The encoder, to mean and log-variance side by side, and the decoder, to logits."""
    import tensorflow as tf

    layers = tf.keras.layers
    encoder = tf.keras.Sequential(
        [
            layers.InputLayer((settings.SIDE, settings.SIDE, 1)),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(2 * settings.CVAE_LATENT_DIM),
        ]
    )
    decoder = tf.keras.Sequential(
        [
            layers.InputLayer((settings.CVAE_LATENT_DIM,)),
            layers.Dense(7 * 7 * 64, activation="relu"),
            layers.Reshape((7, 7, 64)),
            layers.Conv2DTranspose(64, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(1, 3, strides=1, padding="same"),
        ]
    )
    return encoder, decoder


if __name__ == "__main__":
    serve(build, ("tensorflow",))
