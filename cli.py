"""The command line in a checkout: ``python cli.py fit …`` is the installed command ``pyro-vae fit …``."""

from pyro_vae.cli import main

if __name__ == "__main__":
    main()
