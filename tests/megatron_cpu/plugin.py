"""verl imports this module while `import verl` runs, in every process (VERL_USE_EXTERNAL_MODULES)."""

from tests.megatron_cpu import transformer_engine

transformer_engine.install()
