"""What the loop itself costs, with engines that only take time: `scale` and `overlap` are the commands."""
