"""What is installed, what the machine has, and what a config needs of it. Libraries are probed in a process of their own."""
