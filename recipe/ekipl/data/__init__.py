"""Where rows come from (docs/data.md). `python -m recipe.ekipl.data download | reason_rft | own | mix`.

Reading order: splits.py (which file is which), reason_rft.py and own.py (the two ways in), make_row.py (one JSON object -> one
checked row, or a refusal.py), prompts.py (how the policy is asked), row.py and write.py (the shapes that verl reads). mix.py puts
tasks together by weight; questions.py reads the files back without verl; synthetic/ draws a world in the released layout.
"""
