"""``python -m lightning_chex fit | validate | test | predict``."""

from lightning_chex.cli import main

if __name__ == "__main__":
    main()
