"""What a run needs and what this machine has, before anything is loaded (docs/hardware.md). `python -m recipe.ekipl.hardware`.

Reading order: model_shape.py (sizes of a model), memory.py (bytes per GPU, phase by phase), duration.py, machine.py, needs.py
(what is missing, with what to do), nodes.py (what each process of a run would find). measure_memory.py counts what an update really
allocates, to hold memory.py to it.
"""
