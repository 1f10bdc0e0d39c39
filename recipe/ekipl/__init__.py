"""Vision-EKIPL as a veRL recipe. Start reading at train.py.

train.py composes (compose.py), checks (checks.py) and plans (plan.py) a run, trains with verl, and leaves a folder (run_files.py)
with a report; progress.py is what a person sees meanwhile, processes.py sees to it that nothing is left behind. methods.py chains such
runs and supervised ones (sft.py); record_ahead.py asks experts beforehand; plug_in.py is for commands that are not ours.
"""
