"""Opponents for the training step: other ways to train the same networks, each as its own people would write it well.

Every module makes contenders of ``benchmarks.timing``.  Every contender that trains does the same work in a step: it
gathers a batch of uint8 pixels by shuffled row numbers, makes them binary, and takes one step of Adam on one draw's
bound.  ``numpyro_epoch`` and ``tensorflow_cvae`` run in an interpreter of their own and import neither torch nor
pyro_vae.
"""
