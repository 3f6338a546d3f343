"""MNIST with a hundred labels, as exactly as the semi-supervised model classifies it here.

The defaults of ``ss_vae`` with averaged weights (Tarvainen and Valpola, *Mean Teachers Are Better Role Models*, 2017),
batch normalization in q(y | x), smaller changes of the images, a constant rate, and the mean answer held at the prior
of the labels, which supposes that the rows without a label have each class as often as p(y) says.
"""

SETTINGS = {
    "model": "ss_vae",
    "data": "mnist",
    "labels": 100,
    "ema": 0.999,
    "classifier": "conv:batch_norm=true",
    "marginal_weight": 300.0,
    "augmentation": "affine:rotation=15,shear=0.15,scale=0.15,shift=0.07",
    "lr_schedule": "constant",
    "epochs": 30,
}
