"""Explaining and comparing methods on a trained model, apart from any training."""
