"""A synthetic world in the three Reason-RFT task types, drawn with Pillow, the same for the same seed.

draw.py        shapes on small pictures
problem.py     what one problem is, and how its reasoning is phrased
counting.py    visual counting
structure.py   structure perception
spatial.py     spatial transformation
write.py       Reason-RFT JSON files and image folders (python -m recipe.ekipl.data.synthetic.write)
"""
