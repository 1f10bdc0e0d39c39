"""veRL's Megatron engine without a GPU, for tests only (docs/megatron.md says what this proves and what not).

transformer_engine.py   plain-torch stand-in for the part of TransformerEngine that Megatron-Core builds its layers on
adam.py                 its FusedAdam
cuda.py                 what Megatron-Core takes from torch.cuda, on the CPU
plugin.py               what verl imports in every process (VERL_USE_EXTERNAL_MODULES): puts the stand-in in place
engine.py               verl's Megatron engine registered for device "cpu" (model.external_lib)
rows.py, engines.py     a model, rows and engines for the tests
world_of_one.py, world_of_two.py   processes that compare engines; the tests read what they found
"""
