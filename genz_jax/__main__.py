"""`python -m genz_jax`: the command genz-jax."""

from genz_jax_main import main

main()
