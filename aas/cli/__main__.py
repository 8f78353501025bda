"""`python -m aas.cli`, the same as the command `aas`."""

from aas.cli import run

if __name__ == "__main__":
    run(prog_name="aas")
