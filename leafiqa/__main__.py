"""`python -m leafiqa`."""

from leafiqa.cli.main import main

if __name__ == "__main__":
    main()
