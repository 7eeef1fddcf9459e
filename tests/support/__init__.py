"""What the tests of this repository share and plugin authors do not need."""
