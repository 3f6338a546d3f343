"""``python -m pyro_vae``, the installed command ``pyro-vae``; ``torchrun -m pyro_vae fit …`` starts several."""

from pyro_vae.cli import main

if __name__ == "__main__":  # and not where a tool imports every module
    main()
