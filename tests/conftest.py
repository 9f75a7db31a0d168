"""What holds for all tests."""

import os

# Tests share the machine's cores: how late a server of theirs is says nothing, and turns nobody away.
os.environ["MAX_LATENESS_MS"] = "0"
