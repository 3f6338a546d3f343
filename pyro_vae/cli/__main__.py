"""``python -m pyro_vae.cli``, the installed command ``pyro-vae``."""

from pyro_vae.cli.app import main

main()
