"""A convolutional beta-VAE for 32x32 images of one channel: squared error plus beta times the KL in closed form.

Burgess et al., *Understanding Disentangling in beta-VAE*, 2018, as the disentangling-vae code has it for 32x32 images:
an encoder of three convolutions with 32 maps each and a dense layer of 256 gives mean and log-variance of 10 latents.
The history has, for every epoch, the total as ``train_loss``, the reconstruction as ``validation_log_likelihood`` and
the KL as ``validation_kl``.  A normal likelihood of variance 1/2 is the sum of squared errors and a constant.
"""

SETTINGS = {
    "model": "vae",
    "guide": "mean_field",
    "data": "mnist:size=32",
    "labels": "none",
    "prior": "normal",
    "likelihood": "gaussian:sigma=fixed,scale=0.70711",
    "objective": "analytic_kl",
    "beta": 4.0,
    "latent_dim": 10,
    "network": "conv:channels=32,32,32,dense=256",
    "batch_size": 64,
    "lr": 5e-4,
    "lr_schedule": "constant",
    "epochs": 20,
    "patience": "none",
}
