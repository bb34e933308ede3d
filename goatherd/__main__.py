"""`python -m goatherd`: how `goatherd up` starts its own parts."""

from goatherd.cli import main

if __name__ == "__main__":
    main()
