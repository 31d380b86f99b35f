"""The whole loop against two single-process loops of our own making: `whole_loop` is the command."""
