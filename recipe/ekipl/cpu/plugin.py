"""verl imports this module while `import verl` runs, in every process (VERL_USE_EXTERNAL_MODULES)."""

from recipe.ekipl.cpu import platform, shims  # noqa: F401  importing platform registers it

shims.apply_early()
