"""Models on disk: `folders.py` finds, fetches and names them, `gguf.py` unpacks one; `node_copy.py` brings one to a node;
`tokens.py` is text to token ids, light enough for a data actor.
"""
