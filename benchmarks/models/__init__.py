"""Models as they come and go: `gguf_memory` measures what a conversion from GGUF holds beside the weights it writes."""
