"""Who is asked: one protocol, one file (docs/experts.md). `python -m ekipl_rollout.experts doctor | ask`.

Reading order: base.py (an expert), build.py (the menu), live.py (how one question becomes requests), then one protocol:
chat_server.py (OpenAI, Azure, compatible servers) or gemini.py. prompting.py, pictures.py and reply.py are what is sent and
read; retry.py, failures.py, features.py and transport.py what happens when it fails; secret.py where the key lives; score.py
asks vLLM what it thinks of somebody else's answer. The rest is the command line.
"""
