"""A VAE of six latents for sprites of known factors, its total correlation weighed: for disentanglement.

The objective of Chen, Li, Grosse and Duvenaud, *Isolating Sources of Disentanglement in Variational Autoencoders*,
2018, at beta 10 on the 7,200 sprites of this package.  It is the one of four with the largest mutual information gap in
``benchmarks/disentanglement.py``; ``pyro_vae.diagnostics.disentanglement`` scores it.
"""

SETTINGS = {
    "model": "vae",
    "guide": "mean_field",
    "data": "sprites",
    "labels": "none",
    "prior": "normal",
    "likelihood": "bernoulli",
    "objective": "beta_tc",
    "beta": 10.0,
    "latent_dim": 6,
    "network": "mlp:hidden=256,256",
    "batch_size": 100,
    "lr": 2e-3,
    "lr_schedule": "decay",
    "epochs": 60,
    "patience": "none",
}
