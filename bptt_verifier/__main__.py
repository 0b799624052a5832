"""The command `bptt` as `python -m bptt_verifier`."""

from bptt_verifier.commands.main import main

if __name__ == "__main__":
    main()
