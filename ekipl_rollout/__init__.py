"""Where answers are asked for and chosen: experts, group building, and the seam with veRL.

Reading order: ask.py, group_filter.py, tokens.py, then experts/ and on_verl/.
"""
