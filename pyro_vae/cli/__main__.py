"""``python -m pyro_vae.cli``, the installed command ``pyro-vae``."""

from pyro_vae.cli.app import main

if __name__ == "__main__":  # and not where a tool imports every module
    main()
