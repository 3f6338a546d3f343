"""The VAE of this package with the best likelihood of MNIST: one layer of latents and a learned prior.

Gated layers as Tomczak and Welling have them, *VAE with a VampPrior*, 2018, and a RealNVP of 20 blocks for a prior, as
Xu, Chen, Zhao, Liu, Kwok and Yeung propose, *On the Necessity and Effectiveness of Learning the Prior of Variational
Auto-Encoder*, 2019; trained by the path derivative of the bound (Roeder, Wu and Duvenaud, *Sticking the Landing*, 2017)
and judged by averaged weights.
"""

SETTINGS = {
    "model": "vae",
    "guide": "mean_field",
    "data": "mnist",
    "labels": "none",
    "prior": "realnvp:num_blocks=20",
    "likelihood": "bernoulli",
    "latent_dim": 40,
    "network": "mlp:hidden=300,300,activation=gated",
    "objective": "stl",
    "beta": "linear:0:1:15",
    "batch_size": 200,
    "lr": 2e-3,
    "lr_schedule": "decay",
    "lr_warmup": 1000,
    "ema": 0.999,
    "epochs": 300,
    "patience": "none",
}
