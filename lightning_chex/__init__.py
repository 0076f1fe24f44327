"""Train chest X-ray models with PyTorch Lightning and explain them with the information bottleneck."""

__version__ = "0.3.0"
