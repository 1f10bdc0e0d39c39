"""Vision-EKIPL as a veRL recipe. Start reading at train.py."""
