"""``python -m causalrec`` is the command ``causalrec``."""

from causalrec.cli import main

if __name__ == "__main__":
    main()
