"""The textbook VAE on MNIST: fully connected, 784-200-20 and back, ReLU, a standard normal prior.

The network of Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014, as countless tutorials have it, trained on
the cross-entropy, which is a Bernoulli likelihood.  For the squared error add
``--likelihood gaussian:sigma=fixed,scale=0.7071``: with a variance of 1/2 minus the log-density is the sum of squared
errors and a constant.
"""

SETTINGS = {
    "model": "vae",
    "guide": "mean_field",
    "data": "mnist",
    "labels": "none",
    "prior": "normal",
    "likelihood": "bernoulli",
    "latent_dim": 20,
    "network": "mlp:hidden=200",
    "objective": "analytic_kl",
    "batch_size": 128,
    "lr": 1e-3,
    "beta": 1.0,
    "lr_schedule": "constant",
    "epochs": 20,
    "patience": "none",
}
