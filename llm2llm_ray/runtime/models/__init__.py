"""Models on disk: `folders.py` finds, fetches and names them, `gguf.py` unpacks one; `node_copy.py` brings one to a node
and hashes it there; `hand_off.py` proves that an engine holds it; `tokens.py` is text to token ids, light enough for
a data actor.
"""
