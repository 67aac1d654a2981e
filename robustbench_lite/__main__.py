"""`python -m robustbench_lite` is `robeval`."""

from .cli import main

if __name__ == "__main__":
    main()
