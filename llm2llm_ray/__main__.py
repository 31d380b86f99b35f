"""python -m llm2llm_ray"""

from llm2llm_ray.cli import main

main()
