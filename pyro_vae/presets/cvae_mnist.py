"""The convolutional VAE of TensorFlow's tutorial on MNIST, with a latent plane.

"Convolutional Variational Autoencoder", tensorflow.org/tutorials/generative/cvae: pixels binarized at 0.5, two strided
convolutions of 32 and 64 maps and their mirror image, Bernoulli logits, the Monte Carlo ELBO with one draw, Adam at
1e-4, batches of 32, z of two dimensions, 10 epochs.  Its results, in nats on the 10,000 test images: about -156 as it
stands, -78.3 with ``latent_dim`` 50 and 100 epochs.

Here 5,000 of the 60,000 training images validate, the decoder starts from 64 maps instead of 32, and the tutorial's
number, a mean over one draw per image, is the same quantity as ``elbo``.
"""

SETTINGS = {
    "model": "vae",
    "guide": "mean_field",
    "data": "mnist",
    "labels": "none",
    "binarization": "threshold",
    "latent_dim": 2,
    "network": "conv:channels=32,64,dense=0,refine=true",
    "objective": "elbo",
    "batch_size": 32,
    "lr": 1e-4,
    "likelihood": "bernoulli",
    "beta": 1.0,
    "lr_schedule": "constant",
    "epochs": 10,
    "patience": "none",
}
