"""``python -m pyro_vae``, the installed command ``pyro-vae``; ``torchrun -m pyro_vae fit …`` starts several."""

from pyro_vae.cli import main

main()
