"""How good it is: numbers and a page from what a run left behind."""
