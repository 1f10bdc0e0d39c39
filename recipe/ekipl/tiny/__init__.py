"""A tiny Qwen2-VL that learns on a CPU in minutes: the demonstration, and what the end-to-end tests train.

model.py    builds the model, the tokenizer and the processor from nothing
base.py     brings it up by supervised learning until it sees but lacks the skill (verl's SFT trainer)
serving.py  starts one of two servers beside a program: demo_experts.py (two personas) or serve.py (the model behind vLLM)
"""
