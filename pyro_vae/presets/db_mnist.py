"""The debiasing VAE on MNIST: images whose latents are rare are drawn more often.

Amini, Soleimany, Schwarting, Bhatia and Rus, *Uncovering and Mitigating Algorithmic Bias through Learned Latent
Structure*, 2019, with a few latents, so that the product of their histograms leaves enough rows to draw from; alpha as
chosen by ``benchmarks/debiasing.py`` for a MNIST of which 2 % are inverted.  ``effective_rows`` in the history says how
many rows are left.
"""

SETTINGS = {
    "model": "db_vae",
    "guide": "mean_field",
    "data": "mnist",
    "labels": "all",
    "prior": "normal",
    "likelihood": "bernoulli",
    "augmentation": "none",
    "resampling": "latent_histogram:alpha=0.1",
    "beta": 1.0,
    "latent_dim": 6,
    "network": "mlp:hidden=256",
    "batch_size": 100,
    "lr": 2e-3,
    "lr_schedule": "decay",
    "epochs": 10,
    "patience": "none",
}
