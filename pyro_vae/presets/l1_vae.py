"""A VAE with an L1 reconstruction and a light KL term, in the manner of MIT's deep-learning course.

The debiasing laboratory of MIT 6.S191 (introtodeeplearning.com, after Amini et al., *Uncovering and Mitigating
Algorithmic Bias through Learned Latent Structure*, 2019) minimizes mean |x - x'| over the pixels plus 0.005 times the
KL term, z reparameterized from a mean and a log-variance.  Here losses are sums over the pixels, nats per image, so the
weight is 0.005 times the number of pixels: for other images than these, of 28x28 pixels, give ``--beta`` anew.  A
Laplace likelihood of scale 1 is the sum of absolute errors and a constant.

Its semi-supervised form is ``--model ss_vae``, its debiasing form ``--model db_vae --labels all``.
"""

SETTINGS = {
    "model": "vae",
    "guide": "mean_field",
    "data": "mnist",
    "prior": "normal",
    "likelihood": "laplace:sigma=fixed,scale=1",
    "beta": 0.005 * 28 * 28,
    "latent_dim": 100,
    "network": "conv:channels=32,64,dense=512",
    "batch_size": 128,
    "lr": 5e-4,
    "lr_schedule": "constant",
    "epochs": 10,
    "patience": "none",
}
