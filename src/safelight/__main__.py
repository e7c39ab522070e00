"""``python -m safelight`` is the same program as ``safelight``."""

from safelight.cli import main

if __name__ == "__main__":
    main()
