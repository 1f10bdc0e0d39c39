"""Hydra looks for this file before it takes pkg://recipe.ekipl.config."""
